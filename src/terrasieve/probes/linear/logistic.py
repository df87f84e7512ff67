"""Multinomial logistic regression on scikit-learn's objective, with C chosen on a validation split."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from terrasieve.probes.linear.solver import minimise, prepare_features
from terrasieve.probes.probe import Features, Labelled, Labels, Probe, check_labelled, hold_back
from terrasieve.probes.standardising import fit_scaler, standardise

C_GRID = tuple(float(c) for c in np.logspace(-4, 4, 10))
"""scikit-learn's default grid of ``LogisticRegressionCV``."""

PATIENCE = 2
"""Values of C in a row that do not raise the validation accuracy, after which larger ones are not tried."""


class LogisticProbe(Probe):
    """L2-penalised multinomial logistic regression.

    It minimises what scikit-learn's ``LogisticRegression`` minimises at the same C, in float32.
    Vectors are standardised by the train split. C is the one of the grid with the highest accuracy on
    the validation split, the smallest (most penalised) of equals; each fit starts from the one before,
    and the path ends when :data:`PATIENCE` values in a row bring no gain.
    The weights are those fitted on the train split alone: there is no refit on train and validation.
    Where no validation split is given, a seeded tenth of the train split takes its place.

    Args:
        grid: Values of C to choose from, each above 0.
        max_iter: Most L-BFGS iterations for each C.
        seed: Draws the substitute of a missing validation split.
        device: The device that the fit runs on.

    Attributes:
        classes_: Codes of the classes in the train split, ascending, shape ``(classes,)``.
        weights_: Of standardised features, float32, shape ``(features, classes)``.
        intercept_: Shape ``(classes,)``.
        c_: The C that was chosen.
        validation_accuracy_: What it reached on the validation split, from 0 to 1.
        converged_: For each C that was tried, whether its minimum was reached within ``max_iter``.
    """

    name: ClassVar[str] = "logistic"

    def __init__(
        self,
        grid: Sequence[float] = C_GRID,
        max_iter: int = 300,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.grid = tuple(sorted(grid))
        self.max_iter = max_iter
        self.seed = seed
        self.device = device

    @property
    def settings(self) -> str:
        """Every setting in one line."""
        return (
            f"preconditioned L-BFGS in float32, at most {self.max_iter} iterations, vectors standardised on train, "
            f"C of {len(self.grid)} in [{self.grid[0]:g}, {self.grid[-1]:g}] by validation accuracy (path ends after "
            f"{PATIENCE} without gain), fitted on train"
        )

    @property
    def chosen(self) -> Mapping[str, float]:
        """The C that was chosen, and the accuracy on the validation split that it reached."""
        return {"C": self.c_, "validation_accuracy": self.validation_accuracy_}

    def fit(self, features: Features, labels: Labels, validation: Labelled | None = None) -> Self:
        """Fit every C of the grid and keep the best on the validation split; see :meth:`Probe.fit`.

        Warns:
            ConvergenceWarning: The C that was chosen needs more iterations than ``max_iter``.
        """
        check_labelled(features, labels)
        if validation is None:
            (features, labels), validation = hold_back(Labelled(features, labels), labels, self.seed)
        self.scaler_ = fit_scaler(features)
        self.classes_, positions = np.unique(labels, return_inverse=True)
        self._choose(self._standardised(features), torch.from_numpy(positions).to(self.device), validation)
        return self

    def predict(self, features: Features) -> Labels:
        """Class codes, shape ``(n,)``."""
        return self._classify(self._standardised(features), self.weights_, self.intercept_)

    def _choose(self, train: Tensor, positions: Tensor, validation: Labelled) -> None:
        held, prepared, fitted = self._standardised(validation.features), prepare_features(train, positions), None
        self.validation_accuracy_, self.converged_, worse = -1.0, dict[float, bool](), 0
        for c in self.grid:
            # Of two classes scikit-learn penalises the difference of the weights, which is twice as much.
            strength = c / 2 if len(self.classes_) == 2 else c
            # C rises along the path, so that the weights of the one before are the nearest start there is.
            fit = minimise(prepared, strength, self.max_iter, start=fitted)
            fitted, self.converged_[c] = (fit.weights, fit.intercept), bool(fit.converged.all())
            reached = float((self._classify(held, *fitted) == validation.labels).mean())
            worse += 1
            # Only where it is higher: of equals the first is the smallest C.
            if reached > self.validation_accuracy_:
                self.validation_accuracy_, self.c_, worse = reached, c, 0
                self.weights_, self.intercept_ = fitted
            if worse == PATIENCE:
                break
        self._warn_if_unconverged()

    def _warn_if_unconverged(self) -> None:
        if not self.converged_[self.c_]:
            message = (
                f"The logistic probe did not converge in {self.max_iter} iterations with C = {self.c_:g}; "
                "raise max_iter, or leave so large a C out of the grid."
            )
            warnings.warn(message, ConvergenceWarning, stacklevel=4)

    def _classify(self, standardised: Tensor, weights: Tensor, intercept: Tensor) -> Labels:
        best = (standardised @ weights + intercept).argmax(dim=1).cpu().numpy()
        return np.asarray(self.classes_[best], dtype=np.int64)

    def _standardised(self, features: Features) -> Tensor:
        return torch.from_numpy(standardise(self.scaler_, features)).to(self.device)
