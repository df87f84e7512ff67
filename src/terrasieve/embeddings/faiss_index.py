"""Approximate search in more vectors than one wants to compare one by one, by FAISS (Douze et al. 2024)."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.embeddings.neighbours import Neighbours
from terrasieve.errors import ConfigError

EXACT_ROWS = 1_000_000
"""Rows up to which every vector is compared unless the caller says otherwise."""

_PROBED = 1 / 16
"""Share of the lists that a search looks into: most of the true neighbours lie in those nearest to the query."""
_SEED = 1234
"""Of the k-means that divides the vectors into lists; FAISS's own default."""


def is_installed() -> bool:
    """Whether FAISS is there."""
    return find_spec("faiss") is not None


class FaissIndex:
    """An inverted file over unit vectors: a search looks into the lists whose centres are nearest to the query.

    Args:
        vectors: Finite floats ``(n, features)``; they are copied, at unit length.

    Raises:
        ConfigError: FAISS is not installed.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        if not is_installed():
            raise ConfigError(
                "An approximate search needs FAISS: pip install 'terrasieve[search]'. Or leave out exact=False."
            )
        import faiss

        unit = _unit(vectors)
        # As many lists as FAISS's guidelines give for millions, and never more than it can train on.
        lists = max(1, min(round(4 * math.sqrt(len(unit))), len(unit) // 39))
        self._index: Any = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(unit.shape[1]), unit.shape[1], lists, faiss.METRIC_INNER_PRODUCT
        )
        self._index.cp.seed = _SEED
        self._index.train(unit)
        self._index.add(unit)
        self._index.nprobe = max(1, math.ceil(lists * _PROBED))

    def search(self, queries: NDArray[np.float32], k: int) -> Neighbours:
        """Neighbours of each query, the most alike first; rows are -1 where the lists held fewer than ``k``.

        Args:
            queries: Shape ``(m, features)``.
            k: Neighbours of each, 1 or more.
        """
        similarities, rows = self._index.search(_unit(queries), k)
        return Neighbours(similarities, rows)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
