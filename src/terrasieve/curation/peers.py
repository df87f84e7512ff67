"""Other ways to choose rows, under the same interface, to compare with: by chance, far apart, by density, no copies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from terrasieve.console import Stopwatch
from terrasieve.curation.candidates import (
    ROWS_PER_CLUSTER,
    Candidates,
    Indices,
    Vectors,
    candidates,
    squared_distances,
    to_device,
)
from terrasieve.curation.curator import Curator, Selection, assign_units, make_selection, meter, track_long
from terrasieve.curation.keys import Keys, rekey, smallest, uniform
from terrasieve.curation.kmeans import KMeans
from terrasieve.device import Precision

_TILE = 4096
"""Rows compared with as many others at once: 64 MiB of similarities."""

_BATCH = 512
"""Rows among which k-centre looks for the next centres before it goes through all rows again."""

_HELD_BYTES = 2**30
"""Size up to which unit vectors that are gone through many times stay in memory."""

_FIRST = -2.0
"""Similarity of a row that stands before all others of its cluster: below every cosine."""

_REFERENCES = 2
"""Number of the decision which rows are references; see :func:`~terrasieve.curation.keys.rekey`."""


# ----------------------------------------------------------------------- by chance


class RandomPruning(Curator):
    """Keep rows by chance alone: what every other curator has to beat.

    Attributes:
        name: The word that chooses this curator in a configuration.
    """

    name: Literal["random"] = "random"

    def select(
        self, vectors: Vectors, keep: int, seed: int, device: str = "cpu", numbers: Indices | None = None
    ) -> Selection:
        """Choose rows; see :class:`~terrasieve.curation.curator.Curator`."""
        watch = Stopwatch()
        with watch.stage("draw"):
            pool = candidates(vectors, keep, seed, numbers)
            chosen = smallest(pool.keys(seed), keep)
        return make_selection(pool, chosen, curator=self, seed=seed, seconds=watch.seconds)


# --------------------------------------------------------- without near duplicates


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows by how similar they are to another of their cluster.

    Attributes:
        order: ``(m,)`` positions, the row least similar to any before it first.
        similarities: ``(m,)`` each row's highest cosine with a row that stands before it in its cluster; below every
            cosine for the first of a cluster.
        leaves: ``(m,)`` clusters of the rows, in [0, clusters).
        clusters: Number of clusters, at least 1.
    """

    order: Indices
    similarities: NDArray[np.float32]
    leaves: Indices
    clusters: int

    def epsilon(self, keep: int) -> float | None:
        """The threshold that keeps just so many rows; None where each of them is the first of its cluster."""
        highest = float(self.similarities[self.order[:keep][-1]])
        return 1 - highest if highest > _FIRST else None


