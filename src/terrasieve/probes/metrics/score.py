"""From predictions to metrics with intervals, by the kind of target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.probes.metrics.average_precision import average_precision_metrics, multilabel_intervals
from terrasieve.probes.metrics.classification import Task, bootstrap_intervals, classification_metrics, confusion_matrix
from terrasieve.probes.metrics.regression import regression_intervals, regression_metrics


@dataclass(frozen=True)
class Score:
    """Metrics of one set of predictions.

    Attributes:
        metrics: By name, as :data:`terrasieve.probes.metrics.classification.METRIC_INFO` describes them.
        ci95: Bootstrap 95 % interval of each.
        confusion: Counts, a row per true class; empty where classes do not exclude each other.
    """

    metrics: Mapping[str, float]
    ci95: Mapping[str, tuple[float, float]]
    confusion: tuple[tuple[int, ...], ...] = ()


def score_predictions(task: Task, truth: NDArray[Any], predicted: NDArray[Any]) -> Score:
    """Metrics and intervals of predictions.

    Args:
        task: ``classification``, ``multilabel`` or ``regression``.
        truth: Class codes ``(n,)``, labels ``(n, classes)``, or numbers ``(n,)``.
        predicted: The same, but a score for each label ``(n, classes)``.
    """
    return _SCORERS[task](truth, predicted)


def _classification(truth: NDArray[Any], predicted: NDArray[Any]) -> Score:
    confusion = confusion_matrix(np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64))
    table = tuple(tuple(int(count) for count in row) for row in confusion)
    return Score(classification_metrics(confusion), bootstrap_intervals(confusion), table)


def _multilabel(truth: NDArray[Any], predicted: NDArray[Any]) -> Score:
    return Score(average_precision_metrics(truth, predicted), multilabel_intervals(truth, predicted))


def _regression(truth: NDArray[Any], predicted: NDArray[Any]) -> Score:
    return Score(regression_metrics(truth, predicted), regression_intervals(truth, predicted))


_SCORERS: Mapping[Task, Callable[[NDArray[Any], NDArray[Any]], Score]] = {
    "classification": _classification,
    "multilabel": _multilabel,
    "regression": _regression,
}
