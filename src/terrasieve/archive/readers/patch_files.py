"""Readers of patches: a GeoTIFF with all bands, a GeoTIFF for each band, and 8-bit pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from terrasieve.archive.patches.listing import PatchReader
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.band_validation import check_bands
from terrasieve.archive.readers.geotiff import Header, cut, read_grid, read_header, read_resampled, read_window
from terrasieve.sensors import Sensor

_PICTURE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class StackReader:
    """One GeoTIFF a patch, with all bands in the sensor's order.

    Args:
        root: What addresses are relative to.
        sensor: What the files hold.
        size: Height and width that every patch has; each file's own when None.
        in_file: What the file's bands are, where the sensor shows only some of them.
    """

    def __init__(
        self, root: Path, sensor: Sensor, size: tuple[int, int] | None = None, in_file: Sensor | None = None
    ) -> None:
        self.root, self.sensor, self.size = root, sensor, size
        self._in_file = in_file or sensor
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
        return read_window(self.root / address, wanted, window or Window(0, 0, height, width))

    def header(self, address: str) -> Header:
        """The file's header."""
        return read_header(self.root / address)

    def _checked(self, address: str) -> tuple[int, int]:
        """Height and width of a file, whose bands and size are looked at once."""
        if address not in self._shapes:
            header = self.header(address)
            check_bands(header, self._in_file)
            check_size(header.path, (header.height, header.width), self.size)
            self._shapes[address] = (header.height, header.width)
        return self._shapes[address]


class BandsReader:
    """One GeoTIFF for each band, on the grid of the finest; coarser bands are resampled to it (bilinear).

    A band of another size than its resolution gives is refused.

    Args:
        root: What addresses are relative to.
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
        paths = [self.root / self._file(address, self.sensor.names[position]) for position in positions]
        for position, path in zip(positions, paths, strict=True):
            grid = read_grid(path)
            check_size(path, (grid.height, grid.width), self._sizes[position])
        pixels = [cut(read_resampled(path, *self.size), window) for path in paths]
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


class PictureReader:
    """One 8-bit RGB picture a patch (JPEG, PNG or TIFF), which has to be decoded whole.

    Args:
        root: What addresses are relative to.
        sensor: Three bands.
        size: Height and width that every picture has; each file's own when None.
    """

    def __init__(self, root: Path, sensor: Sensor, size: tuple[int, int] | None = None) -> None:
        self.root, self.sensor, self.size = root, sensor, size

    def files(self, address: str) -> tuple[Path, ...]:
        """The one file."""
        return (self.root / address,)

    def shape(self, address: str) -> tuple[int, int]:
        """The size that all have, or else what the file says."""
        if self.size is not None:
            return self.size
        path = self.root / address
        try:
            with Image.open(path) as image:
                return (image.height, image.width)
        except _PICTURE_ERRORS as error:
            raise _undecodable(path, error) from error

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor; see ``PatchReader.read``."""
        path = self.root / address
        pixels = decode(path, len(self.sensor.bands), self.size)
        return cut(pixels, window)[list(positions)]

    def header(self, address: str) -> None:
        """Pictures do not say where they lie."""


def decode(path: Path, count: int, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Pixels of a picture, shape ``(count, height, width)``.

    Args:
        path: The file.
        count: Bands that it has to have.
        size: Height and width that it has to have; its own when None.

    Raises:
        SampleError: It cannot be decoded, is not of 8 bits, or has another size or number of bands.
    """
    try:
        with Image.open(path) as image:
            check_size(path, (image.height, image.width), size)
            pixels = np.asarray(image)
    except _PICTURE_ERRORS as error:
        raise _undecodable(path, error) from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] != count or pixels.dtype != np.uint8:
        raise FlawError(
            Problem.BANDS,
            f"{path} has shape {pixels.shape} and type {pixels.dtype}, not {count} band(s) of uint8; "
            "it is no such picture. Export it again, or remove it.",
        )
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


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


def _undecodable(path: Path, error: Exception) -> FlawError:
    return FlawError(Problem.UNREADABLE, f"{path} cannot be decoded: {error}. Fetch the file again, or remove it.")


# --------------------------------------------------------------- suffix reader
# A reader of patches whose files are of several formats, told apart by their suffix.

# GDAL reads PNG of 8 and of 16 bits; JPEG is decoded by Pillow, as in every other layout.
_READERS: Mapping[str, type[StackReader] | type[PictureReader]] = {
    ".tif": StackReader,
    ".tiff": StackReader,
    ".png": StackReader,
    ".jpg": PictureReader,
    ".jpeg": PictureReader,
}
SUFFIXES = tuple(_READERS)


class SuffixReader:
    """One file a patch, GeoTIFF, TIFF, PNG or JPEG, with all bands in the sensor's order.

    Args:
        root: What addresses are relative to.
        sensor: What the files hold.
    """

    def __init__(self, root: Path, sensor: Sensor) -> None:
        self.root, self.sensor = root, sensor
        self._readers: dict[str, PatchReader] = {suffix: reader(root, sensor) for suffix, reader in _READERS.items()}

    def files(self, address: str) -> Sequence[Path]:
        """The one file."""
        return self._of(address).files(address)

    def shape(self, address: str) -> tuple[int, int]:
        """What the file says."""
        return self._of(address).shape(address)

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor; see ``PatchReader.read``."""
        return self._of(address).read(address, positions, window)

    def header(self, address: str) -> Header | None:
        """The file's header, None for JPEG."""
        return self._of(address).header(address)

    def _of(self, address: str) -> PatchReader:
        return self._readers[Path(address).suffix.lower()]
