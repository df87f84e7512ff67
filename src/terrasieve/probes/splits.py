"""What a probe predicts, and which samples it learns from, chooses on and is scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.draws import stratified_holdout
from terrasieve.errors import ArchiveError, ConfigError, nearest
from terrasieve.probes.metrics import Task
from terrasieve.probes.probe import VALIDATION_SHARE

SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}
"""Shares of a seeded stratified split, where none is published."""

STRATA = 10
"""Bands of equal count that a number is cut into, so that every part of a split covers its whole range."""


# --------------------------------------------------------------------- targets


@dataclass(frozen=True)
class Target:
    """A column of an archive's table that a probe is to predict, read by its type.

    Attributes:
        column: Name of the column.
        task: Text is a class, a list of texts several labels, and a floating-point number a value to regress.
        values: Class codes ``(n,)``, -1 where unknown; or labels ``(n, classes)`` as booleans; or numbers
            ``(n,)``, NaN where unknown.
        known: Where there is a value, shape ``(n,)``.
        classes: Names by code or column, ascending; none for a number.
    """

    column: str
    task: Task
    values: NDArray[Any]
    known: NDArray[np.bool_]
    classes: tuple[str, ...]

    def strata(self) -> NDArray[np.int64]:
        """A code for each sample by which splits are stratified, shape ``(n,)``.

        The class itself; of several labels the rarest; of a number its decile.
        """
        if self.task == "classification":
            return np.asarray(self.values, dtype=np.int64)
        if self.task == "multilabel":
            # The first that is true in ascending frequency: rare labels are what a split by chance would miss.
            order = np.argsort(self.values[self.known].sum(axis=0), kind="stable")
            return np.asarray(np.argmax(self.values[:, order], axis=1), dtype=np.int64)
        edges = np.quantile(self.values[self.known], np.linspace(0, 1, STRATA + 1)[1:-1])
        return np.searchsorted(edges, self.values).astype(np.int64)


def read_target(table: pa.Table, column: str = "label") -> Target:
    """A target from an archive's table.

    Args:
        table: From ``Archive.table()``.
        column: Name of the column to predict.

    Raises:
        ArchiveError: No sample has a value.
        ConfigError: There is no such column, or it holds neither texts, lists of texts nor floating-point numbers.
    """
    if column not in table.column_names:
        if column != "label":
            raise ConfigError(f"The archive has no column {column!r} to predict.{nearest(column, table.column_names)}")
        raise _unlabelled(column, len(table))
    values = table[column]
    known = np.asarray(values.is_valid())
    if not known.any():
        raise _unlabelled(column, len(table))
    if pa.types.is_floating(values.type):
        return _numbers(column, values)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return _labels(column, values.to_pylist(), known)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return _classes(column, values.to_pylist(), known)
    raise ConfigError(
        f"Column {column!r} holds {values.type}: write classes as text, several labels as lists of text, and numbers "
        "to regress as floating-point."
    )


def _classes(column: str, names: list[str | None], known: NDArray[np.bool_]) -> Target:
    codes = np.full(len(names), -1, dtype=np.int64)
    classes, codes[known] = np.unique([name for name in names if name is not None], return_inverse=True)
    return Target(column, "classification", codes, known, tuple(str(name) for name in classes))


def _labels(column: str, names: list[list[str] | None], known: NDArray[np.bool_]) -> Target:
    classes = sorted({name for row in names for name in row or ()})
    positions = {name: position for position, name in enumerate(classes)}
    values = np.zeros((len(names), len(classes)), dtype=np.bool_)
    for row, labels in enumerate(names):
        values[row, [positions[name] for name in labels or ()]] = True
    return Target(column, "multilabel", values, known, tuple(classes))


def _numbers(column: str, column_values: pa.ChunkedArray) -> Target:
    values = column_values.to_numpy().astype(np.float64)
    known = np.isfinite(values)
    if not known.any():
        raise _unlabelled(column, len(values))
    return Target(column, "regression", np.where(known, values, np.nan), known, ())


def _unlabelled(column: str, count: int) -> ArchiveError:
    return ArchiveError(
        f"None of the archive's {count} samples has a {column}; a probe needs a labelled archive, such as EuroSAT or "
        "the simulated one."
    )


# ---------------------------------------------------------------------- splits


@dataclass(frozen=True)
class Splits:
    """The samples of an archive whose target is known, in three parts.

    Attributes:
        train: Indices into the archive, shape ``(n_train,)``, ascending; ``val`` and ``test`` likewise.
        target: What is known of every sample.
        origin: Where the split comes from, for the protocol.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    target: Target
    origin: str

    @property
    def labels(self) -> NDArray[Any]:
        """The target's values of every sample of the archive."""
        return self.target.values

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class; the code is the position."""
        return self.target.classes


def make_splits(table: pa.Table, seed: int = 0, column: str = "split", target: str = "label") -> Splits:
    """The published split of a labelled archive, completed where parts of it are missing.

    No published split: a seeded 70/15/15, stratified as :meth:`Target.strata` says. No published validation split:
    a seeded, stratified tenth of train. Samples without a target or a split belong to no part.

    Args:
        table: From ``Archive.table()``.
        seed: Seed of whatever has to be drawn.
        column: The column with ``train``, ``val`` and ``test``.
        target: The column that is to be predicted.

    Raises:
        ArchiveError: There are no labels, or the published split has no train or no test samples.
        ConfigError: There is no such column, though another split is published, or no such target.
    """
    if column != "split" and column not in table.column_names:
        raise ConfigError(f"The archive has no split column {column!r}.{nearest(column, table.column_names)}")
    known = read_target(table, target)
    stated = table[column].to_pylist() if column in table.column_names else [None] * len(table)
    names = np.array(stated, dtype=object)
    if all(name is None for name in names):
        return _drawn(known, seed)
    parts = _published(names, known, column)
    origin = f"published ({column})"
    if not parts["val"].size:
        kept, held = stratified_holdout(known.strata()[parts["train"]], VALIDATION_SHARE, seed)
        parts["train"], parts["val"] = parts["train"][kept], parts["train"][held]
        origin += f", validation {VALIDATION_SHARE:.0%} of train drawn with seed {seed}"
    return Splits(**parts, target=known, origin=origin)


def _published(names: NDArray[np.object_], target: Target, column: str) -> dict[str, NDArray[np.int64]]:
    parts = {part: np.flatnonzero(target.known & (names == part)) for part in SHARES}
    for part in ("train", "test"):
        if not parts[part].size:
            raise ArchiveError(
                f"Column {column!r} publishes no labelled {part!r} samples; complete it, or empty the column "
                "to have a stratified split drawn."
            )
    return parts


def _drawn(target: Target, seed: int) -> Splits:
    labelled, strata = np.flatnonzero(target.known), target.strata()
    # Test samples are drawn first: they stay the same whatever share of the rest is held back to choose on.
    rest, test = stratified_holdout(strata[labelled], SHARES["test"], seed)
    train, val = stratified_holdout(strata[labelled[rest]], SHARES["val"] / (1 - SHARES["test"]), seed + 1)
    origin = f"stratified {':'.join(f'{100 * share:.0f}' for share in SHARES.values())}, drawn with seed {seed}"
    return Splits(labelled[rest[train]], labelled[rest[val]], labelled[test], target, origin)
