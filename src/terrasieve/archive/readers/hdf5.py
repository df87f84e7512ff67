"""A reader of HDF5 files that hold many patches in one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.handles import Handles
from terrasieve.archive.readers.patch_reader import split_item_address
from terrasieve.errors import ArchiveError
from terrasieve.sensors import Sensor

_OPEN_FILES = 8
_FAILURES = (OSError, KeyError, ValueError, RuntimeError, TypeError)


class Hdf5Reader:
    """An array ``(patch, height, width, band)`` of HDF5 files; an address is a file and a patch's number in it.

    Args:
        root: Folder that addresses are relative to.
        sensor: The bands, in the order of the array's last axis.
        array: The array's name in the files.
        size: Height and width of the patches.

    Raises:
        ArchiveError: h5py is not installed.
    """

    def __init__(self, root: Path, sensor: Sensor, array: str, size: tuple[int, int]) -> None:
        require_h5py()
        self.root, self.sensor, self.size = root, sensor, size
        self._array = array

    def files(self, address: str) -> tuple[Path, ...]:
        """The one file."""
        return (self.root / split_item_address(address)[0],)

    def shape(self, address: str) -> tuple[int, int]:
        """The size that all have."""
        return self.size

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor; see ``PatchReader.read``."""
        file, (number,) = split_item_address(address)
        path = self.root / file
        top, left, height, width = window or Window(0, 0, *self.size)
        with _open_files.reading(path) as opened:
            pixels = opened[self._array][number, top : top + height, left : left + width]
        check_array(path, self._array, (1, *pixels.shape), (height, width, len(self.sensor.bands)))
        return np.ascontiguousarray(pixels[..., list(positions)].transpose(2, 0, 1))

    def header(self, address: str) -> None:
        """The files do not say where a patch lies."""


def shape_of(path: Path, array: str) -> tuple[int, ...] | None:
    """Shape of an array of an HDF5 file, None where the file has none of that name.

    Raises:
        SampleError: The file cannot be read.
    """
    with _open_files.reading(path) as opened:
        found = opened.get(array)
        return None if found is None else tuple(found.shape)


def values_of(path: Path, array: str) -> NDArray[Any]:
    """A whole array of an HDF5 file, such as labels.

    Raises:
        SampleError: The file cannot be read, or has no such array.
    """
    with _open_files.reading(path) as opened:
        return np.asarray(opened[array][()])


def check_array(path: Path, array: str, found: Sequence[int], wanted: Sequence[int]) -> None:
    """Refuse an array whose dimensions after the first are not those wanted.

    Raises:
        SampleError: They are not.
    """
    if tuple(found[1:]) != tuple(wanted):
        raise FlawError(
            Problem.BANDS,
            f"{path} has patches of shape {tuple(found[1:])} in {array!r}, not {tuple(wanted)} (height, width, bands); "
            "it is another product. Fetch the file again.",
        )


def require_h5py() -> Any:
    """The module h5py.

    Raises:
        ArchiveError: It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ArchiveError("HDF5 files are read with h5py: pip install 'terrasieve[hdf5]'.") from error
    return h5py


def _open(path: Path) -> Any:
    return require_h5py().File(path, "r")


_open_files: Handles[Path, Any] = Handles(_open, _OPEN_FILES, _FAILURES)