class NearDuplicates(Curator):
    """Drop the rows most similar to another of their cluster: SemDeDup (Abbas et al. 2023, arXiv 2303.09540).

    Within a k-means cluster the rows stand in the order of their distance from the centroid, farthest first, and a
    row's similarity is its highest cosine with any row before it. SemDeDup drops what is more similar than
    ``1 - epsilon``; here epsilon is whatever leaves exactly ``keep`` rows, and the provenance says which it was.

    It costs ``n**2 / clusters`` products of vectors where clusters are even; memory is bounded, whatever their size.

    Attributes:
        name: The word that chooses this curator in a configuration.
        clusters: Number of clusters of k-means; null for about ``sqrt(n)``.
        fit_samples: Number of rows, chosen at random, that the clusters are fitted on; null for 64 per cluster.
        iterations: Largest number of updates of k-means.
        precision: What k-means computes products in; see :class:`~terrasieve.curation.kmeans.KMeans`.
    """

    name: Literal["semdedup"] = "semdedup"
    clusters: int | None = Field(default=None, ge=1)
    fit_samples: int | None = Field(default=None, ge=1)
    iterations: int = Field(default=20, ge=1)
    precision: Precision = "auto"

    def select(
        self, vectors: Vectors, keep: int, seed: int, device: str = "cpu", numbers: Indices | None = None
    ) -> Selection:
        """Choose rows; see :class:`~terrasieve.curation.curator.Curator`."""
        watch = Stopwatch()
        with watch.stage("read"):
            pool = candidates(vectors, keep, seed, numbers)
            keys = pool.keys(seed)
        ranked = self.rank(pool, keys, seed, device, watch)
        facts = {"clusters": ranked.clusters, "epsilon": ranked.epsilon(keep)}
        return make_selection(
            pool,
            ranked.order[:keep],
            curator=self,
            seed=seed,
            seconds=watch.seconds,
            leaves=ranked.leaves,
            groups=ranked.clusters,
            facts=facts,
        )

    def rank(self, pool: Candidates, keys: Keys, seed: int, device: str, watch: Stopwatch) -> Ranking:
        """Rank all rows by how similar they are to another; the first of them are worth most.

        Args:
            pool: The m finite rows.
            keys: ``(m,)`` their random keys, which decide between equals.
            seed: Decides where k-means begins.
            device: The device to compute on.
            watch: Notes the seconds of the stages ``fit``, ``assign`` and ``compare``.
        """
        with watch.stage("fit"):
            means = self._fit(pool, keys, seed, device)
        with watch.stage("assign"):
            leaves, distances = assign_units(means, pool, len(means.centroids_))
        with watch.stage("compare"):
            similarities = _similarities(pool, leaves, distances, keys, device)
        return Ranking(np.lexsort((keys, similarities)), similarities, leaves, len(means.centroids_))

    def _fit(self, pool: Candidates, keys: Keys, seed: int, device: str) -> KMeans:
        clusters = self.clusters or max(1, round(math.sqrt(len(pool))))
        means = KMeans(clusters, seed=seed, iterations=self.iterations, precision=self.precision, device=device)
        rows, row_keys = pool.sample(keys, self.fit_samples or ROWS_PER_CLUSTER * clusters)
        return means.fit(rows, keys=row_keys)


def _similarities(
    pool: Candidates, leaves: Indices, distances: NDArray[np.float32], keys: Keys, device: str
) -> NDArray[np.float32]:
    """Each row's highest cosine with a row that stands before it in its cluster, farthest from the centroid first."""
    order = np.lexsort((keys, -distances, leaves))
    clusters = np.split(order, np.flatnonzero(np.diff(leaves[order])) + 1)
    products = sum(float(len(rows)) ** 2 for rows in clusters) / 2 * pool.vectors.shape[1]
    highest = np.empty(len(pool), dtype=np.float32)
    for rows in track_long(clusters, "compare within clusters", len(clusters), products):
        tiles = [rows[start : start + _TILE] for start in range(0, len(rows), _TILE)]
        highest[rows] = np.concatenate([_highest_in_tiles(pool, tiles[: i + 1], device) for i in range(len(tiles))])
    return highest


def _highest_in_tiles(pool: Candidates, tiles: list[Indices], device: str) -> NDArray[np.float32]:
    """For the rows of the last tile, the highest cosine with a row before it, in its own tile or an earlier one."""
    own = to_device(pool.gather(tiles[-1]), device)
    # Below the diagonal stand the rows before; what stands on it and above is set lower than any similarity.
    similar = _cosines(own, own).tril_(diagonal=-1)
    similar += torch.full_like(similar, _FIRST - 1).triu_()
    highest = similar.amax(dim=1).clamp_(min=_FIRST)
    for tile in tiles[:-1]:
        highest = torch.maximum(highest, _cosines(own, to_device(pool.gather(tile), device)).amax(dim=1))
    return highest.cpu().numpy()


def _cosines(rows: Tensor, others: Tensor) -> Tensor:
    # By way of the distances, so that zero vectors are copies of each other.
    return 1 - squared_distances(rows, others) / 2


# ----------------------------------------------------------------------- far apart


