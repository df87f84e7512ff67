"""Weighted k-nearest-neighbour prediction, as self-supervised vision measures features.

The weighting is that of Wu et al. 2018 (Unsupervised Feature Learning via Non-Parametric Instance
Discrimination, section 3.4), with k = 20 and temperature 0.07 as DINO uses it (Caron et al. 2021). Classes are decided
by votes of the neighbours; numbers and labels are their means. The search is exact, in bounded memory.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from terrasieve.embeddings.neighbours import Neighbours, nearest_neighbours
from terrasieve.probes.metrics import Task
from terrasieve.probes.probe import Features, Labelled, Labels, Probe, check_labelled, check_vectors

QUERIES_AT_ONCE = 2**14
"""Bound on the vectors whose votes are held at once."""


class _WeightedKnn(Probe):
    """What every kNN probe is: the k most similar train vectors have a say, each weighted by exp(cosine / temperature).

    Of equally similar vectors the one that comes earlier in the train split is taken. The train vectors are not copied,
    and the validation split is not used.
    """

    name: ClassVar[str] = "kNN"
    combined: ClassVar[str] = "mean"

    def __init__(self, k: int = 20, temperature: float = 0.07, device: str | torch.device = "cpu") -> None:
        self.k = k
        self.temperature = temperature
        self.device = device

    @property
    def settings(self) -> str:
        """Every setting in one line."""
        return (
            f"cosine similarity, k = {self.k}, {self.combined} weighted by exp(similarity / T), T = {self.temperature}"
        )

    def fit(self, features: Features, labels: NDArray[Any], validation: Labelled | None = None) -> Self:
        """Refer to the train vectors and their targets; see :meth:`Probe.fit`."""
        check_vectors(features, labels)
        self.vectors_ = features
        self.labels_ = np.asarray(labels, dtype=np.float64)
        return self

    def predict(self, features: Features) -> NDArray[Any]:
        """The weighted mean of the neighbours' targets, shape ``(n,)`` or ``(n, classes)``."""
        found = self.neighbours(features)
        weights = self.weights(found.similarities)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("nk,nk...->n...", weights, self.labels_[found.indices]), dtype=np.float64)

    def neighbours(self, features: Features) -> Neighbours:
        """The train vectors that have a say, of each of ``(n, features)`` vectors."""
        return nearest_neighbours(self.vectors_, features, min(self.k, len(self.vectors_)), self.device)

    def weights(self, similarities: NDArray[np.floating]) -> NDArray[np.float64]:
        """What each neighbour counts, shape ``(n, k)``, up to a factor for each query."""
        # Less the nearest's similarity, so that no weight overflows at a low temperature.
        return np.exp((similarities - similarities[:, :1]) / self.temperature, dtype=np.float64)


class KnnProbe(_WeightedKnn):
    """A class by the weighted votes of the k most similar train vectors; of classes with equal votes, the lower code.

    Args:
        k: Number of neighbours, 1 or more; all train samples where there are fewer.
        temperature: Above 0; lower values weight the nearest more.
        device: The device that the similarities are computed on.
    """

    combined: ClassVar[str] = "votes"

    def fit(self, features: Features, labels: Labels, validation: Labelled | None = None) -> Self:
        """Refer to the train vectors, which are not copied; see :meth:`Probe.fit`."""
        check_labelled(features, labels)
        self.vectors_ = features
        self.labels_ = np.asarray(labels, dtype=np.int64)
        return self

    def predict(self, features: Features) -> Labels:
        """Class codes, shape ``(n,)``."""
        found = self.neighbours(features)
        parts = [slice(start, start + QUERIES_AT_ONCE) for start in range(0, max(1, len(features)), QUERIES_AT_ONCE)]
        votes = [self._votes(Neighbours(found.similarities[part], found.indices[part])) for part in parts]
        return np.concatenate([part.argmax(axis=1) for part in votes]).astype(np.int64)

    def _votes(self, found: Neighbours) -> NDArray[np.float64]:
        """Votes for each class, shape ``(n, classes)``."""
        # In float64 throughout, since the last bit of a sum decides between classes that are nearly equal.
        weights = self.weights(found.similarities.astype(np.float64))
        classes = int(self.labels_.max()) + 1
        cells = np.arange(len(weights))[:, None] * classes + self.labels_[found.indices]
        summed = np.bincount(cells.ravel(), weights.ravel(), minlength=len(weights) * classes)
        return np.asarray(summed.reshape(len(weights), classes), dtype=np.float64)


class KnnRegression(_WeightedKnn):
    """A number as the weighted mean of the numbers of the nearest train vectors; arguments as of ``KnnProbe``."""

    task: ClassVar[Task] = "regression"


class KnnMultilabel(_WeightedKnn):
    """The score of a label is its weighted share among the nearest train vectors; arguments as of ``KnnProbe``."""

    task: ClassVar[Task] = "multilabel"
