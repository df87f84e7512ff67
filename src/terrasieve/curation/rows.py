"""Vectors wherever they lie, brought to a device chunk by chunk while the chunk before is worked on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.curation.keys import Keys, chunks, row_keys, slices
from terrasieve.errors import CurationError
from terrasieve.processes.parallel import read_ahead

_SETTLED_AT_ONCE = 2**14
"""Rows that cross at once to a device that holds them all."""
_CACHED = 2**19
"""Numbers in single precision that a processor's cache holds, with what is made of them."""

Number = TypeVar("Number", bound=np.generic)
Places = slice | NDArray[np.int64]
"""Which rows are meant: a run of them, or their positions in any order."""


@dataclass(frozen=True, eq=False)
class UnitRows:
    """Finite rows in the type that they are stored in, scaled to unit length when they are used.

    It stands in for an array of unit vectors: it is indexed as one, and ``np.asarray`` makes one of it.

    Attributes:
        values: ``(n, d)`` floats of any length.
        scales: ``(n, 2)`` float32, see :func:`unit_scales`.
    """

    values: NDArray[Any]
    scales: NDArray[np.float32]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, d)``."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that they are stored in."""
        return self.values.dtype

    def __getitem__(self, which: Places) -> UnitRows:
        """Some of the rows."""
        return UnitRows(self.values[which], self.scales[which])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """``(n, d)`` unit vectors, float32 unless another type is asked for; always a copy."""
        rows = as_float32(self.values) / self.scales[:, :1]
        rows /= self.scales[:, 1:]
        return rows if dtype is None else rows.astype(dtype, copy=False)


@runtime_checkable
class GivesRows(Protocol):
    """Vectors that know by themselves how they are computed with."""

    def as_rows(self, device: torch.device) -> Rows:
        """The vectors as rows on a device."""


class UnitSource(Protocol):
    """``(n, d)`` finite rows that are read as :class:`UnitRows`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, d)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that they are stored in."""

    def __getitem__(self, which: Places) -> UnitRows:
        """Some of the rows."""


