"""Multinomial logistic regression, fitted with L-BFGS on scikit-learn's objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from terrasieve.errors import ConfigError
from terrasieve.probes.protocol import Features, Labelled, Labels, Probe, check_labelled
from terrasieve.probes.splits import carve

C_GRID = tuple(float(c) for c in np.logspace(-4, 4, 10))
"""scikit-learn's default grid of ``LogisticRegressionCV``."""

VALIDATION_SHARE = 0.1

PATIENCE = 2
"""Values of C in a row that do not raise the validation accuracy, after which larger ones are not tried."""


def objective(weights: Tensor, intercept: Tensor, features: Tensor, labels: Tensor, c: float) -> Tensor:
    """C times the summed cross-entropy plus half the squared norm of the weights, as scikit-learn defines it.

    Args:
        weights: Shape ``(features, classes)``.
        intercept: Shape ``(classes,)``; not penalised.
        features: Shape ``(n, features)``.
        labels: Class codes, shape ``(n,)``.
        c: Inverse strength of the penalty.
    """
    losses = functional.cross_entropy(features @ weights + intercept, labels, reduction="sum")
    return c * losses + 0.5 * weights.square().sum()


def minimise(
    features: Tensor, labels: Tensor, variances: Tensor, c: float, start: tuple[Tensor, Tensor], max_iter: int
) -> tuple[Tensor, Tensor]:
    """Weights and intercept that minimise :func:`objective`, from a starting point.

    The objective is divided by ``c * n``, which leaves the minimum where it is and makes the tolerances
    independent of C and n. L-BFGS works on weights divided by the square root of the objective's
    approximate curvature along each feature: p (1 - p) of uniform predictions times the feature's
    variance, plus the penalty's. On correlated vectors this saves most iterations.

    Args:
        features: Uncorrelated features, shape ``(n, features)``.
        labels: Class codes, shape ``(n,)``.
        variances: Of each feature, shape ``(features,)``.
        c: Inverse strength of the penalty.
        start: Weights ``(features, classes)`` and intercept ``(classes,)``.
        max_iter: Most iterations.
    """
    uniform = 1 / start[0].shape[1]
    scale = (uniform * (1 - uniform) * variances + 1 / (c * len(labels))).rsqrt()[:, None]
    scaled, intercept = (start[0] / scale).requires_grad_(), start[1].clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [scaled, intercept],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=1e-5,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective(scaled * scale, intercept, features, labels, c) / (c * len(labels))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return (scaled * scale).detach(), intercept.detach()


class LogisticProbe(Probe):
    """L2-penalised multinomial logistic regression in float32.

    Vectors are standardised by the train split. C is the one of the grid with the highest accuracy on
    the validation split, the smallest (most penalised) of equals; each fit starts from the one before,
    and the path ends when :data:`PATIENCE` values in a row bring no gain.
    The weights are those fitted on the train split alone: there is no refit on train and validation.
    Where no validation split is given, a seeded tenth of the train split takes its place.

    Args:
        grid: Values of C to choose from.
        max_iter: Most L-BFGS iterations for each C.
        seed: Draws the substitute of a missing validation split.
        device: Where the fit runs.
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
            f"L-BFGS in float32, at most {self.max_iter} iterations, vectors standardised on train, "
            f"C of {len(self.grid)} in [{self.grid[0]:g}, {self.grid[-1]:g}] by validation accuracy (path ends after "
            f"{PATIENCE} without gain), fitted on train"
        )

    @property
    def chosen(self) -> Mapping[str, float]:
        """The C that was chosen, and the accuracy on the validation split that it reached."""
        return {"C": self.c_, "validation_accuracy": self.validation_accuracy_}

    def fit(self, features: Features, labels: Labels, validation: Labelled | None = None) -> Self:
        """Fit every C of the grid and keep the best on the validation split; see :meth:`Probe.fit`."""
        check_labelled(features, labels)
        if validation is None:
            held_in, held_out = carve(labels, VALIDATION_SHARE, self.seed)
            if not held_out.size:
                raise ConfigError("No class has two train samples, so C cannot be chosen; pass a validation split.")
            validation = Labelled(features[held_out], labels[held_out])
            features, labels = features[held_in], labels[held_in]
        self.scaler_ = StandardScaler().fit(np.asarray(features, dtype=np.float64))
        train, codes = self._tensor(features), torch.from_numpy(labels).to(self.device)
        held = self._tensor(validation.features), torch.from_numpy(validation.labels).to(self.device)
        self._choose(train, codes, *held)
        return self

    def predict(self, features: Features) -> Labels:
        """Class codes, shape ``(n,)``."""
        scores = self._tensor(features) @ self.weights_ + self.intercept_
        return np.asarray(scores.argmax(dim=1).cpu().numpy(), dtype=np.int64)

    def _choose(self, train: Tensor, codes: Tensor, held: Tensor, held_codes: Tensor) -> None:
        # The penalty is the same in any rotated frame, so the fit runs along the principal axes.
        covariance = (train.T @ train).double() / len(train)
        variances, axes = (part.to(train.dtype) for part in torch.linalg.eigh(covariance))
        rotated, variances = train @ axes, variances.clamp(min=0)
        classes = int(codes.max()) + 1
        fitted = train.new_zeros(train.shape[1], classes), train.new_zeros(classes)
        self.validation_accuracy_, worse = -1.0, 0
        for c in self.grid:
            fitted = minimise(rotated, codes, variances, c, fitted, self.max_iter)
            weights = axes @ fitted[0]
            reached = float(((held @ weights + fitted[1]).argmax(dim=1) == held_codes).double().mean())
            worse += 1
            if reached > self.validation_accuracy_:
                self.validation_accuracy_, self.c_, worse = reached, c, 0
                self.weights_, self.intercept_ = weights, fitted[1]
            if worse == PATIENCE:
                return

    def _tensor(self, features: Features) -> Tensor:
        scaled = self.scaler_.transform(np.asarray(features, dtype=np.float64))
        return torch.from_numpy(scaled.astype(np.float32)).to(self.device)
