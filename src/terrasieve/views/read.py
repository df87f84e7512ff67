"""From the plans of a step to the pixels that they need, each read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive
from terrasieve.errors import SampleError
from terrasieve.views.arrange import Arrangement, PlaneRead, arrange
from terrasieve.views.band_policy import Channel
from terrasieve.views.plan import ViewPlan
from terrasieve.views.stored import Buffers, PlaneSection, StoredBatch, StoredPart

_ALIGNED = 64
"""Bytes at whose multiples sections begin, as processors and accelerators like it."""

_KEPT = frozenset({"uint8", "int8", "uint16", "int16", "int32", "float16", "float32"})
"""Types that cross as they are stored; others are converted to float32 when they are read."""


class BatchReader:
    """Reads the bands and windows that the views of a step show, each once, in the type in which they are stored.

    Args:
        archive: The archive that pixels are read from.
        buffers: Memory that batches lie in; plain memory when None.
    """

    def __init__(self, archive: Archive, buffers: Buffers | None = None) -> None:
        self.archive = archive
        self.buffers = buffers or Buffers()
        self._types: dict[str, np.dtype[np.generic]] = {}

    def read(
        self,
        plans: Sequence[ViewPlan],
        channels: Sequence[tuple[Channel, ...]],
        indices: Sequence[NDArray[np.int64]],
        parts: int = 1,
        pool: ThreadPoolExecutor | None = None,
    ) -> StoredBatch:
        """Read a batch.

        Args:
            plans: The plan of each view, ``n`` samples each.
            channels: For each view every band that it may show, which its plan's ``channels`` are positions in.
            indices: For each view the archive indices ``(n,)`` of what it shows of the samples.
            parts: Micro-batches that the samples are dealt out to in order; divides ``n``.
            pool: Threads that read; None reads in this one.

        Raises:
            SampleError: A sample cannot be read, or is not of the shape that was planned for; the message names its
                id.
        """
        size = len(plans[0]) // parts
        slices = [slice(part * size, (part + 1) * size) for part in range(parts)]
        arranged = [
            arrange([plan[own] for plan in plans], channels, [index[own] for index in indices]) for own in slices
        ]
        known = self._learn_types(arranged)
        while True:
            layout, length = self._lay_out(arranged)
            batch = StoredBatch(self.buffers.take(length), layout)
            try:
                self._fill(batch, arranged, known, pool)
            except _OtherTypeError as error:
                self._types[error.sensor] = np.dtype(np.float32)
            else:
                return batch

    def _learn_types(self, arranged: Sequence[Arrangement]) -> dict[PlaneRead, NDArray[np.generic]]:
        """Read one sample of each sensor whose type is not known yet; it is not read again."""
        known = {}
        for read in (read for arrangement in arranged for read in arrangement.reads):
            if read.sensor not in self._types:
                known[read] = pixels = self._pixels(read)
                self._types[read.sensor] = np.dtype(pixels.dtype.name if pixels.dtype.name in _KEPT else np.float32)
        return known

    def _lay_out(self, arranged: Sequence[Arrangement]) -> tuple[tuple[StoredPart, ...], int]:
        """Where everything lies, and how many bytes that are."""
        parts, end = [], 0
        for one in arranged:
            start, sections = end, []
            end = _aligned(start + one.table.nbytes)
            for sensor, planes in one.planes.items():
                dtype = self._types[sensor]
                sections.append(PlaneSection(end, planes, torch.from_numpy(np.empty(0, dtype)).dtype))
                end = _aligned(end + planes * one.canvas[0] * one.canvas[1] * dtype.itemsize)
            parts.append(
                StoredPart(one.samples, one.canvas, tuple(sections), one.groups, start, len(one.table), one.names)
            )
        return tuple(parts), end

    def _fill(
        self,
        batch: StoredBatch,
        arranged: Sequence[Arrangement],
        known: Mapping[PlaneRead, NDArray[np.generic]],
        pool: ThreadPoolExecutor | None,
    ) -> None:
        work = []
        for part, one in zip(batch.parts, arranged, strict=True):
            batch.table(part).numpy()[:] = one.table
            canvases = {
                sensor: batch.planes(part, section).numpy()
                for sensor, section in zip(one.planes, part.sections, strict=True)
            }
            work += [(read, canvases[read.sensor]) for read in one.reads]

        def place(some: Sequence[tuple[PlaneRead, NDArray[np.generic]]]) -> None:
            for read, canvas in some:
                pixels = known[read] if read in known else self._pixels(read)
                if not np.can_cast(pixels.dtype, canvas.dtype) and canvas.dtype != np.float32:
                    raise _OtherTypeError(read.sensor)
                _, _, height, width = read.window
                for plane, band in zip(read.places, pixels, strict=True):
                    canvas[plane, :height, :width] = band

        if pool is None:
            place(work)
        else:
            # Few parts a thread: each is a call, and the last of them is waited for.
            share = -(-len(work) // (pool._max_workers * 2))
            list(pool.map(place, (work[start : start + share] for start in range(0, len(work), share))))

    def _pixels(self, read: PlaneRead) -> NDArray[np.generic]:
        found = self.archive.shape(read.sample, read.sensor)
        if found != read.shape:
            raise SampleError(
                f"Sample {self.archive.ids[read.sample]!s} has {found[0]}x{found[1]} pixels of sensor {read.sensor}, "
                f"but its views are planned for {read.shape[0]}x{read.shape[1]}. Resample all sensors and times of a "
                "place onto one grid."
            )
        try:
            return self.archive.view(read.sample, read.sensor, read.bands, read.window)
        except SampleError as error:
            raise SampleError(f"Sample {self.archive.ids[read.sample]!s}, sensor {read.sensor}: {error}") from error


class _OtherTypeError(Exception):
    """A sample is stored in another type than those of its sensor before."""

    def __init__(self, sensor: str) -> None:
        super().__init__(sensor)
        self.sensor = sensor


def _aligned(end: int) -> int:
    return -(-end // _ALIGNED) * _ALIGNED
