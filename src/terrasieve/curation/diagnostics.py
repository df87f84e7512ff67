"""What a selection did to an archive, in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.curation.candidates import Indices, Vectors, squared_distances, to_device, unit_rows
from terrasieve.curation.curator import Selection
from terrasieve.curation.keys import chunks
from terrasieve.distinct import distinct
from terrasieve.errors import CurationError
from terrasieve.streams import Stream, generator

_FAR_FEWER = 0.5
"""Share of the clusters asked for below which those with samples are called far fewer; k-means fills nearly all of
those that distinct vectors allow."""


@dataclass(frozen=True)
class Occupancy:
    """How evenly rows lie in groups.

    Attributes:
        groups: Number of groups with at least one row; 1 or more.
        effective: Effective number of groups, the exponential of the entropy of their shares (Hill 1973, order 1):
            from 1 (one holds everything) to ``groups`` (all hold the same).
        largest: Share of the largest group, in (0, 1].
    """

    groups: int
    effective: float
    largest: float


@dataclass(frozen=True)
class Balance:
    """How evenly rows lie in labelled classes.

    Attributes:
        counts: Number of rows of each class of the archive, by the class's name; 0 where none is left.
        entropy: Entropy of the classes' shares over the logarithm of the number of the archive's classes: from 0 (one
            class) to 1 (all alike); ``None`` where the archive has a single class.
    """

    counts: dict[str, int]
    entropy: float | None


@dataclass(frozen=True)
class Diagnostics:
    """What a selection did to an archive. Distances are Euclidean between unit vectors, in [0, 2].

    Distances to the nearest of a pool shrink as the pool grows, so compare them between pools of one size.

    Attributes:
        n: Number of finite rows of the archive.
        kept: Number of rows chosen.
        occupancy_before: How evenly all finite rows lie in the selection's groups.
        occupancy_after: How evenly the chosen rows lie in the selection's groups.
        nearest_neighbour: Mean distance of a chosen row to the nearest other chosen row; low where the pool repeats
            itself. ``None`` with fewer than two chosen rows.
        coverage_mean: Mean distance of a row that was not chosen to the nearest chosen one; low where the pool
            stands for the archive. ``None`` where all were chosen.
        coverage_p95: The 95th percentile of the same.
        compared: Number of chosen rows that distances were taken to: all, or as many as the sample allows.
        turnover: Share of the chosen rows that the previous pool did not have, in [0, 1]; ``None`` without one.
        classes_before: How evenly the finite rows lie in classes; ``None`` without labels.
        classes_after: How evenly the chosen rows lie in classes; ``None`` without labels.
    """

    n: int
    kept: int
    occupancy_before: Occupancy
    occupancy_after: Occupancy
    nearest_neighbour: float | None
    coverage_mean: float | None
    coverage_p95: float | None
    compared: int
    turnover: float | None
    classes_before: Balance | None
    classes_after: Balance | None

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionaries fit for JSON, without NaN: what is not known is ``None``."""
        return asdict(self)


def diagnose(
    vectors: Vectors,
    selection: Selection,
    previous: NDArray[Any] | None = None,
    labels: Sequence[Any] | NDArray[Any] | None = None,
    seed: int = 0,
    sample: int = 4096,
) -> Diagnostics:
    """Measure a selection.

    Args:
        vectors: ``(n, d)`` floats that the selection was made from.
        selection: The rows that were chosen of them.
        previous: Positions of the rows of the pool before this one; None for the first pool.
        labels: ``(n,)`` classes of the rows, all names or all numbers; None where they are not known.
        seed: Decides which rows distances are taken of and to, where there are many; not negative.
        sample: Bounds the cost: distances of at most ``sample / 4`` rows to at most ``4 * sample`` chosen rows. With
            fewer rows than these the distances are exact.

    Raises:
        CurationError: The vectors or labels are not as many as the selection's rows.
    """
    n = len(selection.leaves)
    for name, given in (("vectors", vectors), ("labels", labels)):
        if given is not None and len(given) != n:
            raise CurationError(f"The selection is of {n:,} rows, but there are {len(given):,} {name}; give its own.")
    finite = np.flatnonzero(selection.leaves >= 0)
    nearest, coverage, compared = _distances(vectors, selection.indices, finite, seed, sample)
    new = None if previous is None else ~np.isin(selection.indices, previous)
    before, after = (None, None) if labels is None else _balances(np.asarray(labels), finite, selection.indices)
    return Diagnostics(
        n=len(finite),
        kept=len(selection),
        occupancy_before=occupancy(np.bincount(selection.leaves[finite])),
        occupancy_after=occupancy(selection.quotas),
        nearest_neighbour=float(nearest.mean()) if len(nearest) else None,
        coverage_mean=float(coverage.mean()) if len(coverage) else None,
        coverage_p95=float(np.percentile(coverage, 95)) if len(coverage) else None,
        compared=compared,
        turnover=None if new is None else float(new.mean()),
        classes_before=before,
        classes_after=after,
    )


