"""Balanced curation: the same number of rows from every cluster of a tree, or all that it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from terrasieve.console import Stopwatch
from terrasieve.curation.candidates import ROWS_PER_CLUSTER, Candidates, Indices, Vectors, candidates
from terrasieve.curation.curator import Curator, Selection, assign_units, make_selection
from terrasieve.curation.hierarchy import HierarchicalKMeans, levels_fall
from terrasieve.curation.keys import Keys
from terrasieve.curation.sampling import draw, tree_quotas
from terrasieve.device import Precision


@dataclass(frozen=True, eq=False)
class Grown:
    """A tree of clusters, and the rows that it was grown for; what is known before rows are assigned to it.

    Attributes:
        pool: The m finite rows, and the others.
        keys: ``(m,)`` random keys of the finite rows.
        offered: Positions among the finite rows of those that can be drawn, ascending.
        tree: The clusters.
        fitted: Number of rows that they were fitted on.
        facts: What else the provenance says.
    """

    pool: Candidates
    keys: Keys
    offered: Indices
    tree: HierarchicalKMeans
    fitted: int
    facts: Mapping[str, Any]


class BalancedClusters(Curator):
    """Fit a tree of clusters, share ``keep`` evenly among its leaves, draw within each leaf.

    The clusters are those of hierarchical k-means with resampling, and the shares are water-filled from the top
    (Vo et al. 2024, arXiv 2405.15613); the diversity within a leaf is OceanSAR-1's (Kerdreux et al. 2025,
    arXiv 2504.06962), which publishes neither its value nor the numbers of clusters: the defaults are ours.

    Attributes:
        name: The word that chooses this curator in a configuration.
        levels: Numbers of clusters of the levels, the finest first and falling; null for :func:`default_levels`.
        diversity: Eta in [-1, 1]: -1 takes the rows nearest the centroid, 0 draws uniformly, 1 takes the farthest.
        fit_samples: Number of rows, chosen at random, that the tree is fitted on; null for 64 per cluster of the finest
            level.
        resampling_steps: How often the tree is grown again from rows drawn evenly from its clusters; 0 or more.
        iterations: Largest number of updates in each fit of k-means.
        precision: What k-means computes products in; see :class:`~terrasieve.curation.kmeans.KMeans`.
    """

    name: Literal["balanced"] = "balanced"
    levels: tuple[int, ...] | None = Field(default=None, min_length=1)
    diversity: float = Field(default=0.0, ge=-1, le=1)
    fit_samples: int | None = Field(default=None, ge=1)
    resampling_steps: int = Field(default=2, ge=0)
    iterations: int = Field(default=20, ge=1)
    precision: Precision = "auto"

    @field_validator("levels")
    @classmethod
    def _levels_fall(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and not levels_fall(value):
            raise ValueError(f"levels are {list(value)}; give falling numbers, the finest first, such as [2000, 200]")
        return value

    def select(
        self, vectors: Vectors, keep: int, seed: int, device: str = "cpu", numbers: Indices | None = None
    ) -> Selection:
        """Choose rows; see :class:`~terrasieve.curation.curator.Curator`."""
        watch = Stopwatch()
        grown = self.grow(vectors, keep, seed, device, numbers, watch)
        with watch.stage("assign"):
            leaves, distances = assign_units(grown.tree, grown.pool, len(grown.tree.centroids_[0]))
        return self.share_out(grown, keep, seed, leaves, distances, watch)

    def grow(
        self, vectors: Vectors, keep: int, seed: int, device: str, numbers: Indices | None, watch: Stopwatch
    ) -> Grown:
        """Fit the tree; arguments as of :meth:`select`, and a stopwatch for what it takes."""
        with watch.stage("read"):
            pool = candidates(vectors, keep, seed, numbers)
            keys = pool.keys(seed)
        offered, facts = self._offer(pool, keys, keep, seed, device, watch)
        with watch.stage("fit"):
            tree, fitted = self._fit(pool.part(offered), keys[offered], seed, device)
        return Grown(pool, keys, offered, tree, fitted, facts)

    def share_out(
        self, grown: Grown, keep: int, seed: int, leaves: Indices, distances: NDArray[np.float32], watch: Stopwatch
    ) -> Selection:
        """Share ``keep`` out among the leaves, and draw.

        Args:
            grown: The tree, and the rows.
            keep: Number of rows to choose.
            seed: That of :meth:`grow`.
            leaves: ``(m,)`` leaf of each finite row.
            distances: ``(m,)`` squared distances to the centroids of the leaves.
            watch: Stopwatch for what it takes.
        """
        pool, tree, offered = grown.pool, grown.tree, grown.offered
        counts = [len(centroids) for centroids in tree.centroids_]
        with watch.stage("draw"):
            sizes = np.bincount(leaves[offered], minlength=counts[0])
            # Sizes of all rows offered, not of those that the tree was fitted on: quotas count what there is to draw.
            quotas = tree_quotas(sizes, tree.parents_, keep, seed)
            chosen = offered[draw(leaves[offered], distances[offered], quotas, grown.keys[offered], self.diversity)]
        facts = {
            **grown.facts,
            "levels": counts,
            "levels_asked": list(self.levels or default_levels(len(offered))),
            "fitted_on": grown.fitted,
            "mean_squared_distance": float(distances.mean()),
        }
        return make_selection(
            pool, chosen, curator=self, seed=seed, seconds=watch.seconds, leaves=leaves, groups=counts[0], facts=facts
        )

    def _offer(
        self, pool: Candidates, keys: Keys, keep: int, seed: int, device: str, watch: Stopwatch
    ) -> tuple[Indices, dict[str, Any]]:
        """Which of the finite rows clusters are fitted on and drawn from, ascending, and what to say of it: all."""
        return np.arange(len(pool)), {}

    def _fit(self, pool: Candidates, keys: Keys, seed: int, device: str) -> tuple[HierarchicalKMeans, int]:
        levels = self.levels or default_levels(len(pool))
        rows, row_keys = pool.sample(keys, self.fit_samples or ROWS_PER_CLUSTER * levels[0])
        tree = HierarchicalKMeans(
            levels,
            seed=seed,
            resampling_steps=self.resampling_steps,
            iterations=self.iterations,
            precision=self.precision,
            device=device,
        )
        return tree.fit(rows, row_keys), len(rows)


def default_levels(n: int) -> tuple[int, ...]:
    """Clusters of each level for ``n`` rows, finest first: about ``8 * sqrt(n)``, then a tenth of it.

    The finest level has four rows per cluster or more, and the coarser is left out where it would be one cluster.
    """
    finest = max(1, min(round(8 * math.sqrt(n)), n // 4))
    coarser = finest // 10
    return (finest, coarser) if coarser > 1 else (finest,)
