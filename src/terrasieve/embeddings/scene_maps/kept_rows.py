"""A map that is computed once and gone through several times: its rows, in a file that goes when they do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from terrasieve.embeddings.scene_maps.dense_map import BLOCK_ROWS


class VectorRows(Protocol):
    """What has vectors row by row."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and length of vectors."""

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Vectors ``(n, columns, features)`` from the first row on, NaN where there is none."""


class KeptRows:
    """The rows of a map in an open file, a block of which is in memory at a time.

    Args:
        file: Holds them as float32.
        shape: Rows, columns and length of vectors.
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, int, int]) -> None:
        self._file, self.shape = file, shape

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """See :class:`VectorRows`."""
        self._file.seek(0)
        height, *rest = self.shape
        for start in range(0, height, BLOCK_ROWS):
            block = np.empty((min(BLOCK_ROWS, height - start), *rest), np.float32)
            self._file.readinto(block.data.cast("B"))  # type: ignore[attr-defined]  # of a raw file alone
            yield block


@contextmanager
def keep_rows(rows: VectorRows, folder: Path) -> Iterator[KeptRows]:
    """Compute a map and keep it until the block ends.

    Args:
        rows: The map.
        folder: Where the file lies, on the disk that what is made of it goes to; the system removes it by itself.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        for block in rows.blocks():
            file.write(np.ascontiguousarray(block).data)
        yield KeptRows(file, rows.shape)
