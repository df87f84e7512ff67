"""Products whose files share the beginning of their names and may lie in one folder with those of others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from terrasieve.archive.folders import CROWDED, find_files, list_files, walk
from terrasieve.archive.quality.limits import FlawError, Problem

_DEPTH, _SEARCHED = 3, 64
"""Levels below a folder, and folders, that recognition looks into."""


@dataclass(frozen=True)
class Granule:
    """The files of a product.

    Attributes:
        name: What the names of its files begin with.
        folder: Where they lie.
        files: The files by what follows in their names, in small letters.
    """

    name: str
    folder: Path
    files: Mapping[str, Path]

    def file(self, *parts: str) -> Path:
        """The file of the first of some parts that is there.

        Raises:
            SampleError: None is there.
        """
        for part in parts:
            if part.lower() in self.files:
                return self.files[part.lower()]
        text = f"Product {self.name} in {self.folder} lacks {' or '.join(parts)}. Fetch it again."
        raise FlawError(Problem.PARTNER, text)


def find_granules(root: Path, look: re.Pattern[str]) -> list[Granule]:
    """Products at any depth below a folder, in order of their names.

    Args:
        root: A folder that may be one of several products.
        look: What the whole path of a file looks like, with the groups ``name`` and ``part``.
    """
    found: dict[tuple[str, Path], dict[str, Path]] = {}
    for path in find_files(root, "**/*").files:
        if match := look.fullmatch(path.as_posix()):
            found.setdefault((match["name"], path.parent), {})[match["part"].lower()] = path
    return [Granule(name, folder, files) for (name, folder), files in sorted(found.items())]


def first_granule(root: Path, look: re.Pattern[str], kinds: Sequence[str] = (".tif",)) -> re.Match[str] | None:
    """How the name of the first file of a product near the top of a folder matches; None where there is none.

    Args:
        root: A folder.
        look: As for :func:`find_granules`.
        kinds: Suffixes of the files that are looked at.
    """
    return next(_matches(root, look, kinds), None)


def _matches(root: Path, look: re.Pattern[str], kinds: Sequence[str]) -> Iterator[re.Match[str]]:
    for folder in islice(walk(root.resolve(), _DEPTH, crowd=CROWDED), _SEARCHED):
        for kind in kinds:
            found = (look.fullmatch(path.as_posix()) for path in list_files(folder, kind))
            yield from (match for match in found if match)