class FarthestPoint(Curator):
    """Take again and again the row farthest from all that are taken: greedy k-centre.

    Gonzalez 1985 (Theoretical Computer Science 38, section 3) proves that the largest distance of any row from its
    nearest taken one is at most twice the smallest possible; Sener and Savarese 2018 (arXiv 1708.00489, algorithm 1)
    choose training sets by it. The first row is drawn by the seed, and distances are Euclidean between unit vectors.

    The result is exact. It costs ``n * keep`` products of vectors, gone through in matrix products for as many
    centres as can be told from a few hundred farthest rows. Outliers come first: that is the method's nature.

    Attributes:
        name: The word that chooses this curator in a configuration.
    """

    name: Literal["k-center"] = "k-center"

    def select(
        self, vectors: Vectors, keep: int, seed: int, device: str = "cpu", numbers: Indices | None = None
    ) -> Selection:
        """Choose rows; see :class:`~terrasieve.curation.curator.Curator`.

        The provenance adds ``radius``, the largest distance of any row from the nearest chosen one, in [0, 2].
        """
        watch = Stopwatch()
        with watch.stage("read"):
            pool = candidates(vectors, keep, seed, numbers)
            keys = pool.keys(seed)
        with watch.stage("spread"):
            chosen, radius = _greedy_centres(pool, keys, min(keep, len(pool)), device)
        return make_selection(pool, chosen, curator=self, seed=seed, seconds=watch.seconds, facts={"radius": radius})


def _greedy_centres(pool: Candidates, keys: Keys, keep: int, device: str) -> tuple[Indices, float]:
    """The first ``keep`` rows of the greedy order, and the largest distance left."""
    tiles = _UnitTiles(pool, device)
    batch = smallest(keys, 1)
    # Squared distance to the nearest chosen row; -1 for the chosen rows themselves.
    nearest = np.full(len(pool), np.inf, dtype=np.float32)
    chosen = [batch]
    done = 1
    with meter("spread (rows)", keep, float(len(pool)) * keep * pool.vectors.shape[1]) as show:
        while True:
            centres = to_device(pool.gather(batch), device)
            for part, rows in tiles:
                closest = squared_distances(rows, centres).amin(dim=1).cpu().numpy()
                np.minimum(nearest[part], closest, out=nearest[part])
            nearest[batch] = -1
            if done == keep:
                return np.concatenate(chosen), math.sqrt(max(0.0, float(nearest.max())))
            batch = _next_centres(pool, keys, nearest, device)[: keep - done]
            chosen.append(batch)
            done += len(batch)
            show(done)


def _next_centres(pool: Candidates, keys: Keys, nearest: NDArray[np.float32], device: str) -> Indices:
    """The next rows of the greedy order, as many as the farthest few hundred decide among themselves.

    Distances only shrink. So a row of the few stays the farthest of all as long as it is farther than the best of
    the others was at the start.
    """
    few, bound = _farthest(keys, nearest)
    rows = to_device(pool.gather(few), device)
    between = squared_distances(rows, rows).cpu().numpy()
    own = nearest[few]
    picks: list[int] = []
    while True:
        pick = int(own.argmax())
        # Of equally far rows the one with the lower key: its inverted key is the higher.
        farther = (own[pick], ~keys[few[pick]]) > bound
        if own[pick] < 0 or (picks and not farther):
            return few[picks]
        picks.append(pick)
        # What the pick does to the few; the rest is told when all rows are gone through again.
        own = np.minimum(own, between[pick])
        own[pick] = -1


def _farthest(keys: Keys, nearest: NDArray[np.float32]) -> tuple[Indices, tuple[np.float32, np.uint64]]:
    """The farthest few rows in the order of their keys, and the distance and inverted key of the best other one."""
    count = min(_BATCH, int((nearest >= 0).sum()))
    # One more than the few, and all that are as far as that one; the rows chosen already are among the others.
    least = np.partition(nearest, len(nearest) - count - 1)[len(nearest) - count - 1]
    order = np.flatnonzero(nearest >= least)
    order = order[np.lexsort((keys[order], -nearest[order]))]
    few = order[:count]
    other = order[count]
    return few[np.argsort(keys[few])], (nearest[other], ~keys[other])


