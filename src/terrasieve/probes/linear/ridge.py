"""Ridge regression of one number, in closed form (Hoerl & Kennard 1970)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from terrasieve.probes.metrics import Task
from terrasieve.probes.probe import Features, Labelled, Probe, check_vectors, hold_back

STRENGTHS = tuple(float(value) for value in np.logspace(-2, 6, 17))
"""Penalties to choose from. On standardised vectors the squared norm of a feature is the number of samples."""


class RidgeProbe(Probe):
    """Least squares with a penalty ``strength * |weights|^2`` on weights, not on the intercept.

    Vectors are standardised by the train split. One decomposition serves every strength; the one with the lowest RMSE
    on the validation split is kept, the strongest of equals. The weights are those of the train split alone. Where no
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
        self.scaler_ = StandardScaler().fit(np.asarray(features, dtype=np.float64))
        # Standardised vectors have mean 0, so that the intercept is the mean whatever the weights.
        self.intercept_ = float(np.mean(labels))
        train, held_out = self.scaler_.transform(features), self.scaler_.transform(validation.features)
        self.validation_rmse_ = np.inf
        for strength, weights in _solutions(train, labels - self.intercept_, self.strengths):
            reached = float(np.sqrt(np.mean((held_out @ weights + self.intercept_ - validation.labels) ** 2)))
            if reached < self.validation_rmse_:
                self.validation_rmse_, self.strength_, self.weights_ = reached, strength, weights
        return self

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Numbers, shape ``(n,)``, in the unit of the target."""
        return np.asarray(self.scaler_.transform(features) @ self.weights_ + self.intercept_, dtype=np.float64)


def _solutions(
    train: NDArray[np.float64], target: NDArray[np.float64], strengths: Sequence[float]
) -> list[tuple[float, NDArray[np.float64]]]:
    """Weights ``(features,)`` for each strength, from one eigendecomposition of the smaller Gram matrix."""
    n, features = train.shape
    # Of rank min(n, features) both: the smaller one has all that is to know.
    if n >= features:
        values, axes = np.linalg.eigh(train.T @ train)
        projected = axes.T @ (train.T @ target)
        return [(one, axes @ (projected / (np.maximum(values, 0) + one))) for one in strengths]
    values, axes = np.linalg.eigh(train @ train.T)
    projected = axes.T @ target
    return [(one, train.T @ (axes @ (projected / (np.maximum(values, 0) + one)))) for one in strengths]
