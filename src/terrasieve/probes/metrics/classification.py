"""What is measured, and accuracy and macro-F1 with bootstrap intervals, computed from the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from terrasieve.streams import Stream, generator

Task = Literal["classification", "multilabel", "regression", "segmentation"]
"""One class a sample; several labels a sample; one number a sample; one class a pixel."""


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is written and read.

    Attributes:
        title: As people write it.
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
SEED = 0
BOOTSTRAP = f"95 % percentile intervals of {RESAMPLES:,} bootstrap resamples of the test predictions, seed {SEED}"
"""How intervals are made, for the protocol."""


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


def accuracy(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of correct predictions of confusion matrices ``(..., classes, classes)``."""
    correct = np.trace(confusion, axis1=-2, axis2=-1)
    return np.asarray(correct / confusion.sum(axis=(-2, -1)), dtype=np.float64)


def macro_f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
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


def bootstrap_intervals(
    confusion: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = SEED
) -> Mapping[str, tuple[float, float]]:
    """Bootstrap 95 % percentile interval of every metric (Efron & Tibshirani 1993, chapter 13).

    Drawing n test predictions with replacement changes the metrics only through how often each
    (true, predicted) pair is drawn, and these counts are multinomial. So the confusion matrices of
    all resamples are drawn at once, in memory that does not depend on n.

    Args:
        confusion: Confusion matrix of the test split, shape ``(classes, classes)``.
        resamples: Number of resamples.
        seed: Seed of the draws; the same for every probe, so that equal predictions have equal intervals.
    """
    total = int(confusion.sum())
    drawn = generator(Stream.BOOTSTRAP, seed).multinomial(total, confusion.ravel() / total, size=resamples)
    matrices = drawn.reshape(resamples, *confusion.shape)
    bounds = {name: np.percentile(metric(matrices), [2.5, 97.5]) for name, metric in METRICS.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
