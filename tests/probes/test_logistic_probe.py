"""The logistic probe reaches scikit-learn's minimum and learns from the train split alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from terrasieve.errors import ConfigError
from terrasieve.probes import logistic
from terrasieve.probes.logistic import LogisticProbe, minimise, objective
from terrasieve.probes.protocol import Labelled


def blobs(seed: int, n: int) -> Labelled:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    centres = np.random.default_rng(99).normal(size=(4, 10))
    correlated = np.random.default_rng(98).normal(size=(10, 10)) * np.logspace(-2, 2, 10)
    return Labelled((centres[labels] + 1.3 * rng.normal(size=(n, 10))) @ correlated + 5, labels.astype(np.int64))


def loss_of(weights: np.ndarray, intercept: np.ndarray, x: np.ndarray, y: np.ndarray, c: float) -> float:
    return float(objective(*(torch.from_numpy(a) for a in (weights.astype(float), intercept.astype(float), x, y)), c))


@pytest.mark.parametrize("c", [1e-4, 0.01, 1.0, 100.0])
def test_minimum_and_accuracy_equal_scikit_learn(c: float) -> None:
    train, test = blobs(0, 400), blobs(1, 500)
    probe = LogisticProbe(grid=[c]).fit(*train, validation=blobs(2, 50))
    scaler = StandardScaler().fit(train.features)
    x = scaler.transform(train.features)
    oracle = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, train.labels)
    own = loss_of(probe.weights_.numpy(), probe.intercept_.numpy(), x, train.labels, c)
    assert own == pytest.approx(loss_of(oracle.coef_.T.copy(), oracle.intercept_, x, train.labels, c), rel=1e-4)
    expected = oracle.score(scaler.transform(test.features), test.labels)
    assert probe.score(*test).metrics["accuracy"] == pytest.approx(expected, abs=1e-3)


def test_a_warm_started_path_ends_where_a_cold_start_does() -> None:
    train, held = blobs(0, 300), blobs(1, 100)
    path = LogisticProbe(grid=[1e-3, 0.03, 1.0]).fit(*train, validation=held)
    cold = LogisticProbe(grid=[path.c_]).fit(*train, validation=held)
    assert torch.allclose(path.weights_, cold.weights_, atol=1e-3)


def test_c_is_the_smallest_of_the_best_on_validation() -> None:
    train, held = blobs(0, 300), blobs(1, 200)
    grid = (100.0, 1e-5, 1e-3, 0.1)
    probe = LogisticProbe(grid).fit(*train, validation=held)
    reached = {c: LogisticProbe([c]).fit(*train, validation=held).validation_accuracy_ for c in grid}
    best = max(reached.values())
    assert probe.c_ == min(c for c, value in reached.items() if value == best)
    assert probe.chosen == {"C": probe.c_, "validation_accuracy": best}
    apart = Labelled(np.array([[-5.0], [5.0]] * 20), np.array([0, 1] * 20))
    assert LogisticProbe([1.0, 0.01, 10.0]).fit(*apart, validation=apart).c_ == 0.01


def test_larger_c_is_not_tried_after_two_without_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []

    def spy(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        tried.append(args[3])
        return minimise(*args)

    monkeypatch.setattr(logistic, "minimise", spy)
    apart = Labelled(np.array([[-5.0], [5.0]] * 20), np.array([0, 1] * 20))
    LogisticProbe([0.01, 0.1, 1.0, 10.0]).fit(*apart, validation=apart)
    assert tried == [0.01, 0.1, 1.0]


def test_validation_and_test_data_leave_the_standardisation_alone() -> None:
    train = blobs(0, 200)
    probe = LogisticProbe(grid=[1.0]).fit(*train, validation=blobs(1, 50))
    far = Labelled(blobs(1, 50).features * 1000, blobs(1, 50).labels)
    other = LogisticProbe(grid=[1.0]).fit(*train, validation=far)
    other.score(*far)
    assert np.array_equal(probe.scaler_.mean_, train.features.mean(axis=0))
    assert np.array_equal(probe.scaler_.mean_, other.scaler_.mean_)
    assert np.array_equal(probe.scaler_.scale_, other.scaler_.scale_)
    assert torch.equal(probe.weights_, other.weights_)


def test_without_validation_a_tenth_of_train_is_held_out() -> None:
    train = blobs(0, 200)
    probe = LogisticProbe(grid=[0.1, 1.0]).fit(*train)
    assert not np.array_equal(probe.scaler_.mean_, train.features.mean(axis=0))
    assert np.array_equal(
        probe.predict(train.features), LogisticProbe(grid=[0.1, 1.0]).fit(*train).predict(train.features)
    )


def test_without_validation_and_without_doubles_nothing_can_be_chosen() -> None:
    with pytest.raises(ConfigError, match="pass a validation split"):
        LogisticProbe().fit(np.eye(3), np.arange(3))


def test_a_constant_feature_is_harmless() -> None:
    train = blobs(0, 100)
    features = np.concatenate([train.features, np.full((100, 1), 3.0)], axis=1)
    probe = LogisticProbe(grid=[1.0]).fit(features, train.labels, Labelled(features, train.labels))
    assert torch.isfinite(probe.weights_).all()
