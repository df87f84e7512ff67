"""The feature bank: what training computed of each sample when it last saw it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEVER = -1


class FeatureMemory:
    """One vector a sample, half precision, in the memory of the CPU: ``2 * samples * features`` bytes.

    Updates wait on the device until they are needed, so that filling the memory does not make training wait.

    Args:
        candidates: Archive indices of the samples, ascending.
        features: Length of a vector.
    """

    def __init__(self, candidates: NDArray[np.int64], features: int) -> None:
        self.candidates = candidates
        self.vectors = torch.zeros(len(candidates), features, dtype=torch.float16)
        self.steps = torch.full((len(candidates),), NEVER, dtype=torch.int64)
        self._waiting: list[tuple[int, NDArray[np.int64], Tensor]] = []

    def update(self, step: int, indices: NDArray[np.int64], vectors: Tensor) -> None:
        """Note the features of samples.

        Args:
            step: The step that computed them.
            indices: Archive indices, ``(n,)``.
            vectors: ``(n, features)``, on any device; scaled to unit length here.
        """
        self._waiting.append((step, indices, torch.nn.functional.normalize(vectors.float(), dim=1).half()))

    def settle(self) -> None:
        """Write what waits; later updates of a sample win."""
        for step, indices, vectors in self._waiting:
            # A batch across the end of a pass may hold a sample twice, and which of two equal positions an indexed
            # assignment takes is not defined.
            _, behind = np.unique(indices[::-1], return_index=True)
            last = len(indices) - 1 - behind
            rows = torch.from_numpy(np.searchsorted(self.candidates, indices[last]))
            self.vectors[rows] = vectors.cpu()[torch.from_numpy(last)]
            self.steps[rows] = step
        self._waiting.clear()

    def stalest(self, count: int) -> NDArray[np.int64]:
        """Rows of the samples that were seen longest ago or never, ascending."""
        rows = np.argsort(self.steps.numpy(), kind="stable")[:count]
        return np.sort(rows)

    def seen(self) -> NDArray[np.int64]:
        """Rows of the samples that have a vector."""
        return np.flatnonzero(self.steps.numpy() != NEVER)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs."""
        self.settle()
        return {"bank.vectors": self.vectors, "bank.steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where ``state`` was taken."""
        self.vectors.copy_(state["bank.vectors"])
        self.steps.copy_(state["bank.steps"])
