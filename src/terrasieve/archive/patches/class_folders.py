"""Patches that lie in a folder for each class, and what a folder holds by the names in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from terrasieve.archive.folders import CROWDED, DEPTH, has_files, list_files, walk
from terrasieve.archive.patches.listing import Listing, read_split_lists, split_column
from terrasieve.errors import ArchiveError

_SPLITS = ("train", "val", "test")


def find_class_folders(root: Path, classes: Sequence[str], suffixes: Sequence[str]) -> dict[str, Path]:
    """The folders below a root (or the root) that hold all class folders, by the suffix of what lies in them.

    Raises:
        ArchiveError: Two folders hold files of one suffix.
    """
    found: dict[str, Path] = {}
    for folder in likely_folders(root, classes):
        if not all((folder / label).is_dir() for label in classes):
            continue
        for suffix in suffixes:
            if not any(has_files(folder / label, suffix) for label in classes):
                continue
            if suffix in found:
                raise ArchiveError(
                    f"{found[suffix]} and {folder} both hold these classes ({suffix}); name one as root."
                )
            found[suffix] = folder
    return found


def lacking_classes(root: Path, classes: Sequence[str], title: str) -> str | None:
    """Which class folders of a data set a folder lacks that has most of them; None where it has all, or few.

    Args:
        root: Folder to search.
        classes: Names of the class folders.
        title: Name of the data set, for the sentence.
    """
    for folder in likely_folders(root, classes):
        lacking = [label for label in classes if not (folder / label).is_dir()]
        if lacking and len(lacking) < len(classes) / 2:
            some = f"{', '.join(lacking[:5])}{' and others' if len(lacking) > 5 else ''}"
            return f"{folder} holds {title}'s class folders but for {some}; unpack them, or an empty folder for each."
    return None


def list_class_folders(folder: Path, classes: Sequence[str], suffix: str) -> list[tuple[str, str]]:
    """Class and file of each patch, the file relative to the folder, by class and then by number."""
    return [
        (label, f"{label}/{path.name}")
        for label in classes
        for path in sorted(list_files(folder / label, suffix), key=_by_number)
    ]


def list_pictures(
    root: Path, classes: Sequence[str], suffix: str, lists: str, sensor: str, title: str
) -> tuple[Path, Listing]:
    """The labelled files below a root, with the split that text files beside them publish.

    Args:
        root: The folder of the class folders, or one up to :data:`DEPTH` levels above it.
        classes: Names of the folders, which are the labels.
        suffix: What the names of the files end in, such as ``.tif``.
        lists: What the names of the lists begin with, such as ``resisc45-`` for ``resisc45-train.txt``; they are looked
            for from one level above the root down to the class folders. Without them the split is unknown.
        sensor: Key of the addresses.
        title: Name of the data set, for messages.

    Returns:
        What addresses are relative to, and the files by their stems.

    Raises:
        ArchiveError: The class folders are not there, are there twice, or a file is in two splits.
    """
    folder = find_class_folders(root, classes, (suffix,)).get(suffix) if root.is_dir() else None
    if folder is None:
        near = lacking_classes(root, classes, title) if root.is_dir() else None
        raise ArchiveError(
            near
            or f"{root} does not hold {title}'s {len(classes)} class folders ({classes[0]} to {classes[-1]}) with "
            f"{suffix} files within {DEPTH} levels; name the folder that the download was unpacked to."
        )
    found = list_class_folders(folder, classes, suffix)
    stems = [Path(address).stem for _, address in found]
    split_of = read_split_lists(
        [*likely_folders(root, classes), root.parent], {split: f"{lists}{split}.txt" for split in _SPLITS}
    )
    return folder, Listing(
        ids=stems,
        addresses={sensor: [address for _, address in found]},
        columns={"label": [label for label, _ in found], "split": split_column(stems, split_of)},
        facts={"listed_but_absent": len(set(split_of) - set(stems))},
    )


def likely_folders(root: Path, classes: Sequence[str]) -> Iterator[Path]:
    """A root and the folders below it in which the class folders of a data set may lie, in order."""
    return walk(root, DEPTH, classes, CROWDED)


def _by_number(path: Path) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d*)", path.stem)
    return (match[1], int(match[2] or 0)) if match else (path.stem, 0)