def unit_scales(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What rows are divided by to get unit length: the largest component, then the length of what that leaves.

    One after the other, so that no square overflows or vanishes. Both are 1 for a row of zeros.

    Args:
        rows: ``(n, d)`` float32.

    Returns:
        ``(n, 2)`` float32; NaN or infinity where a row has either.
    """
    # One layout, so that sums are taken in one order.
    rows = np.ascontiguousarray(rows)
    with np.errstate(invalid="ignore"):  # Infinity divided by itself.
        largest = _or_one(np.abs(rows).max(axis=1, initial=0.0))
        rows = rows / largest[:, None]
    return np.stack([largest, _or_one(np.sqrt(np.einsum("nd,nd->n", rows, rows)))], axis=1)


def as_float32(rows: NDArray[Any]) -> NDArray[np.float32]:
    """The rows in single precision; numbers beyond it become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(rows, dtype=np.float32)


def held_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that rows of a type are held in: half precision stays, everything else is held in single precision."""
    return np.dtype(np.float16 if dtype == np.float16 else np.float32)


def cached_slices(shape: Sequence[int], device: torch.device) -> Iterator[slice]:
    """Consecutive slices of rows that a processor's cache holds, for several steps on each; a GPU has no use for few.

    Args:
        shape: Number of rows, and of the numbers in each.
        device: Where they are.
    """
    rows, width = shape
    return slices(rows, max(1, _CACHED // width) if device.type == "cpu" else max(1, rows))


def _or_one(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(scales == 0, np.float32(1), scales)


@dataclass(frozen=True, eq=False)
class DeviceRows:
    """Rows that lie on a device, in the type that they are stored in.

    Attributes:
        values: ``(n, d)`` floats.
        scales: ``(n, 2)`` float32, see :func:`unit_scales`; None where rows are used as they are.
        crossed: On CUDA, the event after which rows on their way have arrived; None for rows that are there.
    """

    values: Tensor
    scales: Tensor | None = None
    crossed: Any = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, d)``."""
        return self.values.shape[0], self.values.shape[1]

    def __getitem__(self, which: Places) -> DeviceRows:
        """Some of the rows."""
        index = which if isinstance(which, slice) else torch.from_numpy(which).to(self.values.device)
        return DeviceRows(self.values[index], None if self.scales is None else self.scales[index])

    def arrived(self, device: torch.device) -> DeviceRows:
        """The rows once they are there, for the work that the device is given from now on."""
        if self.crossed is None:
            return self
        stream = torch.cuda.current_stream(device)
        stream.wait_event(self.crossed)
        for part in (self.values, self.scales):
            if part is not None:
                # The stream that they crossed in owns their memory, and would give it away while they are in use.
                part.record_stream(stream)
        return DeviceRows(self.values, self.scales)

    def float32(self, device: torch.device, memory: Tensor | None = None) -> Tensor:
        """``(n, d)`` as they are computed with.

        Args:
            device: Where to.
            memory: ``(m, d)`` float32 there, m at least n, to write them into; None takes new memory, or none at all
                where they are so already.
        """
        here = self.arrived(device)
        if here.scales is None and here.values.dtype == torch.float32:
            return here.values.to(device)
        memory = torch.empty(self.shape, device=device) if memory is None else memory[: len(here.values)]
        scales = None if here.scales is None else here.scales.to(device)
        for part in cached_slices(here.shape, device):
            rows = memory[part].copy_(here.values[part])
            if scales is not None:
                rows.div_(scales[part, :1]).div_(scales[part, 1:])
        return memory


class Rows:
    """``(n, d)`` vectors, used as float32 tensors on a device.

    Where they are not held there, a thread reads each chunk and sends it while the one before is in use: every row is
    read once and crosses once a pass, in the type that it is stored in.

    Args:
        source: An array, a mapped file, a tensor, or rows that are scaled to unit length on the way.
        device: Where they are used.
        finite: Whether it is known that all are finite; that of unit rows always is.

    Attributes:
        together: Whether processes hold some each, and ask and answer together.

    Raises:
        CurationError: There is no row, or the vectors are no table.
    """

    together = False

    def __init__(
        self, source: NDArray[Any] | Tensor | UnitSource | DeviceRows, device: torch.device, finite: bool = False
    ) -> None:
        if len(source.shape) != 2 or not source.shape[0]:
            raise CurationError(f"The vectors have shape {tuple(source.shape)}; give at least one row of (n, d).")
        self.source = DeviceRows(source) if isinstance(source, Tensor) else source
        self.device = device
        self.shape = (int(source.shape[0]), int(source.shape[1]))
        self.finite = finite or not isinstance(source, np.ndarray | Tensor | DeviceRows)

    @classmethod
    def of(cls, vectors: NDArray[Any] | Tensor | UnitSource | GivesRows | Rows, device: str | torch.device) -> Rows:
        """The vectors as rows; what is known of rows already stays known."""
        if isinstance(vectors, Rows):
            return vectors
        device = torch.device(device)
        return vectors.as_rows(device) if isinstance(vectors, GivesRows) else cls(vectors, device)

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def __getitem__(self, which: slice) -> NDArray[Any]:
        """Rows as numpy sees them, for their keys."""
        part = self.source[which]
        return part.float32(torch.device("cpu")).numpy() if isinstance(part, DeviceRows) else np.asarray(part)

    def take(self, which: NDArray[np.int64]) -> Rows:
        """A copy of some rows, in the order asked for and in the type that they are stored in."""
        return Rows(self.source[which], self.device, self.finite)

    def gather(self, which: NDArray[np.int64]) -> Tensor:
        """``(len(which), d)`` float32 rows in the order asked for, read in the order of the file."""
        order = np.argsort(which, kind="stable")
        gathered = torch.empty(len(which), self.shape[1], device=self.device)
        for part in chunks(len(which), 4 * self.shape[1]):
            rows = _wrapped(self.source[which[order[part]]]).float32(self.device)
            gathered[torch.from_numpy(order[part]).to(self.device)] = rows
        return gathered

    def chunks(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """All rows in their order, as pairs of positions and ``(at most size, d)`` float32 rows.

        A chunk is valid until the next one is asked for.
        """
        memory = torch.empty(min(size, len(self)), self.shape[1], device=self.device)
        for part, rows in self._pieces(size):
            yield part, rows.float32(self.device, memory)

    def settle(self) -> None:
        """Bring all rows to the device, in the type that they are stored in, where it has room for them."""
        if isinstance(self.source, DeviceRows):
            if self.source.values.nbytes <= room_for_rows(self.device):
                self.source = DeviceRows(self.source.values.to(self.device), self.source.scales)
            return
        stored = held_type(self.source.dtype)
        if math.prod(self.shape) * stored.itemsize > room_for_rows(self.device):
            return
        values = torch.empty(self.shape, dtype=_torch_type(stored), device=self.device)
        scales = None if isinstance(self.source, np.ndarray) else torch.empty(len(self), 2, device=self.device)
        for part, rows in self._pieces(_SETTLED_AT_ONCE):
            here = rows.arrived(self.device)
            values[part] = here.values
            if scales is not None and here.scales is not None:
                scales[part] = here.scales
        self.source = DeviceRows(values, scales)

    def check(self) -> None:
        """Find out once whether all rows are finite.

        Raises:
            CurationError: One holds NaN, infinity or a number beyond single precision.
        """
        for part in () if self.finite else chunks(len(self), 4 * self.shape[1]):
            piece = self.source[part]
            # NaN and infinity outlive every sum, so that a finite one clears all rows; it takes a fraction of the time.
            if not math.isfinite(_sum(piece)):
                finite = _wrapped(piece).float32(self.device).isfinite().all(dim=1)
                if not finite.all():
                    row = part.start + int(finite.int().argmin())
                    raise CurationError(
                        f"Row {row} of the vectors holds NaN or infinity, as float32. Leave such rows out, or embed "
                        "their samples again."
                    )
        self.finite = True

    @property
    def held(self) -> int:
        """Number of rows that :meth:`chunks` goes through."""
        return len(self)

    def keys(self, seed: int) -> Keys:
        """``(n,)`` keys of the rows by their content."""
        return row_keys(self, seed)

    def add_up(self, *sums: Tensor) -> None:
        """Add up over processes, in place, what each has of its rows."""

    def mean(self, own: NDArray[np.float32]) -> float:
        """The mean over all rows of a number of each that :meth:`chunks` went through."""
        return float(own.mean(dtype=np.float64))

    def everyones(self, own: NDArray[Number]) -> NDArray[Number]:
        """What is known of rows that :meth:`chunks` went through, ``(held,)``, as that of all rows, ``(n,)``."""
        return own

    def agreed(self, tensor: Tensor) -> Tensor:
        """What processes found alike but for rounding, as one of them found it."""
        return tensor

    def above(self, values: Tensor) -> Rows:
        """Other rows, ``(k, d)`` float32 on the CPU, that are gone through by whoever goes through these."""
        return Rows(values.numpy(), self.device)

    def _pieces(self, size: int) -> Iterator[tuple[slice, DeviceRows]]:
        parts = list(slices(len(self), size))
        source = self.source
        if isinstance(source, DeviceRows):
            return ((part, source[part]) for part in parts)
        crossing = _Crossing((min(size, len(self)), self.shape[1]), held_type(source.dtype), self.device)
        return zip(parts, read_ahead((crossing.send(source[part]) for part in parts), 1), strict=True)


def room_for_rows(device: torch.device) -> int:
    """Bytes of rows that a device beside the processor may hold: half of what is free on CUDA, as products need some.

    Args:
        device: Where rows are used. On the processor they stay where they are, and Metal shares its memory.
    """
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 0


class _Crossing:
    """Sends chunks of rows to a device by way of two buffers in turn, as the one before last is no longer in use.

    On CUDA the buffers are pinned and a stream of its own copies them, so that products go on meanwhile.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._device = device
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self._buffers = [torch.empty(shape, dtype=_torch_type(dtype), pin_memory=cuda) for _ in range(2)]
        self._sent: list[Any] = [None, None]
        self._turn = 0

    def send(self, piece: NDArray[Any] | UnitRows) -> DeviceRows:
        turn, self._turn = self._turn, 1 - self._turn
        if self._sent[turn] is not None:
            self._sent[turn].synchronize()
        values, scales = (
            (piece.values, torch.from_numpy(piece.scales)) if isinstance(piece, UnitRows) else (piece, None)
        )
        buffer = self._buffers[turn][: len(values)]
        with np.errstate(over="ignore"):
            np.copyto(buffer.numpy(), values, casting="same_kind")
        if self._stream is None:
            return DeviceRows(buffer, scales)
        with torch.cuda.stream(self._stream):
            crossing = buffer.to(self._device, non_blocking=True)
            scales = None if scales is None else scales.to(self._device)
            self._sent[turn] = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._sent[turn].record(self._stream)
        return DeviceRows(crossing, scales, self._sent[turn])


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.float16 if dtype == np.float16 else torch.float32


def _wrapped(piece: NDArray[Any] | UnitRows | DeviceRows) -> DeviceRows:
    """Rows as tensors where they are."""
    if isinstance(piece, DeviceRows):
        return piece
    if isinstance(piece, UnitRows):
        return DeviceRows(torch.from_numpy(_held(piece.values)), torch.from_numpy(piece.scales))
    return DeviceRows(torch.from_numpy(_held(piece)))


def _held(values: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return np.array(values, dtype=held_type(values.dtype))


def _sum(piece: NDArray[Any] | UnitRows | DeviceRows) -> float:
    if isinstance(piece, DeviceRows):
        return float(piece.values.sum(dtype=torch.float32))
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.asarray(piece).sum(dtype=np.float32))
