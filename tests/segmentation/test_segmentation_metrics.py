"""Segmentation metrics equal torchmetrics' and scikit-learn's; intervals resample whole units."""

from __future__ import annotations

import terrasieve._torchvision  # noqa: F401  (must come first: torchmetrics imports torchvision)

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.probes.segmentation.pixel_metrics import (
    IGNORE,
    METRICS,
    class_iou,
    class_recall,
    describe_bootstrap,
    pixel_confusion,
    score_units,
)

CLASSES = 6


def drawn(seed: int, true: int, predicted: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps with ignored pixels, of the first ``true`` classes, predicted as the first ``predicted``."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, true, (3, 12, 10)).astype(np.int16)
    guess = np.where(rng.random(truth.shape) < 0.6, truth % predicted, rng.integers(0, predicted, truth.shape))
    truth[rng.random(truth.shape) < 0.2] = IGNORE
    return truth, guess


@pytest.mark.parametrize(("seed", "true", "predicted"), [(0, 6, 6), (1, 4, 4), (2, 5, 3), (3, 3, 5)])
def test_metrics_equal_torchmetrics(seed: int, true: int, predicted: int) -> None:
    truth, guess = drawn(seed, true, predicted)
    pair = torch.from_numpy(guess), torch.from_numpy(truth).long()
    confusion = pixel_confusion(truth, guess, CLASSES)
    expected = MulticlassConfusionMatrix(CLASSES, ignore_index=IGNORE)(*pair)
    assert np.array_equal(confusion, expected.numpy())
    jaccard = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=IGNORE)(*pair)
    overall = MulticlassAccuracy(CLASSES, average="micro", ignore_index=IGNORE)(*pair)
    assert METRICS["miou"](confusion) == pytest.approx(float(jaccard), abs=1e-6)
    assert METRICS["overall_accuracy"](confusion) == pytest.approx(float(overall), abs=1e-6)
    each = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=IGNORE)(*pair)
    assert np.nan_to_num(class_iou(confusion)) == pytest.approx(each.numpy(), abs=1e-6)
    recalls = MulticlassAccuracy(CLASSES, average="none", ignore_index=IGNORE)(*pair)
    assert np.nan_to_num(class_recall(confusion)) == pytest.approx(recalls.numpy(), abs=1e-6)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize(("true", "predicted"), [(6, 6), (5, 3), (3, 5)])
def test_average_accuracy_is_the_mean_recall_of_the_true_classes(true: int, predicted: int) -> None:
    truth, guess = drawn(4, true, predicted)
    counted = truth != IGNORE
    found = METRICS["average_accuracy"](pixel_confusion(truth, guess, CLASSES))
    assert found == pytest.approx(balanced_accuracy_score(truth[counted], guess[counted]))
    if true >= predicted:
        pair = torch.from_numpy(guess), torch.from_numpy(truth).long()
        oracle = MulticlassAccuracy(CLASSES, average="macro", ignore_index=IGNORE)(*pair)
        assert found == pytest.approx(float(oracle), abs=1e-6)


def test_classes_that_are_nowhere_are_left_out_not_counted_as_zero() -> None:
    confusion = np.zeros((3, 3), dtype=np.int64)
    confusion[0, 0], confusion[1, 1] = 5, 7
    assert METRICS["miou"](confusion) == 1
    assert np.isnan(class_iou(confusion)[2])
    assert np.isnan(class_recall(confusion)[2])


def test_every_metric_has_a_title() -> None:
    assert METRICS.keys() <= METRIC_INFO.keys()


def test_an_interval_over_two_units_is_that_of_their_four_resamples() -> None:
    good = np.array([[900, 0], [0, 100]])
    bad = np.array([[50, 50], [100, 100]])
    score = score_units(np.stack([good, bad]))
    for name, metric in METRICS.items():
        low, high = score.ci95[name]
        # Both extremes, each the chance of one in four, lie beyond the 2.5th and 97.5th percentile.
        assert (low, high) == pytest.approx((float(metric(bad)), float(metric(good))))
        assert score.metrics[name] == pytest.approx(metric(good + bad))
    assert score.confusion == ((950, 50), (100, 200))


def test_intervals_do_not_narrow_with_more_pixels_of_the_same_images() -> None:
    confusions = np.random.default_rng(0).integers(1, 50, (12, 3, 3))
    few, many = score_units(confusions).ci95, score_units(1000 * confusions).ci95
    assert all(few[name] == pytest.approx(many[name]) for name in METRICS)


def test_units_without_a_scored_pixel_do_not_count() -> None:
    confusions = np.random.default_rng(1).integers(1, 50, (5, 3, 3))
    with_empty = np.concatenate([confusions, np.zeros((4, 3, 3), dtype=np.int64)])
    assert score_units(with_empty) == score_units(confusions)
    with pytest.raises(ValueError, match="no pixel"):
        score_units(np.zeros((2, 3, 3), dtype=np.int64))


def test_the_protocol_warns_of_few_units() -> None:
    assert "only 4" in describe_bootstrap(4, "sites")
    assert "only" not in describe_bootstrap(10, "sites")
