"""Mean average precision equals scikit-learn's, also resampled; the probes rank the right labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from terrasieve.errors import ConfigError
from terrasieve.probes.knn import KnnMultilabel
from terrasieve.probes.linear.multilabel import MultilabelLogistic
from terrasieve.probes.metrics import average_precision_metrics, multilabel_intervals
from terrasieve.probes.probe import Labelled


@given(st.integers(2, 40), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_metrics_equal_scikit_learn_with_ties(n: int, classes: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((n, classes)) < 0.4
    truth[0] = True
    scores = rng.integers(levels, size=(n, classes)) / levels
    found = average_precision_metrics(truth, scores)
    assert found["micro_map"] == pytest.approx(average_precision_score(truth, scores, average="micro"))
    assert found["macro_map"] == pytest.approx(average_precision_score(truth, scores, average="macro"))


def test_a_resample_counts_samples_as_often_as_they_are_drawn() -> None:
    rng = np.random.default_rng(3)
    truth, scores = rng.random((60, 3)) < 0.3, rng.random((60, 3))
    generator = np.random.default_rng(7)
    draws = [generator.integers(60, size=60) for _ in range(20)]
    expected = [average_precision_score(truth[one], scores[one], average="micro") for one in draws]
    low, high = multilabel_intervals(truth, scores, resamples=20, seed=7)["micro_map"]
    assert (low, high) == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])))


def land(seed: int, n: int) -> Labelled:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 6))
    return Labelled(vectors, np.stack([vectors[:, 0] > 0.3, vectors[:, 1] + vectors[:, 2] > 0], axis=1))


@pytest.mark.parametrize("probe", [MultilabelLogistic(), KnnMultilabel()])
def test_probes_rank_labels(probe: MultilabelLogistic | KnnMultilabel) -> None:
    train, val, test = land(0, 400), land(1, 100), land(2, 200)
    result = probe.fit(train.features, train.labels, val).score(test.features, test.labels)
    assert result.predicted.shape == (200, 2)
    assert result.metrics["macro_map"] > 0.9 > test.labels.mean(axis=0).max() + 0.2
    low, high = result.ci95["macro_map"]
    assert low <= result.metrics["macro_map"] <= high
    assert result.score.confusion == ()


def test_a_label_that_train_lacks_has_an_answer_and_a_missing_validation_split_is_named() -> None:
    train, val = land(0, 50), land(1, 50)
    train.labels[:, 1] = False
    fitted = MultilabelLogistic([1.0]).fit(train.features, train.labels, val)
    assert np.isfinite(fitted.predict(val.features)).all()
    with pytest.raises(ConfigError, match="validation split"):
        MultilabelLogistic().fit(train.features, train.labels)
