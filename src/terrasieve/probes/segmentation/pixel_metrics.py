"""Segmentation metrics, all from confusion matrices, with intervals that resample whole images or sites.

Neighbouring pixels are nearly copies of each other, so an interval over pixels would be far too narrow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrasieve.probes.metrics import RESAMPLES, SEED, Score, accuracy, as_table, interval
from terrasieve.streams import Stream, generator

IGNORE = -1
"""Code of a pixel that is neither learnt from nor scored."""

FEW = 10
"""With fewer units than this, an interval says little, and the protocol says so."""


def pixel_confusion(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Counts of (true, predicted) pairs of the pixels that are not ignored, shape ``(classes, classes)``.

    Args:
        truth: Class codes, any shape; :data:`IGNORE` where a pixel does not count.
        predicted: Class codes from 0, same shape.
        classes: Number of classes, whose codes are 0 to one less.
    """
    counted = truth != IGNORE
    pairs = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class, TP / (TP + FP + FN); NaN where neither true nor predicted.

    Args:
        confusion: Confusion matrices, shape ``(..., classes, classes)``.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(hits, confusion.sum(axis=-1) + confusion.sum(axis=-2) - hits)


def class_recall(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the true pixels of each class that are found, TP / (TP + FN); NaN where there are none.

    Args:
        confusion: Confusion matrices, shape ``(..., classes, classes)``.
    """
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def mean_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of :func:`class_iou` over the classes that are true or predicted anywhere (mIoU)."""
    return np.asarray(np.nanmean(class_iou(confusion), axis=-1), dtype=np.float64)


def average_accuracy(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of :func:`class_recall` over the classes that are true anywhere (AA)."""
    return np.asarray(np.nanmean(class_recall(confusion), axis=-1), dtype=np.float64)


METRICS = {"miou": mean_iou, "average_accuracy": average_accuracy, "overall_accuracy": accuracy}
"""The metrics of every segmentation probe, by name."""


def score_units(confusions: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = SEED) -> Score:
    """Metrics of all pixels, with bootstrap 95 % percentile intervals over units (Efron & Tibshirani 1993, chapter 13).

    A unit is what can be taken as independent: an image, or all images of a site. Each resample draws as many units
    as there are, with replacement, and adds up their matrices; a class that it does not hold is left out of its means.

    Args:
        confusions: One matrix a unit, shape ``(units, classes, classes)``; a unit without a scored pixel is left out.
        resamples: Number of resamples, 1 or more.
        seed: Seed of the draws; the same for every probe, so that equal predictions have equal intervals.

    Raises:
        ValueError: No unit has a scored pixel.
    """
    scored = confusions[confusions.sum(axis=(1, 2)) > 0]
    if not len(scored):
        raise ValueError("no pixel was scored")
    total = scored.sum(axis=0)
    units = len(scored)
    drawn = generator(Stream.BOOTSTRAP, seed).multinomial(units, np.full(units, 1 / units), size=resamples)
    matrices = np.tensordot(drawn, scored, axes=1)
    metrics = {name: float(metric(total)) for name, metric in METRICS.items()}
    intervals = {name: interval(metric(matrices)) for name, metric in METRICS.items()}
    return Score(metrics, intervals, as_table(total))


def describe_bootstrap(units: int, what: str) -> str:
    """How :func:`score_units` makes intervals, for the protocol.

    Args:
        units: Number of units that are resampled.
        what: What a unit is, in the plural.
    """
    few = f", only {units}: an interval over so few says little" if units < FEW else ""
    return f"95 % percentile intervals of {RESAMPLES:,} bootstrap resamples of whole {what} ({units}{few}), seed {SEED}"


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    ratio = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return np.asarray(ratio, dtype=np.float64)
