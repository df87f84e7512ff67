"""Numbers and several labels predicted from the nearest train vectors."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from terrasieve.probes.metrics import Task
from terrasieve.probes.protocol import Features, Labelled, Probe, check_vectors
from terrasieve.probes.similarity import nearest_neighbours


class _NeighbourMean(Probe):
    """The mean of the targets of the k most similar train vectors, weighted by exp(cosine / temperature).

    The weights are those of the classifier (Wu et al. 2018, section 3.4; Caron et al. 2021). The validation split is
    not used.

    Args:
        k: Number of neighbours; all train samples where there are fewer.
        temperature: Lower values weight the nearest more.
        device: Where the similarities are computed.
    """

    def __init__(self, k: int = 20, temperature: float = 0.07, device: str | torch.device = "cpu") -> None:
        self.k = k
        self.temperature = temperature
        self.device = device

    @property
    def settings(self) -> str:
        """Every setting in one line."""
        return f"cosine similarity, k = {self.k}, mean weighted by exp(similarity / T), T = {self.temperature}"

    def fit(self, features: Features, labels: NDArray[Any], validation: Labelled | None = None) -> Self:
        """Keep the train vectors and their targets; see :meth:`Probe.fit`."""
        check_vectors(features, labels)
        self.vectors_ = np.asarray(features, dtype=np.float32)
        self.labels_ = np.asarray(labels, dtype=np.float64)
        return self

    def predict(self, features: Features) -> NDArray[np.float64]:
        """The weighted mean of the neighbours' targets, shape ``(n,)`` or ``(n, classes)``."""
        similarities, indices = nearest_neighbours(
            self.vectors_, np.asarray(features, dtype=np.float32), min(self.k, len(self.vectors_)), self.device
        )
        weights = np.exp((similarities - similarities[:, :1]) / self.temperature, dtype=np.float64)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("nk,nk...->n...", weights, self.labels_[indices]), dtype=np.float64)


class KnnRegression(_NeighbourMean):
    """A number as the weighted mean of the numbers of the nearest train vectors; arguments as of ``KnnProbe``."""

    name: ClassVar[str] = "kNN"
    task: ClassVar[Task] = "regression"


class KnnMultilabel(_NeighbourMean):
    """The score of a label is its weighted share among the nearest train vectors; arguments as of ``KnnProbe``."""

    name: ClassVar[str] = "kNN"
    task: ClassVar[Task] = "multilabel"
