"""From the vectors of several inputs to one vector a sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def join(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """One vector a sample: ``(n, 1, features)`` as it is; several scaled to unit length each, then concatenated.

    Args:
        vectors: Shape ``(n, inputs, features)``.

    Returns:
        Shape ``(n, inputs * features)``.
    """
    if vectors.shape[1] == 1:
        return vectors[:, 0]
    lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
    unit = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return np.asarray(unit.reshape(len(vectors), -1), dtype=np.float32)
