"""Weighted k-nearest-neighbour prediction, as self-supervised vision measures features.

The weighting is that of Wu et al. 2018 (Unsupervised Feature Learning via Non-Parametric Instance
Discrimination, section 3.4), with k = 20 and temperature 0.07 as DINO uses it (Caron et al. 2021). Classes are decided
by votes of the neighbours; numbers and labels are their means. The search is exact, in bounded memory.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from terrasieve.probes.metrics import Task
from terrasieve.probes.probe import Features, Labelled, Labels, Probe, check_labelled, check_vectors

# ------------------------------------------------------------------ neighbours

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


# ---------------------------------------------------------------------- probes

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
