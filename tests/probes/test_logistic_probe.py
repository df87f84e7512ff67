"""The logistic probe reaches scikit-learn's minimum and learns from the train split alone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from terrasieve.errors import ConfigError
from terrasieve.probes import standardising
from terrasieve.probes.linear import logistic, preconditioner, solver
from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.linear.preconditioner import covariance_blocks, principal_axes
from terrasieve.probes.linear.solver import Fit, minimise, prepare_features
from terrasieve.probes.probe import Labelled


def blobs(seed: int, n: int) -> Labelled:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    centres = np.random.default_rng(99).normal(size=(4, 10))
    correlated = np.random.default_rng(98).normal(size=(10, 10)) * np.logspace(-2, 2, 10)
    return Labelled((centres[labels] + 1.3 * rng.normal(size=(n, 10))) @ correlated + 5, labels.astype(np.int64))


def loss_of(weights: np.ndarray, intercept: np.ndarray, x: np.ndarray, y: np.ndarray, c: float) -> float:
    """C times the summed cross-entropy plus half the squared norm of the weights, in float64."""
    scores = x @ weights.astype(float) + intercept.astype(float)
    losses = logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]
    return float(c * losses.sum() + 0.5 * np.square(weights.astype(float)).sum())


def pooled(seed: int, n: int, classes: int = 3, length: int = 60) -> Labelled:
    """Like pooled activations: not negative, strongly correlated, one constant, one doubled."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(97)
    centres, mixing = world.normal(size=(classes, 20)), world.normal(size=(20, length)) / 4
    labels = rng.integers(0, classes, n)
    latent = (0.5 * centres[labels] + rng.normal(size=(n, 20))) * np.arange(1, 21) ** -1.0
    features = np.maximum(latent @ mixing + 0.02 * rng.normal(size=(n, length)), 0)
    features[:, 0], features[:, 1] = 3.0, features[:, 2]
    return Labelled(features, labels.astype(np.int64))


def equals_scikit_learn(train: Labelled, test: Labelled, c: float) -> None:
    probe = LogisticProbe(grid=[c], max_iter=1000).fit(*train, validation=test)
    scaler = StandardScaler().fit(train.features)
    x, classes = scaler.transform(train.features), np.unique(train.labels)
    oracle = LogisticRegression(C=c, tol=1e-7, max_iter=50_000).fit(x, train.labels)
    coefficients, intercept, strength = oracle.coef_.T, oracle.intercept_, c
    if len(classes) == 2:  # scikit-learn gives the difference of the two, and penalises its square
        coefficients, strength = np.concatenate([-coefficients, coefficients], axis=1) / 2, c / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    codes = np.searchsorted(classes, train.labels)
    own = loss_of(probe.weights_.numpy(), probe.intercept_.numpy(), x, codes, strength)
    assert own == pytest.approx(loss_of(coefficients.copy(), intercept, x, codes, strength), rel=1e-4)
    assert probe.converged_ == {c: True}
    expected = oracle.score(scaler.transform(test.features), test.labels)
    assert probe.score(*test).metrics["accuracy"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("c", [1e-4, 0.01, 1.0, 100.0])
def test_minimum_and_accuracy_equal_scikit_learn(c: float) -> None:
    equals_scikit_learn(blobs(0, 400), blobs(1, 4000), c)


@pytest.mark.parametrize("c", [1e-3, 0.1, 10.0, 1e4])
def test_minimum_of_correlated_features_equals_scikit_learn(c: float) -> None:
    equals_scikit_learn(pooled(0, 1000), pooled(1, 4000), c)


@pytest.mark.parametrize("c", [1e-2, 1.0, 1e4])
def test_minimum_of_fewer_samples_than_features_equals_scikit_learn(c: float) -> None:
    equals_scikit_learn(pooled(0, 40), pooled(1, 100), c)


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_minimum_of_two_classes_equals_scikit_learn(c: float) -> None:
    equals_scikit_learn(pooled(0, 500, classes=2), pooled(1, 500, classes=2), c)


def test_a_class_that_no_train_sample_has_is_never_predicted() -> None:
    train, test = (Labelled(part.features, 2 * part.labels + 1) for part in (pooled(0, 300), pooled(1, 300)))
    equals_scikit_learn(train, test, 0.1)
    probe = LogisticProbe().fit(*train, validation=Labelled(test.features, test.labels + 1))
    assert set(probe.predict(test.features)) == {1, 3, 5}
    assert probe.validation_accuracy_ == 0


def test_the_minimum_does_not_depend_on_how_much_of_the_covariance_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    train, held = pooled(0, 300), pooled(1, 50)
    whole = LogisticProbe(grid=[0.1]).fit(*train, validation=held)
    monkeypatch.setattr(preconditioner, "BLOCK", 7)
    blocks = LogisticProbe(grid=[0.1]).fit(*train, validation=held)
    assert not torch.equal(blocks.weights_, whole.weights_)
    assert torch.allclose(blocks.weights_, whole.weights_, atol=2e-3)


def test_covariance_blocks_are_the_diagonal_of_the_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditioner, "BLOCK", 8)
    monkeypatch.setattr(preconditioner, "_PANEL", 3)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 19)))
    expected = x.T @ x / 50
    for first, block in zip((0, 8, 16), covariance_blocks(x), strict=True):
        assert torch.allclose(block, expected[first : first + 8, first : first + 8])


