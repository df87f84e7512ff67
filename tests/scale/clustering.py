"""What every process of a test of clustering does: the same as one process would, of its own share of the vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrasieve.curation.balanced import BalancedClusters
from terrasieve.curation.candidates import Vectors
from terrasieve.curation.curator import Curator
from terrasieve.curation.deduplicated import DeduplicatedClusters
from terrasieve.curation.diagnostics import diagnose
from terrasieve.curation.kmeans import KMeans
from terrasieve.curation.peers import DensityFlattening, FarthestPoint, NearDuplicates
from terrasieve.curation.shares import SharedVectors
from terrasieve.processes.ranks import own_rank, rank_count

ROWS = 601
CURATORS: tuple[Curator, ...] = (
    BalancedClusters(levels=(40, 8), precision="32"),
    BalancedClusters(levels=(40, 8), diversity=0.5, fit_samples=300, precision="32"),
    DeduplicatedClusters(levels=(20,), precision="32"),
    NearDuplicates(precision="32"),
    FarthestPoint(),
    DensityFlattening(references=50),
)


def vectors() -> NDArray[np.float32]:
    """Clusters of very different sizes, a few copies, and a row that nobody can choose."""
    draws = np.random.default_rng(3)
    centres = draws.standard_normal((30, 16))
    which = draws.choice(30, ROWS, p=(shares := np.arange(1, 31) ** -1.2) / shares.sum())
    rows = (centres[which] + 0.4 * draws.standard_normal((ROWS, 16))).astype(np.float32)
    rows[100:110] = rows[:10]
    rows[300, 2] = np.nan
    return rows


def shared(rows: NDArray[Any], shares: tuple[float, ...]) -> SharedVectors:
    """The rows dealt out by shares of them, one for each process."""
    bounds = [round(sum(shares[:rank]) * len(rows)) for rank in range(len(shares) + 1)]
    start, stop = bounds[own_rank()], bounds[own_rank() + 1]
    return SharedVectors(rows[start:stop].copy(), start, len(rows))


def found(given: Vectors, finite: Vectors) -> Iterator[tuple[str, NDArray[Any]]]:
    """Everything that curation finds in vectors, and k-means in those without NaN."""
    for batch_size in (None, 100):
        model = KMeans(25, seed=1, precision="32", batch_size=batch_size).fit(finite)
        assigned = model.assign(finite)
        yield f"centroids {batch_size}", model.centroids_.numpy()
        yield f"labels {batch_size}", assigned.labels
        yield f"distances {batch_size}", assigned.distances
        yield f"history {batch_size}", np.array(model.history_)
    # More clusters than distinct rows, and centroids that lose all their rows.
    few = finite[np.arange(12)] if isinstance(finite, np.ndarray) else shared(finite[np.arange(12)], _halves())
    yield "few", KMeans(25, seed=1, precision="32").fit(few).centroids_.numpy()
    start = torch.full((8, 16), 50.0) + torch.arange(8)[:, None]
    yield "refilled", KMeans(8, seed=1, precision="32").fit(finite, start=start).centroids_.numpy()
    for number, curator in enumerate(CURATORS):
        for named in (None, np.arange(ROWS) * 7):
            selection = curator.select(given, 60, seed=5, numbers=named)
            name = f"{number} {curator.name} {'by content' if named is None else 'by number'}"
            yield f"{name}: indices", selection.indices
            yield f"{name}: leaves", selection.leaves
        measured = diagnose(given, selection, seed=2)
        yield f"{name}: distances", np.array([measured.coverage_mean, measured.nearest_neighbour])


def _halves() -> tuple[float, ...]:
    return (1 / rank_count(),) * rank_count()
