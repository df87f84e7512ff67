"""Splits of data sets: drawn with a fixed seed where none is published, or as published in lists of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from terrasieve.draws import shuffled_members
from terrasieve.errors import ArchiveError
from terrasieve.streams import Stream, generator

SEED = 0


def stratified_split(labels: Sequence[str], shares: Mapping[str, float], seed: int = SEED) -> list[str]:
    """A split in which every class has the same shares.

    Args:
        labels: The class of each sample, in an order that does not change.
        shares: Of each part; they sum to 1.
        seed: The same seed draws the same split.

    Returns:
        The part of each sample.
    """
    rng = generator(Stream.ARCHIVE_SPLIT, seed)
    parts = np.empty(len(labels), dtype=object)
    array = np.asarray(labels)
    for members in shuffled_members(array, np.unique(array), rng):
        ends = [round(len(members) * end) for end in accumulate(shares.values())]
        for part, start, end in zip(shares, [0, *ends], ends, strict=False):
            parts[members[start:end]] = part
    return [str(part) for part in parts]


def grouped_split(groups: Sequence[str], shares: Mapping[str, float], seed: int = SEED) -> list[str]:
    """A split that keeps the samples of a group together; shares are met as nearly as whole groups allow.

    Args:
        groups: The group of each sample, such as the orbit that it was seen from.
        shares: Of each part; they sum to 1.
        seed: The same seed draws the same split.

    Returns:
        The part of each sample.
    """
    names, codes, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = generator(Stream.ARCHIVE_SPLIT, seed).permutation(len(names))
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    ends = np.array(list(accumulate(shares.values()))) * len(groups)
    part_of = np.empty(len(names), dtype=np.int64)
    part_of[order] = np.minimum(np.searchsorted(ends, middles), len(shares) - 1)
    parts = list(shares)
    return [parts[part] for part in part_of[codes].tolist()]


# ----------------------------------------------------------------- split lists
# Published splits that come as text files with a name a line.


def read_split_lists(folders: Iterable[Path], names: Mapping[str, str]) -> dict[str, str]:
    """Split by the stem of each listed file.

    Args:
        folders: Where the lists are looked for; the first that has one counts.
        names: File name of the list of each split; a list may be absent.

    Raises:
        ArchiveError: A file is in two splits, or a list cannot be read.
    """
    places = list(folders)
    split_of: dict[str, str] = {}
    for split, name in names.items():
        path = next((place / name for place in places if (place / name).is_file()), None)
        for line in _lines(path) if path else ():
            stem = Path(line).stem
            if split_of.setdefault(stem, split) != split:
                raise ArchiveError(f"{path} lists {stem}, which is already in {split_of[stem]}; correct the lists.")
    return split_of


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} cannot be read as text: {error}. Fetch the file again, or remove it.") from error


def split_column(stems: Sequence[str], split_of: Mapping[str, str]) -> list[str | None]:
    """The split of each stem, None where it is not listed."""
    return [split_of.get(stem) for stem in stems]
