"""What probes measure, each metric with a bootstrap 95 % interval, by the kind of target.

Intervals are percentile intervals (Efron & Tibshirani 1993, chapter 13) over the test samples, drawn with one seed, so
that equal predictions have equal intervals. Segmentation has its own in
:mod:`terrasieve.probes.segmentation.pixel_metrics`, because pixels are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrasieve.streams import Stream, generator

Task = Literal["classification", "multilabel", "regression", "segmentation"]
"""One class a sample; several labels a sample; one number a sample; one class a pixel."""

Numbers = NDArray[np.float64]
Intervals = Mapping[str, tuple[float, float]]
"""Lower and upper bound of the 95 % interval of each metric, by its name."""


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is written and read.

    Attributes:
        title: The metric's name as people write it.
        percent: Whether values from 0 to 1 are shown in per cent.
        higher_is_better: None where neither is, as for a bias.
    """

    title: str
    percent: bool
    higher_is_better: bool | None


METRIC_INFO: Mapping[str, MetricInfo] = {
    "accuracy": MetricInfo("accuracy", percent=True, higher_is_better=True),
    "macro_f1": MetricInfo("macro-F1", percent=True, higher_is_better=True),
    "micro_map": MetricInfo("micro mAP", percent=True, higher_is_better=True),
    "macro_map": MetricInfo("macro mAP", percent=True, higher_is_better=True),
    "miou": MetricInfo("mIoU", percent=True, higher_is_better=True),
    "average_accuracy": MetricInfo("average accuracy", percent=True, higher_is_better=True),
    "overall_accuracy": MetricInfo("overall accuracy", percent=True, higher_is_better=True),
    "rmse": MetricInfo("RMSE", percent=False, higher_is_better=False),
    "mae": MetricInfo("MAE", percent=False, higher_is_better=False),
    "bias": MetricInfo("bias", percent=False, higher_is_better=None),
    "scatter_index": MetricInfo("scatter index", percent=True, higher_is_better=False),
    "r2": MetricInfo("R2", percent=False, higher_is_better=True),
}
"""Every metric of every probe by name. Regression metrics but the last two are in the unit of the target."""

RESAMPLES = 1000
"""Bootstrap resamples behind each interval."""
MULTILABEL_RESAMPLES = 200
"""Fewer than for one class a sample, because each resample costs a pass over every label's ranking."""

SEED = 0
BOOTSTRAP = f"95 % percentile intervals of {RESAMPLES:,} bootstrap resamples of the test predictions, seed {SEED}"
"""How intervals are made, for the protocol."""


@dataclass(frozen=True)
class Score:
    """Metrics of one set of predictions.

    Attributes:
        metrics: By name, as :data:`METRIC_INFO` describes them.
        ci95: Bootstrap 95 % interval of each.
        confusion: Counts, a row per true class; empty where classes do not exclude each other.
    """

    metrics: Mapping[str, float]
    ci95: Intervals
    confusion: tuple[tuple[int, ...], ...] = ()


def score_predictions(task: Task, truth: NDArray[Any], predicted: NDArray[Any]) -> Score:
    """Metrics and intervals of predictions.

    Args:
        task: ``classification``, ``multilabel`` or ``regression``.
        truth: Class codes ``(n,)``, labels ``(n, classes)``, or numbers ``(n,)``.
        predicted: The same, but a score for each label ``(n, classes)``.
    """
    if task == "classification":
        confusion = confusion_matrix(np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64))
        return Score(classification_metrics(confusion), bootstrap_intervals(confusion), as_table(confusion))
    if task == "multilabel":
        return Score(average_precision_metrics(truth, predicted), multilabel_intervals(truth, predicted))
    assert task == "regression", f"{task} is not scored sample by sample"
    return Score(regression_metrics(truth, predicted), regression_intervals(truth, predicted))