class _UnitTiles:
    """The finite rows as unit vectors on the device, chunk by chunk, again and again."""

    def __init__(self, pool: Candidates, device: str) -> None:
        self.pool = pool
        self.device = device
        size = 4 * len(pool) * pool.vectors.shape[1]
        self.held = list(self._read()) if size <= _HELD_BYTES else None

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        return iter(self._read() if self.held is None else self.held)

    def _read(self) -> Iterator[tuple[slice, Tensor]]:
        return ((part, to_device(self.pool.unit(part), self.device)) for part in self.pool.chunks())


# ---------------------------------------------------------------------- by density


class DensityFlattening(Curator):
    """Draw rows with a probability inversely proportional to the density around them.

    The density is a count, as in the density-dependent down-sampling of SPADE (Qiu et al. 2011, Nature
    Biotechnology 29, 886-891): the rows of a random reference set within a radius, the row itself included. SPADE
    thins what is above a target density; here all are drawn without replacement with weights ``1 / density``
    (Efraimidis and Spirakis 2006, Information Processing Letters 97, algorithm A-Res), so that exactly ``keep``
    remain.

    Attributes:
        name: The word that chooses this curator in a configuration.
        references: Size ``m`` of the reference set. It costs ``n * m`` products of vectors.
        radius: Euclidean distance between unit vectors up to which references are counted, in (0, 2]; null for the
            median distance of a reference to its ``sqrt(m)``-th nearest other one.
    """

    name: Literal["density"] = "density"
    references: int = Field(default=1024, ge=1)
    radius: float | None = Field(default=None, gt=0, le=2)

    def select(
        self, vectors: Vectors, keep: int, seed: int, device: str = "cpu", numbers: Indices | None = None
    ) -> Selection:
        """Choose rows; see :class:`~terrasieve.curation.curator.Curator`.

        The provenance adds the ``radius`` used and the ``references`` there were.
        """
        watch = Stopwatch()
        with watch.stage("read"):
            pool = candidates(vectors, keep, seed, numbers)
            keys = pool.keys(seed)
        with watch.stage("count"):
            which = smallest(rekey(keys, _REFERENCES), self.references)
            references = to_device(pool.gather(which), device)
            radius = self.radius or _typical_radius(references)
            density = _counts(pool, references, radius, device)
            # A row that is a reference has counted itself already.
            density += 1
            density[which] -= 1
        # Of independent exponential variables, each with its weight as rate, the smallest come first.
        chosen = smallest(-np.log(uniform(keys)) * density, keep)
        facts = {"radius": radius, "references": len(which)}
        return make_selection(pool, chosen, curator=self, seed=seed, seconds=watch.seconds, facts=facts)


def _counts(pool: Candidates, references: Tensor, radius: float, device: str) -> NDArray[np.float64]:
    """References within the radius of each row."""
    counts = np.empty(len(pool), dtype=np.float64)
    # A hair wider, so that rounding does not decide about the pair whose distance is the radius.
    limit = radius**2 * (1 + 1e-4)
    parts = pool.chunks(extra=len(references))
    products = float(len(pool)) * references.numel()
    for part in track_long(parts, "count neighbours (chunks)", len(parts), products):
        squares = squared_distances(to_device(pool.unit(part), device), references)
        counts[part] = (squares <= limit).sum(dim=1).cpu().numpy()
    return counts


def _typical_radius(references: Tensor) -> float:
    """Median distance to the ``sqrt(m)``-th nearest other reference; over the positive ones where that is 0."""
    nearest = squared_distances(references, references).sqrt_().sort(dim=1).values
    # The first column is the row itself.
    typical = nearest[:, min(round(math.sqrt(len(references))), len(references) - 1)]
    if typical.median() == 0:
        typical = nearest[nearest > 0]
    return float(typical.median()) if len(typical) else 1.0
