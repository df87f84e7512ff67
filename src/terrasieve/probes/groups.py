"""Samples that belong together, so that a split does not tear them apart: of one site, file or square of ground."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.markup import escape

from terrasieve.archive.overlaps import blocks
from terrasieve.console import console
from terrasieve.errors import ArchiveError, ConfigError, nearest

ASSET = "asset"
"""Stands for the column ``asset:<sensor>``: samples cut from one file are one group."""


def named_groups(table: pa.Table, column: str, what: str = "samples") -> NDArray[np.str_]:
    """The group of each sample, by the values of a column.

    Args:
        table: From ``Archive.table()``.
        column: Column whose equal values are one group.
        what: What the rows are called in errors, in the plural.

    Returns:
        Names, shape ``(n,)``.

    Raises:
        ArchiveError: The column has gaps.
        ConfigError: There is no such column.
    """
    if column not in table.column_names:
        raise ConfigError(f"The archive has no column {column!r} to group by.{nearest(column, table.column_names)}")
    values = table[column].to_pylist()
    missing = sum(value is None for value in values)
    if missing:
        raise ArchiveError(
            f"Column {column!r} is empty for {missing} of {len(values)} {what}, so their site is unknown; "
            "name another column to group by."
        )
    return np.array([str(value) for value in values])


def block_groups(table: pa.Table, km: float) -> NDArray[np.str_]:
    """The group of each sample, by the square of ground that its centre lies in.

    Args:
        table: From ``Archive.table()``.
        km: Side of a square in km, above 0.

    Returns:
        Names, shape ``(n,)``.

    Raises:
        ArchiveError: The place of a sample is unknown.
    """
    found = blocks(table, km)
    unknown = int((found < 0).sum())
    if unknown:
        raise ArchiveError(
            f"{unknown} of {len(found)} samples do not say where they lie, so that no square of ground can be held "
            "out; group by a column with --group, or split at random without --block-km."
        )
    return found.astype(str)


def warn_of_overlap(share: float, tested: str, others: str, options: str) -> None:
    """Print that scores are too good, where samples that are tested show ground of others.

    Args:
        share: Part of the tested samples that do, 0 to 1; nothing is printed for 0.
        tested: What is tested, in the plural.
        others: What it overlaps, in the plural.
        options: The switches of the command that hold places out whole.
    """
    if share:
        console.print(
            f"[yellow]Warning:[/] {share:.0%} of the test {escape(tested)} overlap {others}, so that scores are too "
            f"good; {options} holds places out whole.",
            highlight=False,
        )
