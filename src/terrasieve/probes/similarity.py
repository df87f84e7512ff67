"""The nearest train vectors of each query by cosine similarity."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional


def nearest_neighbours(
    train: NDArray[np.floating], queries: NDArray[np.floating], k: int, device: str | torch.device = "cpu"
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosine similarities ``(n, k)``, the largest first, and the rows of ``train`` that have them."""
    units = [
        functional.normalize(torch.from_numpy(np.asarray(part, np.float32)).to(device), dim=1)
        for part in (train, queries)
    ]
    found = (units[1] @ units[0].T).topk(k, dim=1)
    return found.values.cpu().numpy(), found.indices.cpu().numpy()
