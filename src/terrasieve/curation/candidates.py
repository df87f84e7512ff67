"""The rows that can be chosen, read in chunks as unit vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.curation.keys import Keys, chunks, number_keys, rekey, row_keys, smallest
from terrasieve.curation.rows import Places, Rows, UnitRows, as_float32, held_type, unit_scales
from terrasieve.curation.shares import SharedSource, SharedVectors
from terrasieve.errors import CurationError

Vectors = NDArray[Any] | SharedVectors
"""``(n, d)`` floats of 16, 32 or 64 bits, in memory or mapped from a file, or dealt out to processes."""

Indices = NDArray[np.int64]

ROWS_PER_CLUSTER = 64
"""Rows that a cluster is fitted on, on average, where the archive has so many."""

_FITTING = 1
"""Number of the decision which rows clusters are fitted on; see :func:`~terrasieve.curation.keys.rekey`."""

_NOTHING = 2e-6
"""Squared distances of unit vectors below it are rounding in float32."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rows that can be chosen: those of ``vectors`` that are finite.

    Attributes:
        vectors: ``(n, d)`` as they were given.
        rows: ``(m,)`` positions of the finite rows in ``vectors``, ascending; there is at least one.
        rejected: ``(n - m,)`` positions of the other rows, ascending.
        scales: ``(n, 2)`` float32, what scales each row of ``vectors`` to unit length; see
            :func:`~terrasieve.curation.rows.unit_scales`.
        numbers: ``(n,)`` numbers that name all rows' samples; None where a row is known by its content.
    """

    vectors: Vectors
    rows: Indices
    rejected: Indices
    scales: NDArray[np.float32]
    numbers: Indices | None = None

    def __len__(self) -> int:
        """Number of finite rows."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, d)``."""
        return len(self), self.vectors.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that the vectors are stored in."""
        return self.vectors.dtype

    def __getitem__(self, which: Places) -> UnitRows:
        """Some of the finite rows as they are stored, to be scaled to unit length.

        Args:
            which: Positions among the finite rows, in [0, m).
        """
        rows = self.rows[which]
        # A run of rows is read as a slice: a mapped file is then read in sequence, and nothing is gathered.
        run = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows) and bool(np.all(np.diff(rows) == 1))
        places = slice(int(rows[0]), int(rows[-1]) + 1) if run else rows
        return UnitRows(self.vectors[places], self.scales[places])

    def unit(self, which: slice | NDArray[Any]) -> NDArray[np.float32]:
        """Some of the finite rows as unit vectors; a zero vector stays zero.

        Args:
            which: Positions among the finite rows, in [0, m).

        Returns:
            ``(len(which), d)`` float32.
        """
        return np.asarray(self[which])

    def gather(self, which: Indices) -> NDArray[np.float32]:
        """As :meth:`unit`, for many rows in any order: read in chunks, in the order of the file."""
        rows = np.empty((len(which), self.vectors.shape[1]), dtype=np.float32)
        for places, part in self._in_file_order(which):
            rows[places] = np.asarray(part)
        return rows

    def part(self, which: Indices) -> Candidates:
        """Some of the finite rows, as the only ones that can be chosen.

        Args:
            which: Their positions among the finite rows, in [0, m), ascending.
        """
        return replace(self, rows=self.rows[which])

    def as_rows(self, device: torch.device) -> Rows:
        """The rows as they are computed with, each by the process that holds it."""
        held = self._held()
        return Rows(self, device) if held is None else SharedSource(held[0], held[1], len(self)).as_rows(device)

    def sample(self, keys: Keys, count: int) -> tuple[UnitRows | SharedSource, Keys]:
        """At most ``count`` rows chosen at random, as unit vectors, to fit clusters on, and their keys.

        They are held in half precision where they are stored in it, and scaled when they are used. They come in the
        order of their keys, not of the archive, so that the same rows in another order fit the same clusters to the
        last bit.

        Args:
            keys: ``(m,)`` the finite rows' keys.
            count: Largest number of rows to take.
        """
        chosen = smallest(rekey(keys, _FITTING), count)
        held = self._held()
        if held is None:
            return self._copied(chosen), keys[chosen]
        own, places = held
        if not len(places):
            return SharedSource(own[:0], places, len(chosen)), keys[chosen]
        mine = np.flatnonzero((chosen >= places[0]) & (chosen <= places[-1]))
        return SharedSource(own._copied(chosen[mine] - places[0]), mine, len(chosen)), keys[chosen]

    def keys(self, seed: int) -> Keys:
        """``(m,)`` keys of the finite rows: by their numbers where they have any, else by their content."""
        keys = row_keys(self.vectors, seed) if self.numbers is None else number_keys(self.numbers, seed)
        return keys[self.rows]

    def chunks(self, extra: int = 0) -> list[slice]:
        """Consecutive positions among the finite rows to read together.

        Args:
            extra: Number of floats that the caller computes for each row beside reading it.
        """
        return list(chunks(len(self), 4 * max(self.vectors.shape[1], extra)))

    def _copied(self, which: Indices) -> UnitRows:
        values = np.empty((len(which), self.vectors.shape[1]), dtype=held_type(self.dtype))
        for places, part in self._in_file_order(which):
            values[places] = part.values
        return UnitRows(values, self.scales[self.rows[which]])

    def _held(self) -> tuple[Candidates, Indices] | None:
        """The rows of this process, and their positions among all; None where one process has all rows."""
        vectors = self.vectors
        if not isinstance(vectors, SharedVectors):
            return None
        first, last = np.searchsorted(self.rows, (vectors.start, vectors.stop))
        rows = self.rows[first:last] - vectors.start
        own = Candidates(vectors.own, rows, self.rejected[:0], self.scales[vectors.start : vectors.stop])
        return own, np.arange(first, last)

    def _in_file_order(self, which: Indices) -> Iterator[tuple[Indices, UnitRows]]:
        """Chunks of rows, each with its places in ``which``."""
        order = np.argsort(which, kind="stable")
        for chunk in chunks(len(which), self.vectors.shape[1] * 4):
            yield order[chunk], self[which[order[chunk]]]


def candidates(vectors: Vectors, keep: int, seed: int, numbers: Indices | None = None) -> Candidates:
    """Check what a curator was given and set apart the rows that are not finite.

    Raises:
        CurationError: As :meth:`Curator.select` says.
    """
    if keep < 1:
        raise CurationError(f"keep = {keep}: it counts rows, not a share of them; keep at least 1.")
    if seed < 0:
        raise CurationError(f"seed = {seed} is negative; give 0 or more.")
    scales = _scales(vectors)
    finite = np.isfinite(scales).all(axis=1)
    if numbers is not None and len(numbers) != len(vectors):
        raise CurationError(f"There are {len(numbers):,} numbers for {len(vectors):,} vectors; give one for each.")
    if not finite.any():
        raise CurationError(f"None of the {len(vectors):,} rows is finite, so none can be chosen; embed them anew.")
    return Candidates(vectors, np.flatnonzero(finite), np.flatnonzero(~finite), scales, numbers)


def _scales(vectors: Vectors) -> NDArray[np.float32]:
    """What scales each row to unit length, not finite for a row with NaN, infinity or a number beyond float32.

    Raises:
        CurationError: The vectors are no ``(n, d)`` numpy array of floats, or an empty one.
    """
    if isinstance(vectors, SharedVectors):
        return vectors.everyones(_scales(vectors.own) if len(vectors.own) else np.empty((0, 2), dtype=np.float32))
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f" or vectors.ndim != 2 or vectors.size == 0:
        what = f"{getattr(vectors, 'dtype', type(vectors).__name__)} of shape {np.shape(vectors)}"
        raise CurationError(f"The vectors are {what}; give an (n, d) numpy array of floats with at least one row.")
    scales = np.empty((len(vectors), 2), dtype=np.float32)
    for rows in chunks(len(vectors), 4 * vectors.shape[1]):
        scales[rows] = unit_scales(as_float32(vectors[rows]))
    return scales


def unit_rows(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Rows scaled to unit length; a zero vector stays zero.

    Args:
        vectors: ``(n, d)`` finite floats.

    Returns:
        ``(n, d)`` float32, a copy.
    """
    return np.asarray(UnitRows(vectors, unit_scales(as_float32(vectors))))


def to_device(rows: NDArray[np.float32], device: str) -> Tensor:
    """Rows as a tensor there."""
    return torch.from_numpy(rows).to(device)


def squared_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Squared Euclidean distances between two sets of unit or zero vectors.

    Args:
        rows: ``(n, d)`` float32.
        others: ``(m, d)`` float32 on the same device.

    Returns:
        ``(n, m)`` in [0, 4]. What float32 cannot tell from 0 is 0, so that copies are told exactly.
    """
    lengths = rows.square().sum(dim=1, keepdim=True) + others.square().sum(dim=1)
    squares = torch.addmm(lengths, rows, others.T, alpha=-2).clamp_(max=4)
    return squares.masked_fill_(squares < _NOTHING, 0)
