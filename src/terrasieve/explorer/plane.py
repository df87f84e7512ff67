"""Vectors as few numbers: two of each to draw, and a few bytes to compare."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrasieve.embeddings.neighbours import nearest_neighbours
from terrasieve.embeddings.tsne import FEWEST, describe_tsne, tsne
from terrasieve.errors import ConfigError

TSNE_ROWS = 5000
"""Samples up to which neighbours are what the plane shows; of more, t-SNE with exact neighbours takes long."""
_FITTED = 50_000
"""Rows, evenly spaced, that principal directions are found from."""
_BLOCK = 65_536
_BYTES = 127
_ASKED, _NEAR = 50, 20


@dataclass(frozen=True)
class Plane:
    """Coordinates to draw.

    Attributes:
        positions: Float32, shape ``(n, 2)``, from -1 to 1.
        method: How they were found, in a line.
    """

    positions: NDArray[np.float32]
    method: str


@dataclass(frozen=True)
class Codes:
    """Vectors of unit length as bytes, so that a page can compare them.

    Attributes:
        codes: Int8, shape ``(n, dims)``; a coordinate along a principal direction is ``offset + scale * code``.
        scales: Float32, shape ``(dims,)``.
        offsets: Float32, shape ``(dims,)``.
        agreement: Share of the 20 nearest neighbours of some samples that are found by the codes, too; 0 to 1.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    offsets: NDArray[np.float32]
    agreement: float

    @property
    def decoded(self) -> NDArray[np.float32]:
        """The coordinates that the bytes stand for, float32, shape ``(n, dims)``."""
        return self.offsets + self.scales * self.codes


def lay_out(vectors: NDArray[np.float32], seed: int) -> Plane:
    """Vectors in the plane: by t-SNE where there are few, else by their first two principal components.

    Args:
        vectors: Shape ``(n, features)``; compared by their cosine.
        seed: Of t-SNE.
    """
    count = len(vectors)
    if FEWEST <= count <= TSNE_ROWS:
        try:
            return Plane(_framed(tsne(vectors, seed)), describe_tsne(count, seed))
        except ConfigError:  # all point the same way
            pass
    centre = _unit(vectors[_spread(count)]).mean(axis=0)
    axes = _directions(vectors, 2, centre)
    flat = _project(vectors, axes, centre)
    positions = np.zeros((count, 2))
    positions[:, : flat.shape[1]] = flat
    used = f"of {min(count, _FITTED):,} evenly spaced ones" if count > _FITTED else "of all"
    return Plane(_framed(positions), f"the first two principal components of vectors of unit length, directions {used}")


def encode(vectors: NDArray[np.float32], dims: int) -> Codes:
    """Vectors as bytes along the directions that keep most of their inner products.

    Args:
        vectors: Shape ``(n, features)``.
        dims: Directions at most.
    """
    axes = _directions(vectors, dims, np.zeros(vectors.shape[1], dtype=np.float32))
    flat = _project(vectors, axes, np.zeros(vectors.shape[1], dtype=np.float32))
    # What all vectors have in common takes no bytes, and stays part of every cosine.
    low, high = flat.min(axis=0), flat.max(axis=0)
    offsets = (low + high) / 2
    scales = np.maximum((high - low) / (2 * _BYTES), np.finfo(np.float32).tiny)
    codes = np.rint((flat - offsets) / scales).clip(-_BYTES, _BYTES).astype(np.int8)
    made = Codes(codes, scales, offsets, 0.0)
    return replace(made, agreement=_agreement(vectors, made.decoded))


def _agreement(vectors: NDArray[np.float32], decoded: NDArray[np.float32]) -> float:
    asked = np.unique(np.linspace(0, len(vectors) - 1, min(_ASKED, len(vectors))).astype(np.int64))
    near = min(_NEAR + 1, len(vectors))
    exact = nearest_neighbours(vectors, vectors[asked], near).indices
    found = nearest_neighbours(decoded, decoded[asked], near).indices
    # The sample itself is left out of both.
    rows = zip(asked.tolist(), exact.tolist(), found.tolist(), strict=True)
    shared = [len((set(true) & set(coded)) - {own}) for own, true, coded in rows]
    return float(np.mean(shared) / max(1, near - 1))


def _spread(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, _FITTED)).astype(np.int64))


def _directions(vectors: NDArray[np.float32], dims: int, centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """The strongest directions, shape ``(features, dims)`` or fewer, each of a sign that does not depend on chance."""
    fitted = _unit(vectors[_spread(len(vectors))]) - centre
    _, axes = np.linalg.eigh(fitted.T.astype(np.float64) @ fitted)
    kept = axes[:, ::-1][:, : min(dims, vectors.shape[1])]
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    return np.asarray(kept * signs, dtype=np.float32)


def _project(
    vectors: NDArray[np.float32], axes: NDArray[np.float32], centre: NDArray[np.float32]
) -> NDArray[np.float32]:
    flat = np.empty((len(vectors), axes.shape[1]), dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK):
        flat[start : start + _BLOCK] = (_unit(vectors[start : start + _BLOCK]) - centre) @ axes
    return flat


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


def _framed(positions: NDArray[np.floating]) -> NDArray[np.float32]:
    """Positions from -1 to 1, both axes at one scale."""
    middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
    half = max(float(np.ptp(positions, axis=0).max()) / 2, np.finfo(np.float32).tiny)
    return np.ascontiguousarray((positions - middle) / half, dtype=np.float32)