def cautions(vectors: Vectors, selection: Selection) -> list[str]:
    """What makes a selection worth little whatever its curator, a sentence each.

    Args:
        vectors: ``(n, d)`` floats that the selection was made from.
        selection: The rows that were chosen of them.
    """
    found = []
    if vectors.shape[1] == 1:
        found.append(
            "The vectors hold one number each: of unit length they are 1 or -1, so that curation sees two kinds of "
            "samples at most. Give vectors of an encoder, before any head."
        )
    asked = selection.provenance.get("levels_asked")
    filled = len(distinct(selection.leaves[selection.leaves >= 0]))
    if asked and filled < _FAR_FEWER * asked[0]:
        found.append(
            f"Of {asked[0]:,} clusters that were asked for, {filled:,} hold samples: most vectors are copies of each "
            "other. Ask for fewer clusters, or see whether the encoder has collapsed."
        )
    return found


def occupancy(counts: NDArray[Any]) -> Occupancy:
    """How evenly rows lie in groups.

    Args:
        counts: ``(groups,)`` numbers of rows in the groups; at least one row in all.
    """
    shares = counts[counts > 0] / counts.sum()
    return Occupancy(len(shares), min(float(len(shares)), math.exp(_entropy(shares))), float(shares.max()))


def _entropy(shares: NDArray[np.float64]) -> float:
    # The largest first, and not below 0, so that rounding neither depends on the order nor makes a negative entropy.
    ordered = np.sort(shares)[::-1]
    return max(0.0, float(-(ordered * np.log(ordered)).sum()))


def _balances(labels: NDArray[Any], finite: Indices, chosen: Indices) -> tuple[Balance, Balance]:
    names, codes = np.unique(labels[finite], return_inverse=True)
    everywhere = np.zeros(len(labels), dtype=np.int64)
    everywhere[finite] = codes
    return _balance(names, codes), _balance(names, everywhere[chosen])


def _balance(names: NDArray[Any], codes: NDArray[np.int64]) -> Balance:
    counts = np.bincount(codes, minlength=len(names))
    shares = counts[counts > 0] / counts.sum()
    entropy = min(1.0, _entropy(shares) / math.log(len(names))) if len(names) > 1 else None
    return Balance({str(name): int(count) for name, count in zip(names, counts, strict=True)}, entropy)


def _distances(
    vectors: Vectors, chosen: Indices, finite: Indices, seed: int, sample: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Distances to the nearest chosen row, of some chosen rows and of some others; and how many were compared."""
    drawn = generator(Stream.SELECTION_DIAGNOSTICS, seed)
    left = np.setdiff1d(finite, chosen, assume_unique=True)
    pool = _some(chosen, 4 * sample, drawn)
    inside = _some(pool, sample // 4, drawn) if len(pool) > 1 else pool[:0]
    outside = _some(left, sample // 4, drawn)
    references = unit_rows(vectors[pool])
    nearest = _nearest(unit_rows(vectors[inside]), references, skip=np.searchsorted(pool, inside))
    return nearest, _nearest(unit_rows(vectors[outside]), references), len(pool)


def _some(rows: Indices, count: int, generator: np.random.Generator) -> Indices:
    """At most ``count`` of the rows, at least one where there is one, ascending."""
    return rows if len(rows) <= count else np.sort(generator.choice(rows, max(1, count), replace=False))


def _nearest(
    rows: NDArray[np.float32], references: NDArray[np.float32], skip: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Each row's distance to the nearest reference, but for the one at ``skip``, which is the row itself."""
    nearest = np.empty(len(rows), dtype=np.float32)
    others = to_device(references, "cpu")
    for part in chunks(len(rows), 4 * len(references)):
        squares = squared_distances(to_device(rows[part], "cpu"), others).numpy()
        if skip is not None:
            # A row among the references would be its own nearest, at a distance of 0.
            squares[np.arange(len(squares)), skip[part]] = np.inf
        nearest[part] = np.sqrt(squares.min(axis=1))
    return nearest
