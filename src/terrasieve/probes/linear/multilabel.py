"""Several labels a sample: a logistic regression for each label against the rest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from terrasieve.errors import ConfigError
from terrasieve.probes.linear.solver import minimise, prepare_features
from terrasieve.probes.metrics import Task, average_precision_metrics
from terrasieve.probes.probe import Features, Labelled, Probe, check_vectors
from terrasieve.probes.standardising import fit_scaler, standardise

C_GRID = tuple(float(c) for c in np.logspace(-4, 1, 6))


class MultilabelLogistic(Probe):
    """L2-penalised logistic regression, one a label (one against the rest), all fitted together.

    Each label has the minimum of scikit-learn's ``OneVsRestClassifier(LogisticRegression(C))``, in float32; the labels
    share the passes over the vectors. Vectors are standardised by the train split. One C for all labels, the one of the
    grid with the highest macro mAP on the validation split, the smallest (most penalised) of equals; each fit starts
    from the one before, and there is no refit on train and validation. A label that no train sample has, or all have,
    has a probability of 0 or 1.

    Args:
        grid: Values of C to choose from, each above 0.
        max_iter: Most L-BFGS iterations for each C.
        device: The device that the fit runs on.

    Attributes:
        weights_: Of standardised features, float32, shape ``(features, labels)``.
        intercept_: Shape ``(labels,)``; infinite for a label that no train sample has, or all have.
        c_: The C that was chosen.
        validation_map_: The macro mAP that it reached on the validation split, from 0 to 1.
        converged_: For each C, whether each label's minimum was reached within ``max_iter``, shape ``(labels,)``.
    """

    name: ClassVar[str] = "logistic"
    task: ClassVar[Task] = "multilabel"

    def __init__(self, grid: Sequence[float] = C_GRID, max_iter: int = 300, device: str | torch.device = "cpu") -> None:
        self.grid = tuple(sorted(grid))
        self.max_iter = max_iter
        self.device = device

    @property
    def settings(self) -> str:
        """Every setting in one line."""
        return (
            f"one logistic regression a label, preconditioned L-BFGS in float32, at most {self.max_iter} iterations, "
            f"vectors standardised on train, C of {len(self.grid)} in [{self.grid[0]:g}, {self.grid[-1]:g}] by "
            "validation macro mAP, fitted on train"
        )

    @property
    def chosen(self) -> Mapping[str, float]:
        """The C that was chosen, and the macro mAP on the validation split that it reached."""
        return {"C": self.c_, "validation_macro_map": self.validation_map_}

    def fit(self, features: Features, labels: NDArray[Any], validation: Labelled | None = None) -> Self:
        """Fit every C of the grid and keep the best on the validation split; see :meth:`Probe.fit`.

        Warns:
            ConvergenceWarning: A label needs more iterations than ``max_iter`` with the C that was chosen.
        """
        check_vectors(features, labels)
        if validation is None:
            raise ConfigError("C of a multi-label probe is chosen on a validation split; give one.")
        self.scaler_ = fit_scaler(features)
        truth = labels.astype(bool)
        varying = torch.from_numpy(truth.any(axis=0) & ~truth.all(axis=0)).to(self.device)
        # What is said of a label that does not vary; the others are fitted.
        constant = torch.where(torch.from_numpy(truth[0]), torch.inf, -torch.inf).to(self.device)
        train, held = self._standardised(features), self._standardised(validation.features)
        prepared = prepare_features(train, torch.from_numpy(truth).to(self.device)[:, varying])
        self.validation_map_, self.converged_, start = -1.0, dict[float, NDArray[np.bool_]](), None
        for c in self.grid:
            fit = minimise(prepared, c, self.max_iter, start=start)
            start = (fit.weights, fit.intercept)
            weights, intercept = train.new_zeros(train.shape[1], len(varying)), constant.clone()
            weights[:, varying], intercept[varying] = start
            self.converged_[c] = np.ones(len(varying), dtype=bool)
            self.converged_[c][varying.cpu().numpy()] = fit.converged.cpu().numpy()
            scores = _probabilities(held, weights, intercept)
            reached = average_precision_metrics(validation.labels, scores)["macro_map"]
            if reached > self.validation_map_:
                self.validation_map_, self.c_, self.weights_, self.intercept_ = reached, c, weights, intercept
        self._warn_if_unconverged()
        return self

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Probability of each label, shape ``(n, labels)``."""
        return _probabilities(self._standardised(features), self.weights_, self.intercept_)

    def _warn_if_unconverged(self) -> None:
        converged = self.converged_[self.c_]
        if not converged.all():
            message = (
                f"The logistic probe did not converge for {(~converged).sum()} of {len(converged)} labels in "
                f"{self.max_iter} iterations with C = {self.c_:g}; raise max_iter, or leave so large a C out of the "
                "grid."
            )
            warnings.warn(message, ConvergenceWarning, stacklevel=3)

    def _standardised(self, features: Features) -> Tensor:
        return torch.from_numpy(standardise(self.scaler_, features)).to(self.device)


def _probabilities(standardised: Tensor, weights: Tensor, intercept: Tensor) -> NDArray[np.float64]:
    scores = (standardised @ weights).double() + intercept.double()
    return np.asarray(scores.sigmoid().cpu().numpy(), dtype=np.float64)
