"""The chunks of a packed store as mapped files, from which threads read side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.packed.integrity import refuse_link
from terrasieve.archive.packed.store import chunk_path
from terrasieve.archive.protocol import Reader, Window, window_error
from terrasieve.errors import SampleError


class MappedChunks:
    """The chunk files of an uncompressed array, each mapped when it is first needed.

    Args:
        root: Folder of the store.
        key: The sensor, whose array lies in a folder of that name.
        chunk: Samples, bands, rows and columns of a file.
        dtype: Type of the pixels, with their byte order.
        samples: Samples of the array.

    Attributes:
        samples: Samples of a file.
        chunks: The files that are mapped so far, None for the others.
    """

    def __init__(self, root: Path, key: str, chunk: tuple[int, ...], dtype: np.dtype[Any], samples: int) -> None:
        self._root = root
        self._key = key
        self._count = samples
        self._chunk = chunk
        self._dtype = dtype
        self.samples = chunk[0]
        self.chunks: list[NDArray[Any] | None] = [None] * -(-samples // chunk[0])

    def reader(self, positions: Sequence[int], copied: bool = True) -> Reader:
        """A function that reads these bands of a sample, as a copy or as a part of the map.

        It checks what it is asked for, and does nothing that can be done before.
        """
        bands, chunks, count, per_chunk = _as_slice(positions), self.chunks, self._count, self.samples
        rows, columns = self._chunk[2:]

        def read(index: int, window: Window | None) -> NDArray[Any]:
            if not 0 <= index < count:
                raise IndexError(f"sample {index} of an archive of {count} samples")
            # Two threads may map one chunk at once, which costs a moment and harms nothing: both maps show the file.
            chunk = chunks[index // per_chunk]
            if chunk is None:
                chunk = self.map(index // per_chunk)
            if window is None:
                pixels = chunk[index % per_chunk, bands]
                return pixels.copy() if copied else pixels
            top, left, height, width = window
            bottom, right = top + height, left + width
            if top < 0 or left < 0 or height < 1 or width < 1 or bottom > rows or right > columns:
                raise window_error(window, rows, columns, f"sample {index}")
            pixels = chunk[index % per_chunk, bands, top:bottom, left:right]
            return pixels.copy() if copied else pixels

        return read

    def chunk(self, number: int) -> NDArray[Any]:
        """See ``PackedArchive.chunk``."""
        return self.map(number)[: self._count - number * self.samples]

    def map(self, number: int) -> NDArray[Any]:
        """The pixels of one chunk, shape ``(samples, bands, height, width)``."""
        path = self._root / chunk_path(self._key, number)
        expected = int(np.prod(self._chunk)) * self._dtype.itemsize
        try:
            refuse_link(path, self._root)
            found = path.stat().st_size
            if found != expected:
                raise SampleError(f"{path} has {found} bytes, its array needs {expected}. Pack the archive again.")
            mapped = np.memmap(path, self._dtype, "r", shape=self._chunk)
        except OSError as error:
            raise SampleError(f"{path} cannot be mapped: {error}. Pack the archive again.") from error
        # The base class: slicing np.memmap itself takes twice as long, for an attribute nobody asks for.
        chunk = self.chunks[number] = mapped.view(np.ndarray)
        return chunk


def _as_slice(positions: Sequence[int]) -> slice | NDArray[np.intp]:
    """The positions as a slice where they are evenly spaced, which numpy copies fastest."""
    # One band alone is evenly spaced, too.
    steps = set(np.diff(positions).tolist()) or {1}
    step = steps.pop()
    if steps or step == 0:
        return np.array(positions, dtype=np.intp)
    # Backwards to position 0 there is no stop that a slice could name: -1 would mean the last.
    stop = positions[-1] + (1 if step > 0 else -1)
    return slice(positions[0], None if stop < 0 else stop, step)
