"""Readers of ready-cut patches: what one is, what those of several formats share, and the two of GeoTIFF files.

A layout gives each sensor a reader. Those of other formats are modules beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.geotiff import (
    Header,
    cut,
    read_grid,
    read_header,
    read_resampled,
    read_window,
    validate_bands,
)
from terrasieve.archive.readers.meaning import meanings
from terrasieve.sensors import Sensor


class PatchReader(Protocol):
    """Reads the pixels of one sensor.

    An address is what the listing says of one patch: usually a path below the root. Implementations are cheap to
    pickle and safe in forked workers: they keep paths, never handles.
    """

    @property
    def sensor(self) -> Sensor:
        """What the pixels are."""

    def files(self, address: str) -> Sequence[Path]:
        """The files that hold a patch, the one that stands for it first."""

    def shape(self, address: str) -> tuple[int, int]:
        """Height and width of a patch."""

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Pixels of some bands of a patch.

        Args:
            address: What the listing says of the patch.
            positions: Of the bands in the sensor, from 0.
            window: The part wanted, within :meth:`shape`; all of the patch when None.

        Returns:
            Array of shape ``(len(positions), height, width)``.

        Raises:
            SampleError: The pixels cannot be read, or are not those of the sensor.
        """

    def header(self, address: str) -> Header | None:
        """What says where a patch lies; None where its files do not.

        Raises:
            SampleError: The file is absent, truncated or not a raster.
        """


def item_address(file: str, *place: int) -> str:
    """The address of a patch in a file that holds many, such as ``training.h5#17``.

    Args:
        file: Path relative to the root.
        place: Position of the patch in the file, counted from 0, the outermost dimension first.
    """
    return f"{file}#{','.join(map(str, place))}"


def split_item_address(address: str) -> tuple[str, tuple[int, ...]]:
    """The file and the position in it that :func:`item_address` put together."""
    file, _, place = address.rpartition("#")
    return file, tuple(int(number) for number in place.split(","))


def native_sizes(sensor: Sensor, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of each band of a patch at its own resolution, from those of the finest bands."""
    finest = min(band.gsd for band in sensor.bands)
    return [(round(size[0] * finest / band.gsd), round(size[1] * finest / band.gsd)) for band in sensor.bands]


def check_size(path: Path, found: tuple[int, int], wanted: tuple[int, int] | None) -> None:
    """Refuse a patch of another size than all of its layout have.

    Raises:
        SampleError: It has.
    """
    if wanted is not None and found != wanted:
        raise FlawError(
            Problem.GRID,
            f"{path} is {found[0]}x{found[1]} px, patches of this layout are {wanted[0]}x{wanted[1]}; remove it.",
        )


# -------------------------------------------------------------------- GeoTIFF


class StackReader:
    """One GeoTIFF a patch, with all bands in the sensor's order.

    Args:
        root: Folder that addresses are relative to.
        sensor: The bands, in the order that pixels are given in.
        size: Height and width that every patch has; each file's own when None.
        in_file: What the file's bands are, where the sensor shows only some of them.
    """

    def __init__(
        self, root: Path, sensor: Sensor, size: tuple[int, int] | None = None, in_file: Sensor | None = None
    ) -> None:
        self.root, self.sensor, self.size = root, sensor, size
        self._in_file = in_file or sensor
        # Of files whose bands were checked, so that a header is read once and not before every window.
        self._shapes: dict[str, tuple[int, int]] = {}

    def files(self, address: str) -> tuple[Path, ...]:
        """The one file."""
        return (self.root / address,)

    def shape(self, address: str) -> tuple[int, int]:
        """The size that all have, or else what the file says."""
        return self.size or self._checked(address)

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor; see ``PatchReader.read``."""
        height, width = self._checked(address)
        wanted = self._in_file.indices([self.sensor.names[position] for position in positions])
        place = window or Window(0, 0, height, width)
        return read_window(self.root / address, wanted, place, meanings(self._in_file, wanted))

    def header(self, address: str) -> Header:
        """The file's header."""
        return read_header(self.root / address)

    def _checked(self, address: str) -> tuple[int, int]:
        """Height and width of a file, whose bands and size are checked at its first use."""
        if address not in self._shapes:
            header = self.header(address)
            validate_bands(header, self._in_file)
            check_size(header.path, (header.height, header.width), self.size)
            self._shapes[address] = (header.height, header.width)
        return self._shapes[address]


class BandsReader:
    """One GeoTIFF for each band, on the grid of the finest; coarser bands are resampled to it (bilinear).

    A band of another size than its resolution gives is refused.

    Args:
        root: Folder that addresses are relative to.
        sensor: The bands, in the order that pixels are given in.
        file: Path of a band's file relative to the root, from an address and the band's name.
        size: Height and width of the finest bands.
    """

    def __init__(self, root: Path, sensor: Sensor, file: Callable[[str, str], str], size: tuple[int, int]) -> None:
        self.root, self.sensor, self.size = root, sensor, size
        self._file = file
        self._finest = min(sensor.bands, key=lambda band: band.gsd).name
        self._sizes = native_sizes(sensor, size)

    def files(self, address: str) -> tuple[Path, ...]:
        """The file of each band, one of the finest first."""
        others = [name for name in self.sensor.names if name != self._finest]
        return tuple(self.root / self._file(address, name) for name in (self._finest, *others))

    def shape(self, address: str) -> tuple[int, int]:
        """The size of the finest bands."""
        return self.size

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor; see ``PatchReader.read``."""
        # Sizes of all files first: a band of another grid is refused before any pixel is resampled.
        paths = [self.root / self._file(address, self.sensor.names[position]) for position in positions]
        for position, path in zip(positions, paths, strict=True):
            grid = read_grid(path)
            check_size(path, (grid.height, grid.width), self._sizes[position])
        pixels = [
            cut(read_resampled(path, *self.size, wanted), window)
            for path, wanted in zip(paths, meanings(self.sensor, positions, count=1), strict=True)
        ]
        kinds = {one.dtype for one in pixels}
        if len(kinds) > 1:
            raise FlawError(
                Problem.BANDS,
                f"{paths[0].parent} holds bands of the types {', '.join(sorted(map(str, kinds)))}; export them alike.",
            )
        return np.stack(pixels)

    def header(self, address: str) -> Header:
        """The header of a finest band."""
        return read_header(self.files(address)[0])
