"""Metrics equal scikit-learn's; bootstrap intervals behave as intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from terrasieve.probes.metrics import (
    accuracy,
    bootstrap_intervals,
    classification_metrics,
    confusion_matrix,
    macro_f1,
)

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_metrics_equal_scikit_learn(drawn: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(drawn, dtype=np.int64).T
    metrics = classification_metrics(confusion_matrix(truth, predicted))
    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))


def test_metrics_of_many_matrices_at_once_equal_those_of_each() -> None:
    matrices = np.random.default_rng(0).integers(0, 9, (7, 3, 3))
    assert np.array_equal(macro_f1(matrices), [macro_f1(one) for one in matrices])
    assert np.array_equal(accuracy(matrices), [accuracy(one) for one in matrices])


@pytest.mark.slow
def test_intervals_equal_those_of_resampling_the_predictions_themselves() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 400)
    predicted = np.where(rng.random(400) < 0.7, truth, rng.integers(0, 4, 400))
    quick = bootstrap_intervals(confusion_matrix(truth, predicted), resamples=4000)
    rows = rng.integers(0, 400, (600, 400))
    slow = np.percentile([f1_score(truth[r], predicted[r], average="macro") for r in rows], [2.5, 97.5])
    assert np.allclose(quick["macro_f1"], slow, atol=0.006)


def test_intervals_cover_the_true_accuracy_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(300):
        right = rng.binomial(200, 0.8)
        low, high = bootstrap_intervals(np.diag([right, 0]) + np.array([[0, 200 - right], [0, 0]]), seed=trial)[
            "accuracy"
        ]
        covered += low <= 0.8 <= high
    assert 0.91 <= covered / 300 <= 0.99


def test_intervals_are_seeded_and_hold_the_metric() -> None:
    confusion = np.array([[40, 5], [10, 45]])
    first = bootstrap_intervals(confusion)
    assert first == bootstrap_intervals(confusion)
    assert first != bootstrap_intervals(confusion, seed=1)
    for name, value in classification_metrics(confusion).items():
        assert first[name][0] < value < first[name][1]


def test_no_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        confusion_matrix(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
