"""Mean average precision of several labels a sample, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from terrasieve.probes.metrics.classification import SEED
from terrasieve.streams import Stream, generator

RESAMPLES = 200
"""Fewer than for one class a sample, because each resample costs a pass over every label's ranking."""


def average_precision_metrics(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> dict[str, float]:
    """Micro and macro mean average precision.

    Micro ranks all pairs of sample and label together; macro is the mean over the labels that occur. Average precision
    is the mean over the positives of the precision at their rank, ties sharing the lowest rank of their group, as
    scikit-learn defines it (no interpolation).

    Args:
        truth: Labels, shape ``(n, classes)``.
        scores: Higher where the label is more likely, shape ``(n, classes)``.

    Raises:
        ValueError: The arrays differ in shape, or no label occurs.
    """
    if truth.shape != scores.shape or truth.ndim != 2 or not truth.any():
        raise ValueError(f"need a score for each label, and one label at least: got {scores.shape} and {truth.shape}")
    return _means(_Rankings(truth, scores), np.ones(len(truth)))


def multilabel_intervals(
    truth: NDArray[np.bool_], scores: NDArray[np.floating], resamples: int = RESAMPLES, seed: int = SEED
) -> Mapping[str, tuple[float, float]]:
    """Bootstrap 95 % percentile interval of both metrics, resampling samples with all their labels.

    Args:
        truth: Labels, shape ``(n, classes)``.
        scores: Shape ``(n, classes)``.
        resamples: Number of resamples.
        seed: Seed of the draws.
    """
    rankings, rng, n = _Rankings(truth, scores), generator(Stream.BOOTSTRAP, seed), len(truth)
    drawn = []
    for _ in range(resamples):
        counts = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        drawn.append(_means(rankings, counts))
    return {name: _bounds([one[name] for one in drawn]) for name in drawn[0]}


class _Rankings:
    """The order of the scores of every label and of all together; the same in every resample."""

    def __init__(self, truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> None:
        self.classes = [_Ranking(truth[:, label], scores[:, label]) for label in range(truth.shape[1])]
        self.all = _Ranking(truth.ravel(), scores.ravel())
        self.labels = truth.shape[1]


class _Ranking:
    def __init__(self, truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ordered = scores[self.order]
        self.positive = truth[self.order]
        # The last of each group of equal scores: nothing can be said about the order inside one.
        self.ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))

    def average_precision(self, weights: NDArray[np.float64]) -> float:
        """Of samples that count as often as their weight; NaN where no positive counts."""
        ordered = weights[self.order]
        found = np.cumsum(ordered * self.positive)[self.ends]
        seen = np.cumsum(ordered)[self.ends]
        if found[-1] == 0:
            return float("nan")
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        return float((np.diff(found, prepend=0.0) * precision).sum() / found[-1])


def _means(rankings: _Rankings, weights: NDArray[np.float64]) -> dict[str, float]:
    single = [ranking.average_precision(weights) for ranking in rankings.classes]
    together = rankings.all.average_precision(np.repeat(weights, rankings.labels))
    return {"micro_map": together, "macro_map": float(np.nanmean(single))}


def _bounds(values: list[float]) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
