"""What a probe predicts: a column of an archive's table, read by its type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.patches.labels import class_names, is_class
from terrasieve.errors import ArchiveError, ConfigError, nearest
from terrasieve.probes.metrics import Task

STRATA = 10
"""Bands of equal count that a number is cut into, so that every part of a split covers its whole range."""


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

    Of texts, blanks around them do not count, and one that is empty or says NaN names no class; a sample of which all
    labels are so is not labelled.

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
    if not values.is_valid().to_numpy().any():
        raise _unlabelled(column, len(table))
    if pa.types.is_floating(values.type):
        return _numbers(column, values)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return _labels(column, values.to_pylist())
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return _classes(column, class_names(values).to_pylist())
    raise ConfigError(
        f"Column {column!r} holds {values.type}: write classes as text, several labels as lists of text, and numbers "
        "to regress as floating-point."
    )


def _classes(column: str, names: list[str | None]) -> Target:
    known = np.array([name is not None for name in names])
    if not known.any():
        raise _unlabelled(column, len(names))
    codes = np.full(len(names), -1, dtype=np.int64)
    classes, codes[known] = np.unique([name for name in names if name is not None], return_inverse=True)
    return Target(column, "classification", codes, known, tuple(str(name) for name in classes))


def _labels(column: str, said: list[list[str | None] | None]) -> Target:
    names = [None if row is None else [str(name).strip() for name in row if is_class(name)] for row in said]
    # A row without labels says that there are none; one with nothing but blanks says nothing.
    known = np.array([row is not None and (bool(kept) or not row) for row, kept in zip(said, names, strict=True)])
    if not known.any():
        raise _unlabelled(column, len(said))
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
