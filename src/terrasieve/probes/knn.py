"""Weighted k-nearest-neighbour classification, as self-supervised vision measures features.

The weighting is that of Wu et al. 2018 (Unsupervised Feature Learning via Non-Parametric Instance
Discrimination, section 3.4), with k = 20 and temperature 0.07 as DINO uses it (Caron et al. 2021).
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from terrasieve.probes.protocol import Features, Labelled, Labels, Probe, check_labelled
from terrasieve.probes.similarity import Neighbours, nearest_neighbours

QUERIES_AT_ONCE = 2**14
"""Bound on the vectors whose votes are held at once."""


class KnnProbe(Probe):
    """Votes of the k most similar train vectors, each weighted by exp(cosine / temperature).

    Cosines are float32, votes float64. Of equally similar vectors the one that comes earlier in the train split is
    taken; of classes with equal votes, the lower code. The validation split is not used.

    Args:
        k: Number of neighbours; all train samples where there are fewer.
        temperature: Lower values weight the nearest more.
        device: Where the similarities are computed.
    """

    name: ClassVar[str] = "kNN"

    def __init__(self, k: int = 20, temperature: float = 0.07, device: str | torch.device = "cpu") -> None:
        self.k = k
        self.temperature = temperature
        self.device = device

    @property
    def settings(self) -> str:
        """Every setting in one line."""
        return f"cosine similarity, k = {self.k}, votes weighted by exp(similarity / T), T = {self.temperature}"

    def fit(self, features: Features, labels: Labels, validation: Labelled | None = None) -> Self:
        """Refer to the train vectors, which are not copied; see :meth:`Probe.fit`."""
        check_labelled(features, labels)
        self.vectors_ = features
        self.labels_ = np.asarray(labels, dtype=np.int64)
        return self

    def predict(self, features: Features) -> Labels:
        """Class codes, shape ``(n,)``."""
        k = min(self.k, len(self.vectors_))
        found = nearest_neighbours(self.vectors_, features, k, self.device)
        parts = [slice(start, start + QUERIES_AT_ONCE) for start in range(0, max(1, len(features)), QUERIES_AT_ONCE)]
        votes = [self._votes(Neighbours(found.similarities[part], found.indices[part])) for part in parts]
        return np.concatenate([part.argmax(axis=1) for part in votes]).astype(np.int64)

    def _votes(self, found: Neighbours) -> NDArray[np.float64]:
        """Votes for each class, shape ``(n, classes)``."""
        # Less the nearest's similarity, so that no weight overflows at a low temperature.
        similarities = found.similarities.astype(np.float64)
        weights = np.exp((similarities - similarities[:, :1]) / self.temperature)
        classes = int(self.labels_.max()) + 1
        cells = np.arange(len(weights))[:, None] * classes + self.labels_[found.indices]
        summed = np.bincount(cells.ravel(), weights.ravel(), minlength=len(weights) * classes)
        return np.asarray(summed.reshape(len(weights), classes), dtype=np.float64)