def test_axes_are_orthonormal_and_hold_most_of_the_variance() -> None:
    x = StandardScaler().fit_transform(pooled(0, 500).features)
    (block,) = covariance_blocks(torch.from_numpy(x))
    axes = principal_axes([block], 10)
    best = torch.linalg.eigvalsh(block)[-10:].sum()
    assert torch.allclose(axes.T @ axes, torch.eye(10, dtype=torch.float64), atol=1e-12)
    assert (axes.T @ block @ axes).trace() > 0.95 * best


@pytest.mark.parametrize("block", [7, 2048])
@pytest.mark.parametrize("rows", [100, 2**14])
def test_minimum_by_way_of_axes_equals_scikit_learn(block: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "AXES", 5)
    monkeypatch.setattr(preconditioner, "BLOCK", block)
    monkeypatch.setattr(preconditioner, "COVARIANCE_ROWS", rows)
    equals_scikit_learn(pooled(0, 1000), pooled(1, 4000), 0.1)


def test_axes_spare_most_iterations_with_all_features(monkeypatch: pytest.MonkeyPatch) -> None:
    train = pooled(0, 1000)
    features = torch.from_numpy(StandardScaler().fit_transform(train.features)).float()
    without = minimise(prepare_features(features, torch.from_numpy(train.labels)), 0.01, 500)
    monkeypatch.setattr(solver, "AXES", 25)
    along = minimise(prepare_features(features, torch.from_numpy(train.labels)), 0.01, 500)
    assert along.iterations <= without.iterations / 2
    assert torch.allclose(along.weights, without.weights, atol=1e-3)


def iterations(features: torch.Tensor, labels: torch.Tensor) -> int:
    fit = minimise(prepare_features(features, labels), 10.0, 500)
    assert fit.converged
    return fit.iterations


def test_correlation_hardly_raises_the_number_of_iterations() -> None:
    rng = np.random.default_rng(0)
    plain = torch.from_numpy(rng.normal(size=(2000, 30))).float()
    labels = (plain[:, :3] + torch.from_numpy(rng.normal(size=(2000, 3)))).argmax(dim=1)
    turned, _ = torch.linalg.qr(torch.from_numpy(rng.normal(size=(30, 30))).float())
    assert iterations(plain * torch.logspace(-1, 2, 30) @ turned, labels) <= iterations(plain, labels) + 10


@pytest.mark.parametrize("c", [1.0, 1e4])
def test_separable_classes_have_a_finite_minimum(c: float) -> None:
    apart = Labelled(np.array([[-5.0, 1.0], [5.0, 1.0], [0.0, 9.0]] * 20), np.array([0, 1, 2] * 20))
    equals_scikit_learn(apart, apart, c)


