"""Mean average precision equals scikit-learn's, also resampled; the probes rank the right labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from terrasieve.errors import ConfigError
from terrasieve.probes.knn import KnnMultilabel
from terrasieve.probes.linear import solver
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


def pooled(seed: int, n: int, length: int = 40) -> Labelled:
    """Correlated vectors that are not negative, one constant; labels from rare to frequent, of which two agree."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(97)
    mixing, telling = world.normal(size=(12, length)), world.normal(size=(12, 5))
    latent = rng.normal(size=(n, 12))
    features = np.maximum(latent @ mixing + 0.1 * rng.normal(size=(n, length)), 0)
    features[:, 0] = 2.0
    labels = latent @ telling + rng.logistic(size=(n, 5)) > [6.0, 2.0, 0.0, -3.0, 1.0]
    labels[:, 4] = labels[:, 2]
    return Labelled(features.astype(np.float32), labels)


def objectives(weights: np.ndarray, intercept: np.ndarray, x: np.ndarray, labels: np.ndarray, c: float) -> np.ndarray:
    """C times the summed cross-entropy plus half the squared norm, of each label, in float64."""
    scores = x @ weights.astype(np.float64) + intercept.astype(np.float64)
    losses = np.logaddexp(0, scores) - labels * scores
    return np.asarray(c * losses.sum(axis=0) + 0.5 * np.square(weights.astype(np.float64)).sum(axis=0))


@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("n", [800, 30])
def test_each_label_has_the_minimum_of_scikit_learns_one_against_the_rest(n: int, c: float) -> None:
    train, test = pooled(0, n), pooled(1, 500)
    probe = MultilabelLogistic([c], max_iter=1000).fit(*train, validation=test)
    scaler = StandardScaler().fit(train.features.astype(np.float64))
    x = scaler.transform(train.features.astype(np.float64))
    oracle = OneVsRestClassifier(LogisticRegression(C=c, tol=1e-7, max_iter=50_000)).fit(x, train.labels.astype(int))
    coefficients = np.stack([one.coef_[0] for one in oracle.estimators_], axis=1)
    best = objectives(coefficients, np.array([one.intercept_[0] for one in oracle.estimators_]), x, train.labels, c)
    own = objectives(probe.weights_.numpy(), probe.intercept_.numpy(), x, train.labels, c)
    assert own == pytest.approx(best, rel=1e-4)
    assert probe.converged_[c].all()
    expected = oracle.predict_proba(scaler.transform(test.features.astype(np.float64)))
    assert np.abs(probe.predict(test.features) - expected).max() < 0.01
    # Labels are fitted side by side and none has a say in another's minimum.
    assert np.allclose(probe.weights_[:, 2], probe.weights_[:, 4], atol=1e-6)


def test_a_label_has_the_same_minimum_alone_and_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "AXES", 5)
    train, held = pooled(0, 800), pooled(1, 100)
    together = MultilabelLogistic([0.1]).fit(*train, validation=held)
    for label in range(4):
        one, other = (Labelled(part.features, part.labels[:, [label]]) for part in (train, held))
        alone = MultilabelLogistic([0.1]).fit(*one, validation=other)
        assert np.allclose(alone.weights_[:, 0], together.weights_[:, label], atol=2e-3)


def test_labels_that_need_more_iterations_are_counted() -> None:
    train, held = pooled(0, 800), pooled(1, 100)
    easy = np.zeros(800, dtype=bool)
    easy[::2] = True  # has nothing to do with the vectors
    train = Labelled(train.features, np.stack([train.labels[:, 2], easy], axis=1))
    held = Labelled(held.features, held.labels[:, [2, 1]])
    with pytest.warns(ConvergenceWarning, match=r"for 1 of 2 labels in 4 iterations with C = 10;"):
        probe = MultilabelLogistic([10.0], max_iter=4).fit(*train, validation=held)
    assert probe.converged_[10.0].tolist() == [False, True]


def test_labels_of_which_none_varies_have_constant_answers() -> None:
    train, held = pooled(0, 50), pooled(1, 50)
    constant = np.tile([True, False], (50, 1))
    probe = MultilabelLogistic([0.1, 1.0]).fit(train.features, constant, Labelled(held.features, held.labels[:, :2]))
    assert np.array_equal(probe.predict(held.features), constant.astype(float))
