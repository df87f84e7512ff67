"""Ridge equals the closed form, the metrics equal scikit-learn's, and kNN averages its neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.preprocessing import StandardScaler

from terrasieve.errors import ConfigError
from terrasieve.probes import standardising
from terrasieve.probes.knn import KnnRegression
from terrasieve.probes.linear.ridge import RidgeProbe
from terrasieve.probes.metrics import regression_intervals, regression_metrics
from terrasieve.probes.probe import Labelled


def sea(seed: int, n: int, features: int) -> Labelled:
    """Correlated vectors of unequal scale, and a wave height that is linear in some of them."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(features, features)) * np.logspace(0, 2, features)
    vectors = rng.normal(size=(n, features)) @ mixing + 3
    return Labelled(vectors, 2.5 + vectors[:, 0] / vectors[:, 0].std() + 0.3 * rng.normal(size=n))


@pytest.mark.parametrize(("n", "features"), [(200, 12), (40, 90)])
@pytest.mark.parametrize("strength", [0.1, 50.0])
def test_ridge_is_the_closed_form(n: int, features: int, strength: float) -> None:
    train, test = sea(0, n, features), sea(1, 30, features)
    probe = RidgeProbe([strength]).fit(train.features, train.labels, test)
    mean, std = train.features.mean(axis=0), train.features.std(axis=0)
    standard = (train.features - mean) / std
    normal = standard.T @ standard + strength * np.eye(features)
    weights = np.linalg.solve(normal, standard.T @ (train.labels - train.labels.mean()))
    assert np.allclose(probe.predict(test.features), (test.features - mean) / std @ weights + train.labels.mean())
    oracle = Ridge(alpha=strength).fit(standard, train.labels)
    assert np.allclose(probe.predict(test.features), oracle.predict((test.features - mean) / std))


@pytest.mark.parametrize(("n", "features"), [(200, 12), (40, 90)])
def test_a_gram_matrix_of_chunks_of_float32_vectors_gives_scikit_learns_weights(
    n: int, features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standardising, "ROWS_AT_ONCE", 7)
    train, test = (
        Labelled(part.features.astype(np.float32), part.labels) for part in (sea(0, n, features), sea(1, 30, features))
    )
    probe = RidgeProbe([0.01]).fit(train.features, train.labels, test)
    scaler = StandardScaler().fit(train.features.astype(np.float64))
    oracle = Ridge(alpha=0.01).fit(scaler.transform(train.features.astype(np.float64)), train.labels)
    assert np.allclose(probe.weights_, oracle.coef_, rtol=1e-6, atol=1e-9)
    expected = oracle.predict(scaler.transform(test.features.astype(np.float64)))
    assert np.allclose(probe.predict(test.features), expected, rtol=1e-8)


def test_the_strength_is_chosen_on_validation_and_never_on_test() -> None:
    train, val, test = sea(0, 60, 50), sea(1, 200, 50), sea(2, 200, 50)
    probe = RidgeProbe().fit(train.features, train.labels, val)
    reached = {
        one: regression_metrics(
            val.labels, RidgeProbe([one]).fit(train.features, train.labels, val).predict(val.features)
        )["rmse"]
        for one in probe.strengths
    }
    assert probe.chosen["strength"] == min(reached, key=lambda one: reached[one])
    assert probe.chosen["validation_rmse"] == pytest.approx(min(reached.values()))
    before = probe.weights_.copy()
    score = probe.score(test.features, test.labels)
    assert np.array_equal(before, probe.weights_)
    assert score.metrics["rmse"] < test.labels.std()
    assert str(score.protocol).startswith("ridge v1: closed form")


@given(st.integers(2, 60), st.integers(0, 10_000))
@settings(deadline=None, max_examples=40)
def test_metrics_equal_scikit_learn(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.gamma(2, size=n), rng.gamma(2, size=n)
    found = regression_metrics(truth, predicted)
    error = predicted - truth
    expected = {
        "rmse": root_mean_squared_error(truth, predicted),
        "mae": mean_absolute_error(truth, predicted),
        "bias": error.mean(),
        "scatter_index": error.std() / truth.mean(),
        "r2": r2_score(truth, predicted),
    }
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_intervals_hold_the_value_and_narrow_with_more_samples() -> None:
    rng = np.random.default_rng(0)
    truth = rng.gamma(4, size=2000)
    predicted = truth + 0.2 + 0.5 * rng.normal(size=2000)
    few, many = (regression_intervals(truth[:n], predicted[:n]) for n in (100, 2000))
    for name, value in regression_metrics(truth, predicted).items():
        assert many[name][0] <= value <= many[name][1]
        assert np.diff(many[name]) < np.diff(few[name])
    # The standard error of a mean of n errors of standard deviation s is s / sqrt(n).
    assert np.diff(many["bias"])[0] == pytest.approx(2 * 1.96 * 0.5 / 2000**0.5, rel=0.15)
    assert regression_intervals(truth, predicted) == many


def test_a_constant_truth_has_no_r2_and_a_mean_of_zero_no_scatter_index() -> None:
    assert np.isnan(regression_metrics(np.full(5, 2.0), np.arange(5.0))["r2"])
    assert np.isnan(regression_metrics(np.array([-1.0, 1.0]), np.zeros(2))["scatter_index"])
    assert np.isnan(regression_intervals(np.full(5, 2.0), np.arange(5.0))["r2"]).all()


def test_knn_averages_the_targets_of_the_neighbours() -> None:
    train = np.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
    probe = KnnRegression(k=2, temperature=0.5).fit(train, np.array([1.0, 4.0, 100.0]))
    weights = np.exp(np.array([1.0, 0.8]) / 0.5)
    assert probe.predict(np.array([[5.0, 0.0]])) == pytest.approx(weights @ [1.0, 4.0] / weights.sum(), rel=1e-5)


def test_vectors_that_are_not_finite_are_refused() -> None:
    features = np.ones((4, 2))
    features[1, 0] = np.nan
    with pytest.raises(ConfigError, match="1 of 4 vectors hold NaN"):
        RidgeProbe().fit(features, np.arange(4.0))
