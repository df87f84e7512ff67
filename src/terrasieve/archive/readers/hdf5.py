"""A reader of HDF5 files that hold many patches in one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.byte_limits import check_array_bytes
from terrasieve.archive.readers.handles import Handles
from terrasieve.archive.readers.patch_reader import split_item_address
from terrasieve.errors import ArchiveError
from terrasieve.sensors import Sensor

_OPEN_FILES = 8
# The last where a link is of a kind that h5py does not know.
_FAILURES = (OSError, KeyError, ValueError, RuntimeError, TypeError, MemoryError, SystemError)


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
            array = opened[self._array]
            # Before anything is read: what is read has the array's own number of bands.
            check_array(path, self._array, array.shape, (*self.size, len(self.sensor.bands)))
            _check_room(path, self._array, array, (height, width, len(self.sensor.bands)))
            pixels = array[number, top : top + height, left : left + width]
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
        found = opened[array]
        _check_room(path, array, found, found.shape)
        return np.asarray(found[()])


def _check_room(path: Path, name: str, array: Any, wanted: Sequence[int]) -> None:
    """Refuse what would take too much memory, from what the array declares: the part wanted, and each chunk of it."""
    if array.dtype.kind not in "biufc":
        raise FlawError(
            Problem.UNREADABLE,
            f"{path} holds {array.dtype} in {name!r}, which are no numbers; it is another product. Fetch it again.",
        )
    for shape in (wanted, array.chunks or ()):
        check_array_bytes(f"{path}, array {name!r},", shape, array.dtype.itemsize)


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


def refuse_indirection(opened: Any, path: Path) -> None:
    """Refuse an HDF5 file that would have other files read: by external links, raw storage or virtual data sets.

    Args:
        opened: The file as h5py opened it; no link of another file is followed and no value is read.
        path: The file, as the error names it.

    Raises:
        SampleError: It would, in whatever group.
    """
    h5py = require_h5py()
    links: dict[str, Any] = {}
    # Looked at afterwards: an error in a function that HDF5 calls becomes another one on its way.
    opened.visititems_links(links.__setitem__)
    for name, link in links.items():
        kind = None if isinstance(link, h5py.SoftLink) else "an external link"
        if isinstance(link, h5py.HardLink):
            found = opened[name]
            values = isinstance(found, h5py.Dataset)
            kind = "external raw storage" if values and found.external else None
            kind = "a virtual data set" if values and found.is_virtual else kind
        if kind is not None:
            raise FlawError(
                Problem.UNREADABLE,
                f"{path} has {kind} at {name!r}, by which other files would be read. Copy the values into the file, "
                "and do not trust it if it comes from elsewhere.",
            )


def _open(path: Path) -> Any:
    opened = require_h5py().File(path, "r")
    try:
        refuse_indirection(opened, path)
    except BaseException:
        opened.close()
        raise
    return opened


_open_files: Handles[Path, Any] = Handles(_open, _OPEN_FILES, _FAILURES)
