"""A reader of patches whose files are of several formats, told apart by their suffix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from terrasieve.archive.patch_readers import PictureReader, StackReader
from terrasieve.archive.patches import PatchReader
from terrasieve.archive.protocol import Window
from terrasieve.archive.raster import Header
from terrasieve.sensors import Sensor

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
