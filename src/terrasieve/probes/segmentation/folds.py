"""Which images a segmentation probe learns from and is scored on: whole sites are held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.overlaps import overlapping
from terrasieve.errors import ArchiveError
from terrasieve.probes.groups import ASSET, named_groups
from terrasieve.streams import Stream, generator

MOST_SINGLE = 10
"""Up to so many groups are held out one at a time; more are dealt into :data:`DEALT` folds."""

DEALT = 5
"""Folds where groups are too many to be held out one at a time: each trains a network."""


@dataclass(frozen=True)
class Fold:
    """One round of fitting and scoring, as indices into the archive, each ascending.

    Attributes:
        train: What is fitted on and what pixels are standardised by, shape ``(n_train,)``.
        test: What is scored, shape ``(n_test,)``; shares no group with ``train``.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]

    def restricted(self, kept: NDArray[np.bool_]) -> Fold:
        """Only the samples that are marked, shape ``(n,)`` over the archive."""
        return Fold(self.train[kept[self.train]], self.test[kept[self.test]])


@dataclass(frozen=True)
class Folds:
    """Every image of an archive that is scored is so once.

    Attributes:
        parts: The folds, one a round of fitting and scoring.
        groups: Name of the group of every sample of the archive, shape ``(n,)``; the unit of the intervals.
        unit: What a group is, in the plural.
        origin: Where the folds come from, for the protocol.
    """

    parts: tuple[Fold, ...]
    groups: NDArray[np.str_]
    unit: str
    origin: str

    @property
    def used(self) -> NDArray[np.int64]:
        """Every sample that is in a fold, ascending."""
        return np.unique(np.concatenate([part for fold in self.parts for part in (fold.train, fold.test)]))

    def overlapping(self, table: pa.Table) -> float:
        """Share of the tested images, 0 to 1, whose outlines overlap those of images that their fold trains on.

        Args:
            table: From ``Archive.table()``.
        """
        return float(np.mean(np.concatenate([overlapping(table, fold.test, fold.train) for fold in self.parts])))


def make_folds(table: pa.Table, label_sensor: str, group: str | None = None, seed: int = 0) -> Folds:
    """The folds of an archive.

    Args:
        table: From ``Archive.table()``.
        label_sensor: Key of the sensor with the label maps.
        group: Column whose equal values are one site; ``asset`` is the file of the label map. Sites are then held
            out whole. When None, the published train and test images where there are any, else ``asset``.
        seed: Deals groups into folds where there are many.

    Raises:
        ArchiveError: The column has gaps or holds fewer than two groups, or the published split is incomplete.
        ConfigError: There is no such column.
    """
    splits = table["split"].to_pylist() if "split" in table.column_names else []
    if group is None and any(name is not None for name in splits):
        return _published(np.array(splits, dtype=object), table["id"].to_pylist())
    column = f"asset:{label_sensor}" if group in (None, ASSET) else str(group)
    return hold_out(named_groups(table, column, "images"), f"{column} held out", seed)


def hold_out(groups: NDArray[np.str_], origin: str, seed: int = 0) -> Folds:
    """Leave one group out at a time, or a fifth of the groups where there are more than ten.

    Args:
        groups: Group of every sample, shape ``(n,)``.
        origin: How the groups were found, for the protocol.
        seed: Deals the groups where there are many.

    Raises:
        ArchiveError: There are fewer than two groups.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise ArchiveError(
            f"All {len(groups)} images belong to the group {names[0]!r}, so none can be held out; name another column."
        )
    count = len(names) if len(names) <= MOST_SINGLE else DEALT
    order = names if count == len(names) else generator(Stream.FOLDS, seed).permutation(names)
    tests = [np.isin(groups, held) for held in np.array_split(order, count)]
    parts = tuple(Fold(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests)
    how = "one at a time" if count == len(names) else f"in {count} folds dealt with seed {seed}"
    return Folds(parts, groups, "groups", f"{origin} {how} ({len(names)} groups)")


def _published(splits: NDArray[np.object_], ids: list[str]) -> Folds:
    train, test = (np.flatnonzero(splits == part) for part in ("train", "test"))
    for name, part in (("train", train), ("test", test)):
        if not part.size:
            raise ArchiveError(f"The published split has no {name!r} images; complete it, or name a group column.")
    return Folds((Fold(train, test),), np.array(ids), "images", "published split")
