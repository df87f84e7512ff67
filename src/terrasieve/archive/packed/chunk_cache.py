"""Chunks of stores that are far away, kept on a local disk up to a bound, for any number of processes at once.

A chunk is a file named by the digest of its pixels, as a store's manifest has it: the same pixels are kept once, those
of a store that was packed anew are others, and what came over the net is compared with its name before it is kept.
"""

from __future__ import annotations

import fcntl
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ByteSize, TypeAdapter, ValidationError

from terrasieve.errors import ConfigError
from terrasieve.files.writing import clear_partials_within, refused_write, write_whole

_LOCK = ".lock"
DEFAULT_SIZE = "20GB"
"""Of a cache, unless somebody says otherwise."""
_within: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
"""Threads of this process wait for each other here: locks of files are held by processes as a whole."""


class ChunkCache:
    """A folder of chunks, of which those used longest ago make room for others.

    A chunk is written whole or not at all, and only while its folder has room for it, so that neither a kill nor
    another process makes the folder larger than its bound. A file that is removed while a process still reads it keeps
    its place on the disk until that process comes to fetch another.

    Args:
        folder: Folder of the chunks, on a local disk; made where it is absent.
        size: Most bytes that chunks may take in it.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder.absolute()
        self.size = size

    @classmethod
    def of(cls, folder: Path, size: str = DEFAULT_SIZE) -> Self:
        """A cache of a size in words.

        Args:
            folder: See the class.
            size: Such as ``20GB`` or ``500 MiB``.

        Raises:
            ConfigError: It is no size.
        """
        try:
            return cls(folder, int(TypeAdapter(ByteSize).validate_python(size)))
        except ValidationError as error:
            raise ConfigError(f"--cache-size {size!r} is no size, such as {DEFAULT_SIZE} or 500MB.") from error

    def __reduce__(self) -> tuple[type[ChunkCache], tuple[Path, int]]:
        return type(self), (self.folder, self.size)

    def path(self, digest: str) -> Path:
        """Where the chunk of that digest is, or would be."""
        return self.folder / digest[:2] / digest

    def touch(self, digest: str) -> bool:
        """Note that a chunk is used; False where it is not there, or no longer."""
        try:
            _mark(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    def map(
        self, digest: str, shape: tuple[int, ...], dtype: np.dtype[Any], fetch: Callable[[], NDArray[Any]]
    ) -> NDArray[Any]:
        """The pixels of a chunk, mapped; fetched first where they are not there.

        Of several processes and threads that want the same chunk one fetches it.

        Args:
            digest: Of its pixels.
            shape: Of the chunk.
            dtype: Type of the pixels, with their byte order.
            fetch: Gives the pixels, which are of that digest.

        Raises:
            ConfigError: The chunk alone is larger than the bound.
            WriteError: The folder cannot be written to.
        """
        length = math.prod(shape) * dtype.itemsize
        if length > self.size:
            raise ConfigError(
                f"{self.folder} may hold {self.size / 1e6:,.1f} MB, and one chunk of the store is {length / 1e6:,.1f} "
                "MB. Allow more with --cache-size."
            )
        path = self.path(digest)
        if (found := _mapped(path, shape, dtype, length)) is not None:
            return found
        with self._turn(path.parent):
            # Whoever had the turn before may have fetched it.
            if (found := _mapped(path, shape, dtype, length)) is not None:
                return found
            pixels = np.ascontiguousarray(fetch(), dtype)
            with self._turn(self.folder):
                self._make_room(length)
                with write_whole(path) as partial:
                    partial.write_bytes(pixels.data)
                # Before anybody may remove it to make room for another.
                found = _mapped(path, shape, dtype, length)
        assert found is not None, "it was written while nobody else could remove it"
        return found

    def _make_room(self, length: int) -> None:
        """Remove the chunks that were used longest ago, until one of that length fits in."""
        # Only whoever has this turn writes: what else is unfinished was left by a kill.
        clear_partials_within(self.folder)
        chunks = []
        for path in self.folder.glob("??/*"):
            if path.name != _LOCK:
                with suppress(FileNotFoundError):
                    state = path.stat()
                    chunks.append((state.st_mtime_ns, state.st_size, path))
        taken = sum(size for _, size, _ in chunks)
        for _, size, path in sorted(chunks):
            if taken + length <= self.size:
                return
            path.unlink(missing_ok=True)
            taken -= size

    @contextmanager
    def _turn(self, folder: Path) -> Iterator[None]:
        """Let one thread of one process at a time work in a folder; the others wait."""
        file = folder / _LOCK
        with _within[file]:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise refused_write(file, error) from error
            try:
                # The system frees it when this process ends, however it ends.
                fcntl.lockf(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)


def _mark(path: Path) -> None:
    """Note that a file is used now. By itself the system notes moments some milliseconds apart as one."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], length: int) -> NDArray[Any] | None:
    """The pixels of a file, which is marked as used now; None where it is absent or not of that length."""
    try:
        _mark(path)
        if path.stat().st_size != length:
            return None
        return np.memmap(path, dtype, "r", shape=shape).view(np.ndarray)
    except FileNotFoundError:
        return None
