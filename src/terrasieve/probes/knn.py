"""Weighted k-nearest-neighbour classification, as self-supervised vision measures features.

The weighting is that of Wu et al. 2018 (Unsupervised Feature Learning via Non-Parametric Instance
Discrimination, section 3.4), with k = 20 and temperature 0.07 as DINO uses it (Caron et al. 2021).
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from terrasieve.probes.protocol import Features, Labelled, Labels, Probe, check_labelled

SIMILARITIES_AT_ONCE = 2**24
"""Bound on the entries of one similarity matrix: 64 MiB in float32."""


class KnnProbe(Probe):
    """Votes of the k most similar train vectors, each weighted by exp(cosine / temperature).

    Ties go to the lower class code. The validation split is not used.

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
        """Keep the train vectors, scaled to unit length; see :meth:`Probe.fit`."""
        check_labelled(features, labels)
        self.vectors_ = self._unit(features)
        self.labels_ = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(self.device)
        return self

    def predict(self, features: Features) -> Labels:
        """Class codes, shape ``(n,)``."""
        rows = max(1, SIMILARITIES_AT_ONCE // len(self.vectors_))
        votes = [self._vote(chunk).argmax(dim=1) for chunk in torch.split(self._unit(features), rows)]
        return np.asarray(torch.cat(votes).cpu().numpy(), dtype=np.int64)

    def _vote(self, vectors: Tensor) -> Tensor:
        neighbours = (vectors @ self.vectors_.T).topk(min(self.k, len(self.vectors_)), dim=1)
        # Less the nearest's similarity, so that no weight overflows at a low temperature.
        weights = ((neighbours.values - neighbours.values[:, :1]) / self.temperature).exp()
        votes = weights.new_zeros(len(vectors), int(self.labels_.max()) + 1)
        return votes.scatter_add_(1, self.labels_[neighbours.indices], weights)

    def _unit(self, features: Features) -> Tensor:
        tensor = torch.from_numpy(np.asarray(features, dtype=np.float32)).to(self.device)
        return functional.normalize(tensor, dim=1)
