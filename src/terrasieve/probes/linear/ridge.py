"""Ridge regression of one number, in closed form (Hoerl & Kennard 1970)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from terrasieve.probes.metrics import Task
from terrasieve.probes.probe import Features, Labelled, Probe, check_vectors, hold_back
from terrasieve.probes.standardising import chunks, fit_scaler, standardise_chunks

STRENGTHS = tuple(float(value) for value in np.logspace(-2, 6, 17))
"""Penalties to choose from. On standardised vectors the squared norm of a feature is the number of samples."""


class RidgeProbe(Probe):
    """Least squares with a penalty ``strength * |weights|^2`` on weights, not on the intercept.

    Vectors are standardised by the train split. One decomposition, of a Gram matrix that is summed in float64 over some
    vectors after the other, serves every strength; the one with the lowest RMSE on the validation split is kept, the
    strongest of equals. The weights are those of the train split alone. Where no
    validation split is given, a seeded tenth of the train split takes its place.

    Args:
        strengths: Penalties to choose from, each above 0.
        seed: Draws the substitute of a missing validation split.
    """

    name: ClassVar[str] = "ridge"
    task: ClassVar[Task] = "regression"

    def __init__(self, strengths: Sequence[float] = STRENGTHS, seed: int = 0) -> None:
        self.strengths = tuple(sorted(strengths, reverse=True))
        self.seed = seed

    @property
    def settings(self) -> str:
        """Every setting in one line."""
        return (
            f"closed form in float64, vectors standardised on train, strength of {len(self.strengths)} in "
            f"[{self.strengths[-1]:g}, {self.strengths[0]:g}] by validation RMSE, fitted on train"
        )

    @property
    def chosen(self) -> Mapping[str, float]:
        """The strength that was chosen, and the RMSE on the validation split that it reached."""
        return {"strength": self.strength_, "validation_rmse": self.validation_rmse_}

    def fit(self, features: Features, labels: NDArray[Any], validation: Labelled | None = None) -> Self:
        """Solve for every strength and keep the best on the validation split; see :meth:`Probe.fit`."""
        check_vectors(features, labels)
        if validation is None:
            one_stratum = np.zeros(len(labels), dtype=np.int64)
            (features, labels), validation = hold_back(Labelled(features, labels), one_stratum, self.seed)
        self.scaler_ = fit_scaler(features)
        # Standardised vectors have mean 0, so that the intercept is the mean whatever the weights.
        self.intercept_ = float(np.mean(labels))
        solutions = _solutions(self.scaler_, features, labels - self.intercept_, np.array(self.strengths))
        held_out = _products(self.scaler_, validation.features, solutions) + self.intercept_
        self.validation_rmse_ = np.inf
        for strength, weights, predicted in zip(self.strengths, solutions.T, held_out.T, strict=True):
            reached = float(np.sqrt(np.mean((predicted - validation.labels) ** 2)))
            if reached < self.validation_rmse_:
                self.validation_rmse_, self.strength_, self.weights_ = reached, strength, weights
        return self

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Numbers, shape ``(n,)``, in the unit of the target."""
        return _products(self.scaler_, features, self.weights_) + self.intercept_


def _products(scaler: StandardScaler, features: Features, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardised vectors times weights ``(features, ...)``."""
    return np.concatenate([part @ weights for _, part in standardise_chunks(scaler, features)])


def _solutions(
    scaler: StandardScaler, features: Features, target: NDArray[np.float64], strengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights ``(features, strengths)``, from one eigendecomposition of the smaller Gram matrix."""
    n, length = features.shape
    # Of rank min(n, length) both: the smaller one has all that is to know.
    if n >= length:
        gram, moments = np.zeros((length, length)), np.zeros(length)
        for rows, part in standardise_chunks(scaler, features):
            gram += part.T @ part
            moments += part.T @ target[rows]
        return _shrunk(gram, moments, strengths)
    gram = np.zeros((n, n))
    for part in _columns(scaler, features):
        gram += part @ part.T
    combined = _shrunk(gram, target, strengths)
    return np.concatenate([part.T @ combined for part in _columns(scaler, features)])


def _shrunk(
    gram: NDArray[np.float64], moments: NDArray[np.float64], strengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The inverse of ``gram + strength`` times the moments, for each strength: shape ``(length, strengths)``."""
    values, axes = np.linalg.eigh(gram)
    shares: NDArray[np.float64] = (axes.T @ moments)[:, None] / (np.maximum(values, 0)[:, None] + strengths)
    return np.asarray(axes @ shares, dtype=np.float64)


def _columns(scaler: StandardScaler, features: Features) -> Iterator[NDArray[np.float64]]:
    """Standardised vectors in float64, some features after the other."""
    for some in chunks(features.shape[1]):
        yield (features[:, some].astype(np.float64) - scaler.mean_[some]) / scaler.scale_[some]
