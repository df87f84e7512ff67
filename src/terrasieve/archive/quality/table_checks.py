"""What the table of an archive tells of several samples, or of several sensors, without any pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from terrasieve.archive.overlaps import overlapping
from terrasieve.archive.quality.suspicion import Kind

Seen: TypeAlias = "tuple[str, NDArray[np.int64], str]"
"""Key of the sensor, empty where it concerns whole samples; positions of the samples; what was seen, in numbers."""

LONG_DAYS = 30.0
"""Days between partners from which on fields are harvested and leaves fall."""
_LABELS = ("label", "labels", "split")


def find_overlapping(table: pa.Table, positions: NDArray[np.int64]) -> Seen | None:
    """Samples that show ground of others; where a split is published, test samples that show ground of train samples.

    Of samples without labels or a split none are looked at: only where some are held out can they leak.

    Args:
        table: The archive's table.
        positions: The samples that are looked at, ascending, shape ``(n,)``.
    """
    if all(name not in table.column_names or table[name].null_count == len(table) for name in _LABELS):
        return None
    split = np.array(table["split"].to_pylist() if "split" in table.column_names else [None] * len(table), dtype=object)
    train = np.flatnonzero(split == "train")
    if len(train):
        held = positions[split[positions] == "test"]
        shown = held[overlapping(table, held, train)]
        words = f"{len(shown) / max(1, len(held)):.0%} of the test samples overlap train samples by their outlines."
    else:
        shown = positions[overlapping(table, positions, np.arange(len(table)))]
        words = f"{len(shown) / max(1, len(positions)):.0%} of the samples overlap others by their outlines."
    return ("", shown, words) if len(shown) else None


def find_far_in_time(table: pa.Table, positions: NDArray[np.int64]) -> Seen | None:
    """Samples of which two sensors looked more than a month apart.

    Args:
        table: The archive's table, with ``time:<sensor>`` where sensors have times of their own.
        positions: The samples that are looked at, ascending, shape ``(n,)``.
    """
    names = [name for name in table.column_names if name.startswith("time:")]
    if len(names) < 2:
        return None
    micro = [table[name].cast(pa.int64()) for name in names]
    apart = pc.subtract(pc.max_element_wise(*micro, skip_nulls=True), pc.min_element_wise(*micro, skip_nulls=True))
    days = (apart.fill_null(0).to_numpy() / 86_400e6)[positions]
    order = np.flatnonzero(days > LONG_DAYS)
    if not len(order):
        return None
    # The furthest apart comes first, as the example.
    order = order[np.argsort(-days[order], kind="stable")]
    half, most, last = np.quantile(days, (0.5, 0.9, 1.0))
    words = f"days between its sensors: median {half:,.1f}, nine tenths up to {most:,.1f}, longest {last:,.1f}."
    key = names[1].removeprefix("time:")
    return key if f"asset:{key}" in table.column_names else "", positions[order], words


TABLE_CHECKS: Mapping[Kind, Callable[[pa.Table, NDArray[np.int64]], Seen | None]] = {
    Kind.OVERLAP: find_overlapping,
    Kind.TIMES: find_far_in_time,
}
"""What is looked for in the table."""
