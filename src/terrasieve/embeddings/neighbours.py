"""Exact nearest neighbours by cosine, in bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SIMILARITIES_AT_ONCE = 2**22
"""Bound on the entries of one matrix of similarities: 16 MiB in float32."""

TRAIN_ROWS = 2**14
"""Train vectors of a chunk at most."""


class Neighbours(NamedTuple):
    """The nearest train vectors of each query, the most similar first.

    Attributes:
        similarities: Cosines from -1 to 1, float32, shape ``(n, k)``.
        indices: Rows of the train vectors, int64, shape ``(n, k)``.
    """

    similarities: NDArray[np.float32]
    indices: NDArray[np.int64]


def nearest_neighbours(
    train: NDArray[np.floating], queries: NDArray[np.floating], k: int, device: str | torch.device = "cpu"
) -> Neighbours:
    """Exact search: every query is compared with every train vector, a chunk of each at a time.

    Of equal cosines, as float32 gives them, the lower row of ``train`` comes first. Beyond the two arrays, which may be
    mapped files, and the result, memory is bounded by :data:`SIMILARITIES_AT_ONCE` and one chunk of vectors. A vector
    of zeros has the cosine 0 with every other.

    Args:
        train: Finite vectors of any length, shape ``(m, features)``.
        queries: The same, shape ``(n, features)``.
        k: Neighbours of each query, from 1 to m.
        device: The device that the cosines are computed on.
    """
    assert 1 <= k <= len(train), "k lies between 1 and the number of train vectors"
    assert train.shape[1] == queries.shape[1], "train vectors and queries have the same length"
    best = torch.full((len(queries), k), -torch.inf)
    rows = torch.zeros(len(queries), k, dtype=torch.int64)
    step = max(1, SIMILARITIES_AT_ONCE // min(TRAIN_ROWS, len(train)))
    for first in range(0, len(train), TRAIN_ROWS):
        chunk = _unit(train[first : first + TRAIN_ROWS], device)
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            cosines = _unit(queries[part], device) @ chunk.T
            best[part], rows[part] = _merge(best[part].to(device), rows[part].to(device), cosines, first)
    return Neighbours(best.numpy(), rows.numpy())


def _merge(best: Tensor, rows: Tensor, cosines: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The k highest so far, with those of a chunk of train vectors that begins at row ``first``."""
    # Rows of a later chunk are higher, so that an equal cosine does not displace what is there.
    better = cosines > best[:, -1:]
    counts = better.sum(dim=1)
    width = int(counts.max())
    if width == 0:
        return best, rows
    query, column = better.nonzero(as_tuple=True)
    # Where in its row a better one goes: its place among all, less the number in the rows before.
    slot = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
    shape = len(best), width
    candidates = cosines.new_full(shape, -torch.inf).index_put_((query, slot), cosines[query, column])
    found = rows.new_zeros(shape).index_put_((query, slot), column + first)
    # Stable, and rows ascend from left to right among equals: so the lower row comes first.
    ordered = torch.cat([best, candidates], dim=1).sort(dim=1, descending=True, stable=True)
    order, k = ordered.indices, best.shape[1]
    return ordered.values[:, :k], torch.cat([rows, found], dim=1).gather(1, order[:, :k])


def _unit(vectors: NDArray[np.floating], device: str | torch.device) -> Tensor:
    tensor = torch.from_numpy(np.array(vectors, dtype=np.float32)).to(device)
    return functional.normalize(tensor, dim=1)
