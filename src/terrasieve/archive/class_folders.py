"""Patches that lie in a folder for each class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from terrasieve.errors import ArchiveError

DEPTH = 3
"""Levels below the root at which class folders are looked for."""


def find_class_folders(root: Path, classes: Sequence[str], suffixes: Sequence[str]) -> dict[str, Path]:
    """The folders below a root (or the root) that hold all class folders, by the suffix of what lies in them.

    Raises:
        ArchiveError: Two folders hold files of one suffix.
    """
    found: dict[str, Path] = {}
    for folder in walk(root, DEPTH, classes):
        if not all((folder / label).is_dir() for label in classes):
            continue
        for suffix in suffixes:
            if not any(next((folder / label).glob(f"*{suffix}"), None) for label in classes):
                continue
            if suffix in found:
                raise ArchiveError(
                    f"{found[suffix]} and {folder} both hold these classes ({suffix}); name one as root."
                )
            found[suffix] = folder
    return found


def list_class_folders(folder: Path, classes: Sequence[str], suffix: str) -> list[tuple[str, str]]:
    """Class and file of each patch, the file relative to the folder, by class and then by number."""
    return [
        (label, f"{label}/{path.name}")
        for label in classes
        for path in sorted((folder / label).glob(f"*{suffix}"), key=_by_number)
    ]


def walk(folder: Path, depth: int, leave_out: Sequence[str] = ()) -> Iterator[Path]:
    """A folder and those below it to a depth, in order; folders of the names left out are not entered."""
    yield folder
    if depth and folder.is_dir():
        for below in sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in leave_out):
            yield from walk(below, depth - 1, leave_out)


def _by_number(path: Path) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d*)", path.stem)
    return (match[1], int(match[2] or 0)) if match else (path.stem, 0)