def test_too_few_iterations_are_told_of() -> None:
    train, held = blobs(0, 300), blobs(1, 100)
    with pytest.warns(ConvergenceWarning, match=r"in 6 iterations with C = 100;"):
        probe = LogisticProbe([1e-9, 100.0], max_iter=6).fit(*train, validation=held)
    assert probe.converged_ == {1e-9: True, 100.0: False}


def test_a_strength_that_is_not_chosen_may_need_more_iterations() -> None:
    apart = Labelled(np.array([[-5.0, 1.0], [5.0, 1.0], [0.0, 9.0]] * 20), np.array([0, 1, 2] * 20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe = LogisticProbe([1.0, 1e9], max_iter=15).fit(*apart, validation=apart)
    assert probe.c_ == 1.0
    assert probe.converged_ == {1.0: True, 1e9: False}


def test_the_same_fit_twice_gives_the_same_bits() -> None:
    train, held = pooled(0, 300), pooled(1, 50)
    first, second = (LogisticProbe(grid=[1.0]).fit(*train, validation=held) for _ in range(2))
    assert torch.equal(first.weights_, second.weights_)
    assert torch.equal(first.intercept_, second.intercept_)


def test_vectors_are_standardised_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    train, held = pooled(0, 300), pooled(1, 50)
    whole = LogisticProbe(grid=[1.0]).fit(*train, validation=held)
    monkeypatch.setattr(standardising, "ROWS_AT_ONCE", 7)
    parts = LogisticProbe(grid=[1.0]).fit(*train, validation=held)
    assert np.allclose(parts.scaler_.scale_, train.features.std(axis=0) + (train.features.std(axis=0) == 0), rtol=1e-12)
    assert torch.allclose(parts.weights_, whole.weights_, atol=1e-3)


def test_a_warm_started_path_ends_where_a_cold_start_does() -> None:
    train, held = blobs(0, 300), blobs(1, 100)
    path = LogisticProbe(grid=[1e-3, 0.03, 1.0]).fit(*train, validation=held)
    cold = LogisticProbe(grid=[path.c_]).fit(*train, validation=held)
    assert torch.allclose(path.weights_, cold.weights_, atol=2e-3)


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

    def spy(*args: Any, **named: Any) -> Fit:
        tried.append(args[1])
        return minimise(*args, **named)

    monkeypatch.setattr(logistic, "minimise", spy)
    apart = Labelled(np.array([[-5.0, 1.0], [5.0, 1.0], [0.0, 9.0]] * 20), np.array([0, 1, 2] * 20))
    LogisticProbe([0.01, 0.1, 1.0, 10.0]).fit(*apart, validation=apart)
    assert tried == [0.01, 0.1, 1.0]


def test_validation_and_test_data_leave_the_standardisation_alone() -> None:
    train = blobs(0, 200)
    probe = LogisticProbe(grid=[1.0]).fit(*train, validation=blobs(1, 50))
    far = Labelled(blobs(1, 50).features * 1000, blobs(1, 50).labels)
    other = LogisticProbe(grid=[1.0]).fit(*train, validation=far)
    other.score(*far)
    assert np.allclose(probe.scaler_.mean_, train.features.mean(axis=0), rtol=1e-12)
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


def test_a_constant_feature_has_no_weight_and_doubled_ones_share_theirs() -> None:
    train = pooled(0, 300)
    probe = LogisticProbe(grid=[1.0]).fit(*train, validation=train)
    assert torch.allclose(probe.weights_[0], torch.zeros(3), atol=1e-6)
    assert torch.allclose(probe.weights_[1], probe.weights_[2], atol=1e-3)
    flat = Labelled(np.ones((20, 3)), np.arange(20) % 2)
    assert LogisticProbe(grid=[1e4]).fit(*flat, validation=flat).converged_ == {1e4: True}
