"""Several labels a sample: a logistic regression for each label against the rest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from terrasieve.errors import ConfigError
from terrasieve.probes.metrics import Task, average_precision_metrics
from terrasieve.probes.probe import Features, Labelled, Probe, check_vectors

C_GRID = tuple(float(c) for c in np.logspace(-4, 1, 6))


class MultilabelLogistic(Probe):
    """scikit-learn's L2-penalised logistic regression, one a label (one against the rest).

    Vectors are standardised by the train split. One C for all labels, the one of the grid with the highest macro mAP on
    the validation split, the smallest (most penalised) of equals; there is no refit on train and validation.

    Args:
        grid: Values of C to choose from, each above 0.
        max_iter: Most L-BFGS iterations for each label.
    """

    name: ClassVar[str] = "logistic"
    task: ClassVar[Task] = "multilabel"

    def __init__(self, grid: Sequence[float] = C_GRID, max_iter: int = 300) -> None:
        self.grid = tuple(sorted(grid))
        self.max_iter = max_iter

    @property
    def settings(self) -> str:
        """Every setting in one line."""
        return (
            f"one logistic regression a label, at most {self.max_iter} iterations, vectors standardised on train, C of "
            f"{len(self.grid)} in [{self.grid[0]:g}, {self.grid[-1]:g}] by validation macro mAP, fitted on train"
        )

    @property
    def chosen(self) -> Mapping[str, float]:
        """The C that was chosen, and the macro mAP on the validation split that it reached."""
        return {"C": self.c_, "validation_macro_map": self.validation_map_}

    def fit(self, features: Features, labels: NDArray[Any], validation: Labelled | None = None) -> Self:
        """Fit every C of the grid and keep the best on the validation split; see :meth:`Probe.fit`."""
        check_vectors(features, labels)
        if validation is None:
            raise ConfigError("C of a multi-label probe is chosen on a validation split; give one.")
        self.scaler_ = StandardScaler().fit(features)
        train, self.validation_map_ = self.scaler_.transform(features), -1.0
        for c in self.grid:
            model = self._fitted(train, labels, c)
            scores = model.predict_proba(self.scaler_.transform(validation.features))
            reached = average_precision_metrics(validation.labels, scores)["macro_map"]
            if reached > self.validation_map_:
                self.validation_map_, self.c_, self.model_ = reached, c, model
        return self

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Probability of each label, shape ``(n, classes)``."""
        return np.asarray(self.model_.predict_proba(self.scaler_.transform(features)), dtype=np.float64)

    def _fitted(self, train: Features, labels: NDArray[Any], c: float) -> OneVsRestClassifier:
        model = OneVsRestClassifier(LogisticRegression(C=c, max_iter=self.max_iter))
        with warnings.catch_warnings():
            # A label that no train sample has, or all have, gets a constant score, which is what is wanted.
            warnings.filterwarnings("ignore", message="Label .* is present in all training examples")
            warnings.filterwarnings("ignore", message="Label not .* is present in all training examples")
            return model.fit(train, labels.astype(np.int64))
