"""How much there is to do: steps, rounds and multiplications of a recipe on an archive of so many samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from terrasieve.config import RunConfig
from terrasieve.curation.balanced import BalancedClusters, default_levels
from terrasieve.curation.candidates import ROWS_PER_CLUSTER
from terrasieve.curation.curator import Curator
from terrasieve.curation.deduplicated import DeduplicatedClusters
from terrasieve.curation.hierarchy import HierarchicalKMeans
from terrasieve.curation.peers import DensityFlattening, FarthestPoint, NearDuplicates, RandomPruning
from terrasieve.errors import ConfigError
from terrasieve.training.schedules import make_timeline
from terrasieve.training.spec import CleanPass

_SEEDING_ROWS = 8
"""Rows per cluster that k-means seeds its centroids from, each compared with each centroid."""
_ROWS_DRAWN = 4
"""Rows for each cluster of the finest level, at least, from which a tree is grown again."""
_COARSE_UPDATES = 100
"""Largest number of updates of the levels above the finest."""


@dataclass(frozen=True)
class Workload:
    """What the jobs have to do.

    Attributes:
        samples: Samples of the archive.
        parts: Parts that it is indexed, packed and embedded in.
        trained_on: Samples that may be trained on, and that a round chooses from.
        batch: Samples of a step, over all machines.
        accumulate: Micro-batches of a step.
        steps: Steps of training.
        rounds: Rounds of curation.
        embedded: Samples that are embedded in a round.
        clustered: Multiplications of a round's curator for each number of a vector, at most.
        fitted: Rows that its clusters are fitted on.
        checkpoints: Checkpoints that stay.
    """

    samples: int
    parts: int
    trained_on: int
    batch: int
    accumulate: int
    steps: int
    rounds: int
    embedded: int
    clustered: float
    fitted: int
    checkpoints: int

    @property
    def largest_part(self) -> int:
        """Samples of the largest part."""
        return -(-self.samples // self.parts)

    def check_machines(self, machines: int) -> None:
        """Refuse a number of machines over which training would not start.

        Raises:
            ConfigError: The batch does not split over so many machines and micro-batches of two samples or more.
        """
        size, rest = divmod(self.batch, machines * self.accumulate)
        if rest or size < 2:
            raise ConfigError(
                f"--machines {machines}: train.batch_size {self.batch} does not split over so many into "
                f"{self.accumulate} micro-batch(es) of two samples or more each. Name other machines, or change "
                "--set train.batch_size."
            )


def workload_of(config: RunConfig, samples: int, parts: int) -> Workload:
    """What a recipe has to do on an archive of so many samples.

    Args:
        config: The recipe with every parameter resolved.
        samples: Samples of the archive, at least 1.
        parts: Parts that it is divided into, at least 1; never more than there are samples.
    """
    spec, train = config.curation, config.train
    trained_on = min(samples, config.samples or samples)
    timeline = make_timeline(trained_on, train, spec)
    embedded, clustered, fitted = 0, 0.0, 0
    if spec is not None:
        features = spec.features
        embedded = round(trained_on * (features.share if isinstance(features, CleanPass) else features.refresh))
        known = embedded if isinstance(features, CleanPass) else trained_on
        clustered = products_of(spec.curator, known, spec.pool_size(trained_on))
        fitted = fitted_rows(spec.curator, known)
    return Workload(
        samples=samples,
        parts=min(parts, samples),
        trained_on=trained_on,
        batch=train.batch_size,
        accumulate=train.accumulate,
        steps=timeline.steps,
        rounds=len(timeline.rounds),
        embedded=embedded,
        clustered=clustered,
        fitted=fitted,
        checkpoints=train.keep_checkpoints,
    )


def products_of(curator: Curator, rows: int, keep: int) -> float:
    """Products of pairs of vectors that a curator computes, at most: it may stop before its last iteration.

    A curator of another distribution, of which nothing is known, counts as :class:`BalancedClusters`.

    Args:
        curator: The curator with its settings.
        rows: Rows that it chooses from, at least 1.
        keep: Rows that it chooses, at least 1.
    """
    match curator:
        case RandomPruning():
            return 0.0
        case FarthestPoint():
            return float(rows) * keep
        case DensityFlattening():
            return float(rows) * min(rows, curator.references)
        case NearDuplicates():
            clusters = curator.clusters or max(1, round(math.sqrt(rows)))
            fitting = _k_means(fitted_rows(curator, rows), clusters, curator.iterations)
            return fitting + float(rows) * clusters + float(rows) ** 2 / clusters / 2
        case DeduplicatedClusters():
            offered = max(keep, round((1 - curator.duplicates) * rows))
            return products_of(curator.near_duplicates, rows, keep) + _tree(curator, offered, rows)
        case BalancedClusters():
            return _tree(curator, rows, rows)
        case _:
            return _tree(BalancedClusters(), rows, rows)


def fitted_rows(curator: Curator, rows: int) -> int:
    """Rows that a curator holds in memory to fit its clusters on; 0 for one that fits none."""
    match curator:
        case NearDuplicates():
            wanted = curator.fit_samples or ROWS_PER_CLUSTER * (curator.clusters or max(1, round(math.sqrt(rows))))
        case BalancedClusters():
            wanted = curator.fit_samples or ROWS_PER_CLUSTER * (curator.levels or default_levels(rows))[0]
        case _:
            wanted = 0
    return min(rows, wanted)


def _tree(curator: BalancedClusters, offered: int, rows: int) -> float:
    """Growing a tree on the rows offered, as often as the curator does, and one pass over all rows to assign them."""
    finest, *coarser = curator.levels or default_levels(offered)
    fitted = fitted_rows(curator, offered)
    drawn = max(round(HierarchicalKMeans().resampled_share * fitted), _ROWS_DRAWN * finest)

    def grow(on: int) -> float:
        above = sum(_k_means(below, clusters, _COARSE_UPDATES) for below, clusters in pairwise((finest, *coarser)))
        return _k_means(on, finest, curator.iterations) + above

    again = curator.resampling_steps * (float(fitted) * finest + grow(drawn)) if drawn < fitted else 0.0
    return grow(fitted) + again + float(rows) * finest


def _k_means(rows: int, clusters: int, iterations: int) -> float:
    """Seeding, the updates, and the pass that measures the last of them."""
    return float(clusters) * (min(rows, _SEEDING_ROWS * clusters) + float(rows) * (iterations + 1))
