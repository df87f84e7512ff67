"""Files that stay open from one read to the next, and what is said where one cannot be read."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from terrasieve.archive.quality.limits import FlawError, Problem

DECODING_FAILURES: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    EOFError,
    MemoryError,
)
"""What zarr, HDF5 and the decoding of metadata may raise of damaged files."""


@contextmanager
def reading(what: Path | str, failures: tuple[type[Exception], ...]) -> Iterator[None]:
    """Name the file that cannot be read.

    Args:
        what: The file, or a part of it; or, as text, a name of GDAL's virtual file systems.
        failures: What opening and reading a damaged file of this kind may raise.

    Raises:
        SampleError: One of the failures was raised within.
    """
    try:
        yield
    except failures as error:
        cause = error.__cause__ or error  # of rasterio the cause says what happened, the error that something did
        text, advice = f"{what} cannot be read: {cause}.", "Fetch the file again, or remove it."
        if str(what).startswith("/vsi"):
            text = f"{str(what).removeprefix('/vsicurl/')} cannot be read: {str(cause).rstrip('.')}."
            advice = "Check the address and the connection, or try again later."
        raise FlawError(Problem.UNREADABLE, f"{text} {advice}") from error


class Closeable(Protocol):
    """Whatever is closed in the end."""

    def close(self) -> None:
        """Give the file back."""


K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Closeable)


def _state(path: object) -> tuple[int, ...] | None:
    """What changes when a local file, or the zip that one lies in, is written anew; None of what is none."""
    try:
        found = os.stat(path if isinstance(path, os.PathLike) else str(path))
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


class Handles(threading.local, Generic[K, T]):
    """The files of one kind that a thread holds open, least recently used closed first.

    A file that was written anew since it was opened is opened again: a handle would show what it held before.

    Handles of GDAL, HDF5, Parquet and zip files may be used neither by two threads at once nor, after a fork, by the
    child, which would share the position in the file with its parent.

    Args:
        opener: Opens a file by its path.
        limit: Number of files that a thread holds open.
        failures: What opening and reading a damaged file may raise.
    """

    def __init__(self, opener: Callable[[K], T], limit: int, failures: tuple[type[Exception], ...] = ()) -> None:
        self._opener = opener
        self._limit = limit
        self._failures = failures
        self._process = os.getpid()
        self._open: OrderedDict[K, tuple[T, tuple[int, ...] | None]] = OrderedDict()
        self._inherited: list[OrderedDict[K, tuple[T, tuple[int, ...] | None]]] = []

    def get(self, path: K) -> T:
        """The open file; whatever its opener raises."""
        self._forget_after_fork()
        state = _state(path)
        handle, known = self._open.pop(path, (None, None))
        if handle is not None and known != state:
            handle.close()
            handle = None
        if handle is None:
            handle = self._opener(path)
            while len(self._open) >= self._limit:
                self._open.popitem(last=False)[1][0].close()
        self._open[path] = (handle, state)
        return handle

    @contextmanager
    def reading(self, path: K) -> Iterator[T]:
        """The open file; it is closed where reading it fails.

        Raises:
            SampleError: The file cannot be read.
        """
        with reading(str(path), self._failures):
            try:
                yield self.get(path)
            except self._failures:
                self.drop(path)
                raise

    def drop(self, path: K) -> None:
        """Close a file that has failed, so that the next call opens it anew."""
        handle, _ = self._open.pop(path, (None, None))
        if handle is not None:
            handle.close()

    def _forget_after_fork(self) -> None:
        if self._process == os.getpid():
            return
        # Kept alive but unused: closing them here could wait for a lock that a thread of the parent held at the fork.
        self._inherited.append(self._open)
        self._open = OrderedDict()
        self._process = os.getpid()
