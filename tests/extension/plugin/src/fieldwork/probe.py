"""A probe that gives a vector the class whose mean is nearest."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from terrasieve.probes.probe import Features, Labelled, Probe, check_labelled


class NearestCentroid(Probe):
    """The class of the nearest mean, after standardising by the train split's mean and deviation."""

    name: ClassVar[str] = "centroid"

    @property
    def settings(self) -> str:
        """What there is to know."""
        return "nearest class mean, Euclidean, standardised by the train split"

    def fit(self, features: Features, labels: NDArray[Any], validation: Labelled | None = None) -> Self:
        """Take the means of the train split."""
        check_labelled(features, labels)
        self.mean_, self.deviation_ = features.mean(axis=0), features.std(axis=0) + 1e-9
        self.classes_ = np.unique(labels)
        scaled = self._standardised(features)
        self.centroids_ = np.stack([scaled[labels == one].mean(axis=0) for one in self.classes_])
        return self

    def predict(self, features: Features) -> NDArray[np.int64]:
        """Class codes ``(n,)``."""
        gaps = self._standardised(features)[:, None] - self.centroids_
        nearest: NDArray[np.int64] = self.classes_[np.square(gaps).sum(axis=2).argmin(axis=1)]
        return nearest

    def _standardised(self, features: Features) -> Features:
        return (features - self.mean_) / self.deviation_
