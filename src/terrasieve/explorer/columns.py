"""What samples can be coloured by: classes, clusters, numbers, times and what curation did with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.explorer.explored import Explored, Round

COLOURS = 8
"""Classes that have a colour of their own on the page."""
_MOST_NAMES = 1000
"""Classes whose names the page holds; rarer ones are "others"."""
_NOT_SHOWN = ("geometry", "index", "group")
_SECONDS_OF_A_DAY = 86_400


@dataclass(frozen=True)
class Column:
    """Something that is known of samples.

    Attributes:
        name: What it is called on the page.
        kind: ``category``, ``number`` or ``time``.
        values: Of categories, int32 positions in ``names``, -1 where unknown; else float32, of times days since 1970 in
            UTC, NaN where unknown; shape ``(n,)``.
        names: Of categories, the most frequent first.
        cut: Whether there were more categories, which are -1 as well.
    """

    name: str
    kind: Literal["category", "number", "time"]
    values: NDArray[Any]
    names: tuple[str, ...] = ()
    cut: bool = False

    def described(self, key: str) -> dict[str, Any]:
        """What the page's script is told of it, beside the values.

        Args:
            key: Name of the values.
        """
        told: dict[str, Any] = {"key": key, "name": self.name, "kind": self.kind}
        if self.kind == "category":
            return {**told, "names": list(self.names), "cut": self.cut}
        low, high = float(np.nanmin(self.values)), float(np.nanmax(self.values))
        return {**told, "low": low, "high": high, "lowest": self._said(low), "highest": self._said(high)}

    def _said(self, value: float) -> str:
        if self.kind == "number":
            return f"{value:.5g}"
        return f"{datetime.fromtimestamp(value * _SECONDS_OF_A_DAY, UTC):%Y-%m-%d}"


def columns_of(subject: Explored, clusters: int, seed: int) -> list[Column]:
    """Everything that the samples can be coloured by; label first, where there is any.

    Args:
        subject: What is explored.
        clusters: Clusters to look for among the vectors; none below 2.
        seed: Of the search for clusters.
    """
    table = subject.table
    known = table.columns
    names = [name for name in known.column_names if name not in _NOT_SHOWN]
    order = sorted(names, key=lambda name: name != "label")
    made = [one for name in order if (one := _column(name, known[name])) is not None]
    first = [one for one in made if one.name == "label"]
    if 2 <= clusters < len(table):
        found = table.cluster(clusters, seed)
        first.append(category("cluster", [f"cluster {one + 1}" for one in found.tolist()]))
    return [*first, *_curation(subject.rounds), *(one for one in made if one.name != "label")]


def category(name: str, values: Sequence[str | None]) -> Column:
    """A column of classes.

    Args:
        name: What it is called.
        values: The class of each sample; None where unknown.
    """
    counts = Counter(value for value in values if value is not None)
    ordered = sorted(counts, key=lambda one: (-counts[one], one))
    position = {one: at for at, one in enumerate(ordered[:_MOST_NAMES])}
    codes = np.fromiter((-1 if one is None else position.get(one, -1) for one in values), np.int32, len(values))
    return Column(name, "category", codes, tuple(position), len(ordered) > _MOST_NAMES)


def _column(name: str, values: pa.ChunkedArray) -> Column | None:
    """None of what has no colour: lists, texts that are names, and columns without a value."""
    kind = values.type
    if values.null_count == len(values):
        return None
    if pa.types.is_timestamp(kind):
        seconds = values.cast(pa.timestamp("s", kind.tz), safe=False).cast(pa.int64()).to_numpy()
        return _numbers(name, "time", np.asarray(seconds, dtype=np.float64) / _SECONDS_OF_A_DAY)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        listed = values.cast(pa.string()).to_pylist()
        made = category(name, listed)
        return None if len(made.names) == len(listed) > COLOURS else made
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numbers(name, "number", values.to_numpy())
    return None


def _numbers(name: str, kind: Literal["number", "time"], values: NDArray[Any]) -> Column | None:
    numbers = np.asarray(values, dtype=np.float32)
    numbers = np.where(np.isfinite(numbers), numbers, np.float32(np.nan))
    return None if np.isnan(numbers).all() else Column(name, kind, numbers)


def _curation(rounds: Sequence[Round]) -> list[Column]:
    """What the last round did, in how many rounds a sample was kept, and in which one last."""
    if not rounds:
        return []
    kept = np.stack([one.kept for one in rounds])
    last = rounds[-1].number
    ever = kept.any(axis=0)
    states = np.where(kept[-1], f"kept by round {last}", np.where(ever, "kept earlier, dropped since", "never kept"))
    numbers = np.array([one.number for one in rounds])
    latest = np.where(ever, (kept * numbers[:, None]).max(axis=0), np.nan).astype(np.float32)
    made = [
        category("curation", states.tolist()),
        Column("rounds that kept it", "number", kept.sum(axis=0).astype(np.float32)),
    ]
    return [*made, Column("last kept in round", "number", latest)] if ever.any() else made
