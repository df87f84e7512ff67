"""k-means of many vectors: seeded by distance, Lloyd's iterations over chunks, on the CPU and on GPUs.

A pass reads the vectors once, in chunks that fit a budget of memory, so that they may lie in a mapped file. The
products of vectors and centroids are nearly all of the work; :mod:`~terrasieve.curation.assignment` does it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.curation.assignment import NearestCentroids
from terrasieve.curation.keys import Keys, rekey, smallest
from terrasieve.curation.rows import GivesRows, Rows, UnitSource, cached_slices
from terrasieve.curation.seeding import Seeding, seed_centroids
from terrasieve.device import Precision, resolve_precision
from terrasieve.errors import CurationError

_SEEDING_ROWS = 8
"""Rows per cluster that centroids are seeded from."""

_ROWS_AT_ONCE = 2048
"""Rows of a chunk at most: more do not multiply faster, and leave the cache."""


Vectors = NDArray[Any] | Tensor | UnitSource | GivesRows | Rows
"""``(n, d)`` floats: an array, a mapped file, a tensor, or rows that are scaled to unit length when they are used."""


def untold(done: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Assignment:
    """Which centroid each vector is nearest to.

    Attributes:
        labels: ``(n,)`` int64 position of the centroid.
        distances: ``(n,)`` float32 squared Euclidean distance to it.
    """

    labels: NDArray[np.int64]
    distances: NDArray[np.float32]


class _Pass(NamedTuple):
    labels: NDArray[np.int64]
    distances: NDArray[np.float32]
    sums: Tensor
    counts: Tensor
    objective: float


class KMeans:
    """Lloyd's k-means (1982), or mini-batch k-means (Sculley 2010) where ``batch_size`` is given.

    Seeding takes one sample of 8 rows per cluster, chosen by the rows' content; so does a cluster that lost all its
    rows, which begins anew at the row that is farthest from its own centroid. Hence no cluster is empty, unless there
    are fewer distinct rows than clusters: then there are fewer clusters. On the CPU the same rows and seed give the
    same centroids; on a GPU sums are added in an order that may change their last bits.

    Args:
        clusters: Number of clusters wanted, K; at least 1.
        seed: Decides which rows the seeding and the mini-batches take; not negative.
        iterations: Largest number of updates of the centroids; 0 or more.
        tolerance: Stop when an update lowers the objective by less than this share of it. The default stops after three
            or four updates on most data; what twenty would still gain is well below one per cent.
        init: How centroids are seeded; see :func:`~terrasieve.curation.seeding.seed_centroids`.
        batch_size: Number of rows of a mini-batch; None passes over all rows for each update.
        precision: What products are computed in. With ``bf16`` they only tell which centroids can be a row's nearest,
            and float32 decides among those: labels, distances and means are the same as with ``float32``, but for
            centroids that float32 cannot tell apart. ``auto`` takes ``bf16`` where the device is fast at it.
        memory_mib: Bound on the memory for products, in MiB.
        device: The device to compute on, such as ``cpu`` or ``cuda:0``.

    Attributes:
        centroids_: ``(k, d)`` float32 on the CPU, k at most ``clusters``.
        objective_: Mean squared distance of a row to its centroid.
        history_: The objective before each update, and at the end; that of the mini-batch where there is one.
        iterations_: Number of updates made.
        converged_: Whether an update lowered the objective by less than the tolerance.
    """

    centroids_: Tensor
    objective_: float
    history_: list[float]
    iterations_: int
    converged_: bool

    def __init__(
        self,
        clusters: int,
        *,
        seed: int = 0,
        iterations: int = 20,
        tolerance: float = 1e-3,
        init: Seeding = "k-means++",
        batch_size: int | None = None,
        precision: Precision = "auto",
        memory_mib: int = 256,
        device: str | torch.device = "cpu",
    ) -> None:
        self.clusters = clusters
        self.seed = seed
        self.iterations = iterations
        self.tolerance = tolerance
        self.init = init
        self.batch_size = batch_size
        self.precision = precision
        self.memory_mib = memory_mib
        self.device = device

    def fit(self, vectors: Vectors, start: Tensor | None = None, keys: Keys | None = None) -> Self:
        """Find the centroids.

        Rows that a GPU has room for cross to it once, in the type that they are stored in; others once an update.

        Args:
            vectors: ``(n, d)`` floats.
            start: ``(k, d)`` floats, the centroids to begin with; None seeds them.
            keys: ``(n,)`` random keys of the rows; None takes them from the rows' content and the seed.

        Raises:
            CurationError: There is no row, a row is not finite, or ``clusters`` is not positive.
        """
        rows = Rows.of(vectors, self.device)
        rows.check()
        if self.clusters < 1:
            raise CurationError(f"clusters is {self.clusters}; ask for at least 1.")
        keys = rows.keys(self.seed) if keys is None else keys
        rows.settle()
        if start is None:
            # Where there are few clusters, 4,096 rows cost nothing and show rare concepts.
            chosen = smallest(keys, max(_SEEDING_ROWS * self.clusters, 4096))
            seeds = (rows.gather(chosen), keys[chosen], self.clusters, self.init, self.memory_mib, rows.together)
            start = rows.agreed(seed_centroids(*seeds))
        centroids = start.to(self.device, torch.float32)
        self.history_, self.converged_ = [], False
        if self.batch_size is None:
            centroids = self._full(rows, centroids)
        else:
            centroids = self._mini_batches(rows, rekey(keys, 1), centroids, self.batch_size)
        self.centroids_ = centroids.cpu()
        self.objective_ = self.history_[-1]
        self.iterations_ = len(self.history_) - 1
        return self

    def assign(self, vectors: Vectors, show: Callable[[int], object] = untold) -> Assignment:
        """Find the nearest centroid of each row, in one pass.

        Args:
            vectors: ``(n, d)`` floats.
            show: Called again and again with the number of rows that are done.

        Raises:
            CurationError: There is no row, or a row is not finite.
        """
        rows = Rows.of(vectors, self.device)
        rows.check()
        centroids = self.centroids_.to(rows.device)
        found = _pass(rows, centroids, self.precision, self.memory_mib, means=False, show=show)
        return Assignment(rows.everyones(found.labels), rows.everyones(found.distances))

    def _full(self, rows: Rows, centroids: Tensor) -> Tensor:
        while True:
            found = _pass(rows, centroids, self.precision, self.memory_mib, means=True)
            self.history_.append(found.objective)
            # Nothing is left to gain from an objective of 0, however little the last update lowered it.
            self.converged_ = found.objective == 0 or (
                len(self.history_) > 1 and self.history_[-2] - found.objective <= self.tolerance * self.history_[-2]
            )
            if self.converged_ or len(self.history_) > self.iterations:
                # Centroids that lost their last row in the last update have no row to name.
                return centroids[found.counts > 0]
            centroids = _repaired(rows, found)

    def _mini_batches(self, rows: Rows, keys: NDArray[np.uint64], centroids: Tensor, size: int) -> Tensor:
        """Each centroid moves to the mean of all rows that mini-batches ever gave it."""
        order = np.argsort(keys, kind="stable")
        seen = torch.zeros(len(centroids), 1, device=centroids.device)
        # One turn more than there are updates: the last only measures.
        for turn in range(self.iterations + 1):
            batch = Rows(
                rows.gather(np.take(order, np.arange(turn * size, (turn + 1) * size), mode="wrap")), rows.device
            )
            found = _pass(batch, centroids, self.precision, self.memory_mib, means=True)
            self.history_.append(found.objective)
            if turn < self.iterations:
                counts = found.counts[:, None]
                seen += counts
                # The running mean of all rows so far, without keeping them.
                centroids = centroids + (found.sums - counts * centroids) / seen.clamp_min(1)
                _refill(centroids, torch.nonzero(seen.flatten() == 0).flatten(), batch, found.distances)
        return centroids[seen.flatten() > 0]


# ---------------------------------------------------------------------- passes


def rows_at_once(clusters: int, memory_mib: int) -> int:
    """Rows that are compared with all centroids together; products of as many are the same to the last bit.

    Args:
        clusters: Number of centroids, at least 1.
        memory_mib: Bound on the memory for products, in MiB.
    """
    return max(1, min(_ROWS_AT_ONCE, memory_mib * 2**20 // (8 * clusters)))


def _pass(
    rows: Rows,
    centroids: Tensor,
    precision: Precision,
    memory_mib: int,
    means: bool,
    show: Callable[[int], object] = untold,
) -> _Pass:
    """Assign every row that is held, and add up all rows of each centroid where ``means`` are wanted."""
    count, device = len(centroids), centroids.device
    # Where the rows are computed with: to fetch the answers of each chunk would wait for its products.
    labels = torch.empty(rows.held, dtype=torch.int64, device=device)
    distances = torch.empty(rows.held, device=device)
    sums, counts = torch.zeros_like(centroids), torch.zeros(count, device=device)
    size = min(rows_at_once(count, memory_mib), len(rows))
    # Metal knows no products of chosen pairs, which float32 decides by.
    shortlist = device.type != "mps" and resolve_precision(precision, device) == "bf16"
    nearest = NearestCentroids(centroids, size, shortlist)
    for part, chunk in rows.chunks(size):
        found = nearest(chunk)
        labels[part] = found
        # From the differences: squares of lengths less products would leave rounding where rows are copies.
        for piece in cached_slices(chunk.shape, device):
            gaps = centroids[found[piece]].sub_(chunk[piece])
            distances[part][piece] = gaps.norm(dim=1).square_()
        if means:
            sums.index_add_(0, found, chunk)
            counts += torch.bincount(found, minlength=count)
        show(part.stop)
    if means:
        rows.add_up(sums, counts)
    squares = distances.cpu().numpy()
    return _Pass(labels.cpu().numpy(), squares, sums, counts, rows.mean(squares))


def _repaired(rows: Rows, found: _Pass) -> Tensor:
    """The means, and for clusters without rows the rows that are farthest from their own centroids."""
    centroids = found.sums / found.counts.clamp_min(1)[:, None]
    still_empty = _refill(centroids, torch.nonzero(found.counts == 0).flatten(), rows, found.distances)
    kept = torch.ones(len(centroids), dtype=torch.bool, device=centroids.device)
    kept[still_empty] = False
    return centroids[kept]


def _refill(centroids: Tensor, empty: Tensor, rows: Rows, distances: NDArray[np.float32]) -> Tensor:
    """Let empty clusters begin anew, in place, at the rows that are farthest; those that no row is left for."""
    if not len(empty):
        return empty
    distances = rows.everyones(distances)
    farthest = np.argsort(-distances, kind="stable")[: len(empty)]
    # A row that lies on its centroid already would only make a copy of that.
    farthest = farthest[distances[farthest] > 0]
    centroids[empty[: len(farthest)]] = rows.gather(farthest)
    return empty[len(farthest) :]
