"""Which images a segmentation probe learns from and is scored on: whole sites are held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.errors import ArchiveError, ConfigError, nearest

ASSET = "asset"
"""Stands for the column ``asset:<label sensor>``: images cut from one file are one group."""

MOST_SINGLE = 10
"""Up to so many groups are held out one at a time; more are dealt into :data:`DEALT` folds."""

DEALT = 5
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Fold:
    """One round of fitting and scoring, as indices into the archive, each ascending.

    Attributes:
        train: What is fitted on and what pixels are standardised by, shape ``(n_train,)``.
        validation: Those of ``train`` that settings are chosen on before the fit on all of ``train``; may be empty.
        test: What is scored, shape ``(n_test,)``; shares no group with ``train``.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def restricted(self, kept: NDArray[np.bool_]) -> Fold:
        """Only the samples that are marked, shape ``(n,)`` over the archive."""
        return Fold(*(part[kept[part]] for part in (self.train, self.validation, self.test)))


@dataclass(frozen=True)
class Folds:
    """Every image of an archive that is scored is so once.

    Attributes:
        parts: The folds.
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


def make_folds(table: pa.Table, label_sensor: str, group: str | None = None, seed: int = 0) -> Folds:
    """The folds of an archive.

    Args:
        table: From ``Archive.table()``.
        label_sensor: Key of the sensor with the label maps.
        group: Column whose equal values are one site; ``asset`` is the file of the label map. Sites are then held
            out whole. When None, the published split where there is one, else ``asset``.
        seed: Draws validation groups, and deals groups into folds where there are many.

    Raises:
        ArchiveError: The column has gaps or holds fewer than two groups, or the published split is incomplete.
        ConfigError: There is no such column.
    """
    splits = table["split"].to_pylist() if "split" in table.column_names else []
    if group is None and any(name is not None for name in splits):
        return _published(np.array(splits, dtype=object), table["id"].to_pylist(), seed)
    column = f"asset:{label_sensor}" if group in (None, ASSET) else str(group)
    return hold_out(_groups(table, column), f"{column} held out", seed)


def hold_out(groups: NDArray[np.str_], origin: str, seed: int = 0) -> Folds:
    """Leave one group out at a time, or a fifth of the groups where there are more than ten.

    Args:
        groups: Group of every sample, shape ``(n,)``.
        origin: How the groups were found.
        seed: Deals the groups, and draws each fold's validation groups: a tenth of the train groups, one at least.

    Raises:
        ArchiveError: There are fewer than two groups.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise ArchiveError(
            f"All {len(groups)} images belong to the group {names[0]!r}, so none can be held out; name another column."
        )
    count = len(names) if len(names) <= MOST_SINGLE else DEALT
    order = names if count == len(names) else np.random.default_rng(seed).permutation(names)
    parts = tuple(_fold(groups, held, (seed, number)) for number, held in enumerate(np.array_split(order, count)))
    how = "one at a time" if count == len(names) else f"in {count} folds dealt with seed {seed}"
    return Folds(parts, groups, "groups", f"{origin} {how} ({len(names)} groups)")


def _fold(groups: NDArray[np.str_], held: NDArray[np.str_], seed: tuple[int, ...]) -> Fold:
    test = np.isin(groups, held)
    train = np.flatnonzero(~test)
    return Fold(train, _validation(groups, train, seed), np.flatnonzero(test))


def _validation(groups: NDArray[np.str_], train: NDArray[np.int64], seed: tuple[int, ...]) -> NDArray[np.int64]:
    names = np.unique(groups[train])
    count = min(max(1, round(VALIDATION_SHARE * len(names))), len(names) - 1)
    return train[np.isin(groups[train], np.random.default_rng(seed).permutation(names)[:count])]


def _published(splits: NDArray[np.object_], ids: list[str], seed: int) -> Folds:
    train, val, test = (np.flatnonzero(splits == part) for part in ("train", "val", "test"))
    for name, part in (("train", train), ("test", test)):
        if not part.size:
            raise ArchiveError(f"The published split has no {name!r} images; complete it, or name a group column.")
    groups = np.array(ids)
    fitted = np.union1d(train, val)
    validation = val if val.size else _validation(groups, train, (seed, 0))
    return Folds((Fold(fitted, validation, test),), groups, "images", "published split")


def _groups(table: pa.Table, column: str) -> NDArray[np.str_]:
    if column not in table.column_names:
        raise ConfigError(f"The archive has no column {column!r} to group by.{nearest(column, table.column_names)}")
    values = table[column].to_pylist()
    missing = sum(value is None for value in values)
    if missing:
        raise ArchiveError(
            f"Column {column!r} is empty for {missing} of {len(values)} images, so their site is unknown; "
            "name another column to group by."
        )
    return np.array([str(value) for value in values])
