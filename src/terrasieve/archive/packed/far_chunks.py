"""The chunks of a packed store that is far away: whole ones from a cache, or the samples that are asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.packed.chunk_cache import ChunkCache
from terrasieve.archive.packed.integrity import digest_bytes
from terrasieve.archive.packed.mapped import MappedChunks
from terrasieve.archive.packed.store import chunk_path
from terrasieve.archive.protocol import Reader, Window, window_error
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.files.object_store import ObjectFolder

_DIGEST = re.compile(r"[0-9a-f]{32}")


class CachedChunks(MappedChunks):
    """The chunks of a sensor's array, each fetched whole, compared with its digest and mapped from the cache.

    Args:
        root: Address of the store.
        key: The sensor.
        chunk: Samples, bands, rows and columns of a chunk.
        dtype: Type of the pixels, with their byte order.
        digests: Of the pixels of each chunk, in order.
        samples: Samples of the array.
        cache: Where chunks are kept.
        fetch: Gives the pixels of a chunk by its number.

    Raises:
        ArchiveError: The digests are no digests, or not one of each chunk.
    """

    def __init__(
        self,
        root: str,
        key: str,
        chunk: tuple[int, ...],
        dtype: np.dtype[Any],
        samples: int,
        digests: Sequence[str],
        cache: ChunkCache,
        fetch: Callable[[int], NDArray[Any]],
    ) -> None:
        super().__init__(cache.folder, key, chunk, dtype, samples)
        # Each becomes the name of a file, and the store is anybody's.
        if len(digests) != len(self.chunks) or not all(_DIGEST.fullmatch(one) for one in digests):
            raise ArchiveError(f"{root} states no digest of each chunk of {key!r}. Copy or pack the store again.")
        self._address = f"{root}/{key}"
        self._digests = digests
        self._cache = cache
        self._fetch = fetch

    def reader(self, positions: Sequence[int], copied: bool = True) -> Reader:
        """See ``MappedChunks.reader``; a chunk that is read counts as used now; one that is gone is fetched anew."""
        within, chunks, per_chunk = super().reader(positions, copied), self.chunks, self.samples

        def read(index: int, window: Window | None) -> NDArray[Any]:
            number = index // per_chunk
            if index >= 0 and number < len(chunks) and not self._cache.touch(self._digests[number]):
                chunks[number] = None
            return within(index, window)

        return read

    def map(self, number: int) -> NDArray[Any]:
        """See ``MappedChunks.map``; the last chunk ends with the last sample."""
        # Maps of files that are gone would keep their place on the disk.
        for at, digest in enumerate(self._digests):
            if self.chunks[at] is not None and not self._cache.path(digest).exists():
                self.chunks[at] = None
        count = min(self.samples, self._count - number * self.samples)
        shape = (count, *self._chunk[1:])

        def fetch() -> NDArray[Any]:
            pixels = np.ascontiguousarray(self._fetch(number), self._dtype)
            if pixels.shape != shape or digest_bytes(pixels.data) != self._digests[number]:
                raise SampleError(
                    f"{self._address}, chunk {number}, is not what was packed. Look at the store with `terrasieve "
                    "verify`, and copy or pack it again."
                )
            return pixels

        chunk = self.chunks[number] = self._cache.map(self._digests[number], shape, self._dtype, fetch)
        return chunk


class RangedChunks:
    """The plain chunks of a sensor's array, of which each read fetches the bands of its sample in one request.

    Args:
        root: Address of the store.
        key: The sensor.
        chunk: Samples, bands, rows and columns of a chunk.
        dtype: Type of the pixels, with their byte order.
        samples: Samples of the array.
    """

    def __init__(self, root: str, key: str, chunk: tuple[int, ...], dtype: np.dtype[Any], samples: int) -> None:
        self._folder = ObjectFolder(root)
        self._key = key
        self._chunk = chunk
        self._dtype = dtype
        self._count = samples

    def reader(self, positions: Sequence[int]) -> Reader:
        """A function that reads these bands of a sample."""
        first, last = min(positions), max(positions)
        chosen = np.array(positions) - first

        def read(index: int, window: Window | None) -> NDArray[Any]:
            rows, columns = self._chunk[2:]
            pixels: NDArray[Any] = self._fetch(index, 1, first, last - first + 1)[0, chosen]
            if window is None:
                return pixels
            top, left, height, width = window
            if top < 0 or left < 0 or height < 1 or width < 1 or top + height > rows or left + width > columns:
                raise window_error(window, rows, columns, f"sample {index}")
            return pixels[:, top : top + height, left : left + width].copy()

        return read

    def chunk(self, number: int) -> NDArray[Any]:
        """See ``PackedArchive.chunk``."""
        start = number * self._chunk[0]
        return self._fetch(start, min(self._chunk[0], self._count - start), 0, self._chunk[1])

    def _fetch(self, index: int, samples: int, band: int, bands: int) -> NDArray[Any]:
        """Whole bands of samples that follow each other in one chunk: some of one, or all of several."""
        if not 0 <= index < self._count:
            raise IndexError(f"sample {index} of an archive of {self._count} samples")
        number, within = divmod(index, self._chunk[0])
        name = chunk_path(self._key, number)
        plane = math.prod(self._chunk[2:]) * self._dtype.itemsize
        length = samples * bands * plane
        content = self._folder.read(name, (within * self._chunk[1] + band) * plane, length)
        if content is None or len(content) != length:
            state = "is not there" if content is None else "is too short"
            raise SampleError(f"{self._folder.address}/{name} {state}. Copy or pack the store again.")
        pixels: NDArray[Any] = np.frombuffer(content, self._dtype).reshape(samples, bands, *self._chunk[2:])
        return pixels