def interval(values: Numbers) -> tuple[float, float]:
    """The central 95 % of a metric's values in the resamples, shape ``(resamples,)``; NaN where it is NaN in all."""
    if not np.isfinite(values).any():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def as_table(confusion: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """A confusion matrix as JSON can hold it, a row per true class."""
    return tuple(tuple(row) for row in confusion.tolist())


# -------------------------------------------------------------- classification


def confusion_matrix(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts of (true, predicted) pairs, shape ``(classes, classes)``; classes are codes from 0.

    Raises:
        ValueError: The arrays differ in shape or are empty.
    """
    if truth.shape != predicted.shape or truth.ndim != 1 or not truth.size:
        raise ValueError(f"need as many predictions as labels, at least one: got {predicted.shape} and {truth.shape}")
    classes = int(max(truth.max(), predicted.max())) + 1
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def accuracy(confusion: NDArray[np.int64]) -> Numbers:
    """Share of correct predictions of confusion matrices ``(..., classes, classes)``."""
    correct = np.trace(confusion, axis1=-2, axis2=-1)
    return np.asarray(correct / confusion.sum(axis=(-2, -1)), dtype=np.float64)


def macro_f1(confusion: NDArray[np.int64]) -> Numbers:
    """Unweighted mean over classes of F1 = 2 TP / (2 TP + FP + FN).

    Classes that occur neither as truth nor as prediction are left out of the mean, as scikit-learn does.

    Args:
        confusion: Confusion matrices, shape ``(..., classes, classes)``.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    occurrences = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    present = occurrences > 0
    f1 = np.divide(2.0 * hits, occurrences, out=np.zeros(occurrences.shape), where=present)
    return np.asarray(f1.sum(axis=-1) / present.sum(axis=-1), dtype=np.float64)


METRICS = {"accuracy": accuracy, "macro_f1": macro_f1}
"""The metrics of every classification probe, by name."""


def classification_metrics(confusion: NDArray[np.int64]) -> dict[str, float]:
    """Every metric of one confusion matrix ``(classes, classes)``."""
    return {name: float(metric(confusion)) for name, metric in METRICS.items()}


def bootstrap_intervals(confusion: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = SEED) -> Intervals:
    """Interval of every classification metric.

    Drawing n test predictions with replacement changes the metrics only through how often each
    (true, predicted) pair is drawn, and these counts are multinomial. So the confusion matrices of
    all resamples are drawn at once, in memory that does not depend on n.

    Args:
        confusion: Confusion matrix of the test split, shape ``(classes, classes)``.
        resamples: Number of resamples, 1 or more.
        seed: Seed of the draws.
    """
    total = int(confusion.sum())
    drawn = generator(Stream.BOOTSTRAP, seed).multinomial(total, confusion.ravel() / total, size=resamples)
    matrices = drawn.reshape(resamples, *confusion.shape)
    return {name: interval(metric(matrices)) for name, metric in METRICS.items()}


# -------------------------------------------------------------- several labels


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
    return _mean_precisions(*_rankings(truth, scores), np.ones(len(truth)))


def multilabel_intervals(
    truth: NDArray[np.bool_], scores: NDArray[np.floating], resamples: int = MULTILABEL_RESAMPLES, seed: int = SEED
) -> Intervals:
    """Interval of both metrics, resampling samples with all their labels.

    Args:
        truth: Labels, shape ``(n, classes)``.
        scores: Higher where the label is more likely, shape ``(n, classes)``.
        resamples: Number of resamples, 1 or more.
        seed: Seed of the draws.
    """
    # The order of the scores is the same in every resample; only how often each sample counts differs.
    single, together = _rankings(truth, scores)
    rng, n = generator(Stream.BOOTSTRAP, seed), len(truth)
    drawn = []
    for _ in range(resamples):
        counts = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        drawn.append(_mean_precisions(single, together, counts))
    return {name: interval(np.array([one[name] for one in drawn])) for name in drawn[0]}


class _Ranking:
    """Samples ordered by a score, the highest first."""

    def __init__(self, truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ordered = scores[self.order]
        self.positive = truth[self.order]
        # The last of each group of equal scores: nothing can be said about the order inside one.
        self.ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))

    def average_precision(self, weights: Numbers) -> float:
        """Of samples that count as often as their weight; NaN where no positive counts."""
        ordered = weights[self.order]
        found = np.cumsum(ordered * self.positive)[self.ends]
        seen = np.cumsum(ordered)[self.ends]
        if found[-1] == 0:
            return float("nan")
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        return float((np.diff(found, prepend=0.0) * precision).sum() / found[-1])


def _rankings(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> tuple[list[_Ranking], _Ranking]:
    """The ranking by every label's score, and that of all pairs of sample and label together."""
    single = [_Ranking(truth[:, label], scores[:, label]) for label in range(truth.shape[1])]
    return single, _Ranking(truth.ravel(), scores.ravel())


def _mean_precisions(single: list[_Ranking], together: _Ranking, weights: Numbers) -> dict[str, float]:
    of_labels = [ranking.average_precision(weights) for ranking in single]
    of_all = together.average_precision(np.repeat(weights, len(single)))
    return {"micro_map": of_all, "macro_map": float(np.nanmean(of_labels))}


# --------------------------------------------------------------------- numbers


def regression_metrics(truth: Numbers, predicted: Numbers) -> dict[str, float]:
    """RMSE, MAE, bias, scatter index and R2 of predictions, as oceanography states them.

    The bias is the mean of prediction less truth. The scatter index is the standard deviation of that error,
    divided by the mean of the truth: the error that is left when the bias is taken off, relative to what is measured.
    R2 is one less the ratio of the squared errors to the squared deviations of the truth from its mean; below 0, the
    mean would have been the better prediction. A scatter index of values around 0 and R2 of constant truth are NaN.

    Args:
        truth: In the unit of the target, shape ``(n,)``.
        predicted: In the unit of the target, shape ``(n,)``.

    Raises:
        ValueError: The arrays differ in shape or are empty.
    """
    if truth.shape != predicted.shape or truth.ndim != 1 or not truth.size:
        raise ValueError(f"need as many predictions as values, at least one: got {predicted.shape} and {truth.shape}")
    means = _moments(truth, predicted).mean(axis=1)
    return {name: float(value[0]) for name, value in _from_means(means[:, None]).items()}


def regression_intervals(truth: Numbers, predicted: Numbers, resamples: int = RESAMPLES, seed: int = SEED) -> Intervals:
    """Interval of every regression metric; each depends on six means over the samples, so only these are resampled.

    Args:
        truth: In the unit of the target, shape ``(n,)``.
        predicted: In the unit of the target, shape ``(n,)``.
        resamples: Number of resamples, 1 or more.
        seed: Seed of the draws.
    """
    moments, rng = _moments(truth, predicted), generator(Stream.BOOTSTRAP, seed)
    n = len(truth)
    drawn = [moments[:, rng.integers(n, size=n)].mean(axis=1) for _ in range(resamples)]
    with np.errstate(invalid="ignore", divide="ignore"):
        values = _from_means(np.stack(drawn, axis=1))
    return {name: interval(value) for name, value in values.items()}


def _moments(truth: Numbers, predicted: Numbers) -> Numbers:
    """Of each sample: error, its square, its size, the truth less its mean, the square of that, and the truth."""
    error, centred = predicted - truth, truth - truth.mean()
    return np.stack([error, error**2, np.abs(error), centred, centred**2, truth]).astype(np.float64)


def _from_means(means: Numbers) -> dict[str, Numbers]:
    bias, squared, absolute, centred, centred_squared, level = means
    # Rounding may take the difference of two nearly equal numbers below 0.
    deviation = np.sqrt(np.maximum(squared - bias**2, 0))
    variance = centred_squared - centred**2
    return {
        "rmse": np.sqrt(squared),
        "mae": absolute,
        "bias": bias,
        "scatter_index": np.divide(deviation, level, out=np.full_like(deviation, np.nan), where=level > 0),
        "r2": 1 - np.divide(squared, variance, out=np.full_like(squared, np.nan), where=variance > 0),
    }
