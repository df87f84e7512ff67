"""The samples of a step as they are stored, and what the device has to know to make views of them.

All of it lies in one buffer of bytes, so that it crosses to the device in one copy: the table of parameters, then the
planes of each sensor. A plane is one band of one sample; it stands there once, however many views show it.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from terrasieve.views.band_policy import Channel


@dataclass(frozen=True)
class PlaneSection:
    """Where the planes of one sensor lie.

    Attributes:
        start: The first byte of them in the buffer.
        planes: How many there are.
        dtype: The type in which the archive stores them.
    """

    start: int
    planes: int
    dtype: torch.dtype


@dataclass(frozen=True)
class ViewGroup:
    """Views of one size, which are rendered together. An item is one sample in one of these views.

    Items go view by view; where the views of a sample show the same planes (``stacked``), sample by sample.

    Attributes:
        views: Positions of the views in the recipe.
        size: Height and width of the views in pixels.
        kernel: Width of the blur in pixels of the view; an odd number.
        channels: Number of channels of each view.
        stacked: How many items in a row show the same planes, so that these are multiplied once: 1, or all views.
        first: The plane with which the first item begins, where the planes of all items follow each other in their
            order; None where each has to be looked up among the others, with ``rows`` rows of it.
        rows: Rows of the planes that are looked up: as many as the highest crop has, or all where items are stacked.
        longest: Height or width in pixels of the largest crop.
        turned: Whether any item is transposed.
        grey: Whether any item shows the mean of its channels.
        erased: Whether a part of any item is erased.
        blurred: How many items are blurred.
        rotated: How many items are rotated freely.
        start: The first parameter of the group in the table.
    """

    views: tuple[int, ...]
    size: int
    kernel: int
    channels: int
    stacked: int
    first: int | None
    rows: int
    longest: int
    turned: bool
    grey: bool
    erased: bool
    blurred: int
    rotated: int
    start: int


@dataclass(frozen=True)
class StoredPart:
    """How one micro-batch lies in the buffer.

    Attributes:
        samples: Number of samples.
        canvas: Height and width in pixels of every plane. A window that was read lies at its top left; what lies
            beyond is of no meaning.
        sections: The planes, sensor by sensor.
        groups: The views, size by size.
        start: The first byte of the table in the buffer.
        parameters: How many values of 4 bytes the table has: of each plane the position of its band in ``names``, then
            the parameters of each group, as :func:`terrasieve.views.arrange.arrange` lays them down.
        names: Every band that any view may show.
    """

    samples: int
    canvas: tuple[int, int]
    sections: tuple[PlaneSection, ...]
    groups: tuple[ViewGroup, ...]
    start: int
    parameters: int
    names: tuple[Channel, ...]


@dataclass(frozen=True)
class StoredBatch:
    """The samples of one step on this rank, each plane once, in the type in which it is stored.

    Attributes:
        data: Tables and planes, uint8 ``(bytes,)``.
        parts: How each micro-batch lies in them.
    """

    data: Tensor
    parts: tuple[StoredPart, ...]

    def table(self, part: StoredPart) -> Tensor:
        """The parameters of a micro-batch, 4 bytes each, as float32 ``(parameters,)``; they share the buffer."""
        return self.data[part.start : part.start + 4 * part.parameters].view(torch.float32)

    def planes(self, part: StoredPart, section: PlaneSection) -> Tensor:
        """The planes of one sensor, ``(planes, height, width)`` in the type of the product; they share the buffer."""
        length = section.planes * math.prod(part.canvas) * section.dtype.itemsize
        planes = self.data[section.start : section.start + length].view(section.dtype)
        return planes.view(section.planes, *part.canvas)

    def to(self, device: torch.device) -> Self:
        """The same batch on a device, in one copy that nothing waits for where the buffer is pinned."""
        return replace(self, data=self.data.to(device, non_blocking=True))

    def pinned(self) -> Self:
        """The same batch in memory that a CUDA device copies from by itself; this very one where it lies there."""
        return self if self.data.is_pinned() else replace(self, data=self.data.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory on the device until the work that a stream has been given so far is done."""
        self.data.record_stream(stream)


class Buffers:
    """Memory for batches, used again once nobody holds the batch that lay in it.

    Args:
        device: Where batches go; for a CUDA device the memory is pinned.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._pinned = torch.device(device).type == "cuda"
        self._free: list[Tensor] = []

    def take(self, size: int) -> Tensor:
        """Memory of ``size`` bytes, uint8, whose content is of no meaning."""
        # A worker process gives its memory away to be shared; pinned memory is reused by torch, once it was copied.
        if get_worker_info() is not None:
            return torch.empty(size, dtype=torch.uint8)
        if self._pinned:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        whole = self._free.pop() if self._free else None
        if whole is None or len(whole) < size:
            # Batches differ a little in size; memory that fits the next one as well is not asked for again.
            whole = torch.empty(size + size // 8, dtype=torch.uint8)
        handed = whole[:size]
        weakref.finalize(handed, self._free.append, whole)
        return handed
