"""The state of what an archive is read from, by which results that are kept are told from those of files changed since.

A file that was processed again in place has the name it had, and often the size: its time of change tells.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive
from terrasieve.processes.parallel import map_threads


def files_state(archive: Archive, indices: NDArray[np.int64] | None = None) -> str:
    """A digest of the path, size and time of change of every local file that samples are read from.

    Args:
        archive: Archive whose files are looked at, and not opened.
        indices: Samples whose files count; all when None.
    """
    wanted = np.arange(len(archive)) if indices is None else np.asarray(indices, dtype=np.int64)
    return paths_state(archive.files(wanted))


def paths_state(paths: Iterable[str]) -> str:
    """A digest of the path, size and time of change of files, in any order.

    Args:
        paths: Names of local files, which may repeat; what is none, or absent, counts by its name.
    """
    ordered = sorted(set(paths))
    state = hashlib.blake2b(digest_size=16)
    for path, said in zip(ordered, map_threads(_state, ordered, "Files"), strict=True):
        state.update(b"%s\0%s\0" % (os.fsencode(path), said))
    return state.hexdigest()


def source_state(archive: Archive, table: pa.Table, indices: NDArray[np.int64] | None = None) -> str:
    """A digest of all that a result depends on beside names and options: the files of the samples, and their table.

    The table stands for the lists, JSON and annotations that labels, splits, times and places are read from.

    Args:
        archive: Archive whose files are looked at, and not opened.
        table: The archive's table.
        indices: Samples that the result depends on, shape ``(n,)``; all when None.
    """
    table = table if indices is None else table.take(pa.array(indices))
    state = hashlib.blake2b(files_state(archive, indices).encode(), digest_size=16)
    with pa.ipc.new_stream(_Hashed(state), table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return state.hexdigest()


class _Hashed:
    """A file for Arrow to write to of which no more is kept than a digest."""

    closed = False

    def __init__(self, state: hashlib.blake2b) -> None:
        self._state = state

    def write(self, data: bytes) -> int:
        self._state.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """There is nothing to close."""


def _state(path: str) -> bytes:
    try:
        found = os.stat(path)
    except OSError:
        return b"absent"  # or no local file, whose place is all that is known of it
    return b"%d %d" % (found.st_size, found.st_mtime_ns)
