"""Readers of patches that are pictures, and of patches whose files are of several formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.byte_limits import check_bytes
from terrasieve.archive.readers.geotiff import Header, cut
from terrasieve.archive.readers.handles import reading
from terrasieve.archive.readers.patch_reader import PatchReader, StackReader, check_size
from terrasieve.sensors import Sensor

_FAILURES = (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError)
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}
"""What a picture may be, by its suffix. Pillow would go by the content alone, and start Ghostscript for PostScript."""


class PictureReader:
    """One 8-bit RGB picture a patch (JPEG, PNG or TIFF), which has to be decoded whole.

    Args:
        root: Folder that addresses are relative to.
        sensor: Three bands of 8 bits, red, green and blue.
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
        with _opened(self.root / address) as image:
            return (image.height, image.width)

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
        path: The picture: JPEG, PNG or TIFF, as its suffix says.
        count: Bands that it has to have.
        size: Height and width that it has to have; its own when None.

    Raises:
        SampleError: The picture cannot be read, is not what its suffix says, is not of 8 bits, is too large, or has
            another size or number of bands.
    """
    with _opened(path) as image:
        check_size(path, (image.height, image.width), size)
        check_bytes(str(path), len(image.getbands()), image.height, image.width)
        pixels = np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] != count or pixels.dtype != np.uint8:
        raise FlawError(
            Problem.BANDS,
            f"{path} has shape {pixels.shape} and type {pixels.dtype}, not {count} band(s) of uint8; "
            "it is no such picture. Export it again, or remove it.",
        )
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise FlawError(Problem.UNREADABLE, f"{path} is none of {', '.join(_FORMATS)}. Convert it.")
    with reading(path, _FAILURES), Image.open(path, formats=(kind,)) as image:
        yield image


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
        root: Folder that addresses are relative to.
        sensor: The bands, in the order that the files have them.
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
