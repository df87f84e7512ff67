"""Tortilla files, which hold other files one after the other and a Parquet table of where each lies.

A header of 200 bytes says where the table is: two letters, then its offset and its length as little-endian integers of
8 bytes. The table names each file (``tortilla:id``), its format as GDAL calls it, its offset and its length; a file may
be a tortilla itself, whose offsets count from its own first byte. The form is that of the first TACO specification
(github.com/tacofoundation), which tacoreader 0.5 reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.byte_limits import check_array_bytes
from terrasieve.archive.readers.gdal import open_blob
from terrasieve.archive.readers.geotiff import Header, header_of, read_raster, validate_bands
from terrasieve.archive.readers.handles import reading
from terrasieve.archive.readers.meaning import meanings
from terrasieve.archive.readers.parquet import FAILURES, read_table
from terrasieve.archive.readers.patch_reader import check_size, item_address, split_item_address
from terrasieve.sensors import Sensor

_MAGIC = (b"#y", b"WX")
"""What a tortilla begins with; the second, a TACO, has a description of the whole besides."""
_HEADER = 18
"""Bytes of the header that are needed: two letters and two numbers."""
NAME, FORMAT, OFFSET, LENGTH = "tortilla:id", "tortilla:file_format", "tortilla:offset", "tortilla:length"
_NEEDED = (NAME, FORMAT, OFFSET, LENGTH)


class Extent(NamedTuple):
    """A part of a file.

    Attributes:
        start: Its first byte, from 0.
        length: Number of its bytes.
    """

    start: int
    length: int

    def part(self, offset: Any, length: Any, name: str) -> Extent:
        """A part of this part, which has to lie within.

        Args:
            offset: Its first byte, counted from that of this part.
            length: Number of its bytes.
            name: What it is, for the message.

        Raises:
            SampleError: It does not, or these are no numbers.
        """
        whole = isinstance(offset, int) and isinstance(length, int)
        if not whole or offset < 0 or length < 0 or offset + length > self.length:
            raise FlawError(
                Problem.UNREADABLE,
                f"{name} is said to be {length} bytes long from byte {offset} of {self.length:,}, which is damaged. "
                "Fetch the file again, or remove it.",
            )
        return Extent(self.start + offset, length)


def read_footer(path: Path, columns: Sequence[str] = (), within: Extent | None = None) -> pa.Table:
    """The table of what a tortilla holds.

    Args:
        path: The file.
        columns: Names of the columns that are wanted beside the four that every tortilla has; those that it lacks are
            absent from what is returned.
        within: The part of the file that is a tortilla; all of it when None.

    Raises:
        SampleError: The file is absent or damaged, or no tortilla.
    """
    with reading(path, FAILURES), path.open("rb") as file:
        return _footer(file, path, columns, within or Extent(0, os.fstat(file.fileno()).st_size))


def _footer(file: BinaryIO, path: Path, columns: Sequence[str], within: Extent) -> pa.Table:
    header = _bytes(file, within.part(0, _HEADER, f"The header of {path}"), str(path))
    if header[:2] not in _MAGIC:
        raise FlawError(
            Problem.UNREADABLE, f"{path} is no tortilla: it begins with {header[:2]!r}. Fetch it again, or remove it."
        )
    offset, length = (int.from_bytes(header[at : at + 8], "little") for at in (2, 10))
    table = read_table(_bytes(file, within.part(offset, length, f"The table of {path}"), f"The table of {path}"))
    if lacking := [name for name in _NEEDED if name not in table.column_names]:
        raise FlawError(Problem.UNREADABLE, f"The table of {path} has no column {lacking[0]!r}. Fetch the file again.")
    return table.select([*_NEEDED, *(name for name in columns if name in table.column_names)])


def _bytes(file: BinaryIO, extent: Extent, name: str) -> bytes:
    check_array_bytes(name, (extent.length,), 1)
    file.seek(extent.start)
    found = file.read(extent.length)
    if len(found) < extent.length:
        raise FlawError(Problem.UNREADABLE, f"{name} ends before its {extent.length:,} bytes. Fetch the file again.")
    return found


def sample_address(file: str, extent: Extent, size: tuple[int, int]) -> str:
    """The address of a sample that is a tortilla within another, as :class:`TortillaReader` takes it.

    Args:
        file: Path relative to the root.
        extent: The part of it that is the sample.
        size: Height and width of its rasters.
    """
    return item_address(file, *extent, *size)


class TortillaReader:
    """One raster of each sample, found in the sample's own tortilla by its name; only GeoTIFF is read.

    An address is a file, the part of it that is the sample, and the height and width that the rasters must have.

    Args:
        root: Folder that addresses are relative to.
        sensor: The bands that are shown, in the order that pixels are given in.
        item: Name of the raster within a sample, such as ``s2``.
        place: Name of the raster whose header says where the sample lies.
        in_file: What the raster's bands are, where the sensor shows only some of them.
        highest: Largest value that is kept: what is above becomes it; None keeps all.
    """

    def __init__(
        self,
        root: Path,
        sensor: Sensor,
        item: str,
        place: str,
        in_file: Sensor | None = None,
        highest: int | None = None,
    ) -> None:
        self.root, self.sensor = root, sensor
        self._item, self._place, self._in_file, self._highest = item, place, in_file or sensor, highest
        # A sample's own table takes longer to read than most windows of its pixels.
        self._found: dict[tuple[str, str], Extent] = {}

    def files(self, address: str) -> tuple[Path, ...]:
        """The one file."""
        return (self.root / split_item_address(address)[0],)

    def shape(self, address: str) -> tuple[int, int]:
        """What the table of samples says, which is checked when pixels are read."""
        _, (*_, height, width) = split_item_address(address)
        return (height, width)

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor; see ``PatchReader.read``."""
        blob, where = self._blob(address, self._item)
        wanted = self._in_file.indices([self.sensor.names[position] for position in positions])
        part = None if window is None else RasterWindow(window.left, window.top, window.width, window.height)
        with reading(where, FAILURES), open_blob(blob, where) as raster:
            validate_bands(header_of(raster.dataset, Path(where), len(blob)), self._in_file)
            check_size(Path(where), raster.dataset.shape, self.shape(address))
            pixels = read_raster(raster, where, wanted, meanings(self._in_file, wanted), part)
        return pixels if self._highest is None else np.minimum(pixels, np.asarray(self._highest, pixels.dtype))

    def header(self, address: str) -> Header:
        """Where a sample lies."""
        blob, where = self._blob(address, self._place)
        with reading(where, FAILURES), open_blob(blob, where) as raster:
            return header_of(raster.dataset, self.files(address)[0], len(blob))

    def _blob(self, address: str, item: str) -> tuple[bytes, str]:
        """The bytes of a raster of a sample, and what messages call it."""
        file, (start, length, *_) = split_item_address(address)
        path = self.root / file
        where = f"{path}, {item} of the sample at byte {start}"
        with reading(where, FAILURES), path.open("rb") as opened:
            if (address, item) not in self._found:
                whole = Extent(0, os.fstat(opened.fileno()).st_size)
                sample = whole.part(start, length, f"The sample at byte {start} of {path}")
                self._found[address, item] = _locate(_footer(opened, path, (), sample), sample, item, where)
            return _bytes(opened, self._found[address, item], where), where


def _locate(table: pa.Table, sample: Extent, item: str, where: str) -> Extent:
    rows = [row for row in table.to_pylist() if row[NAME] == item]
    if len(rows) != 1:
        there = ", ".join(str(name) for name in table[NAME].to_pylist())
        raise FlawError(Problem.BANDS, f"{where} is there {len(rows)} times, not once; there are {there or 'none'}.")
    if rows[0][FORMAT] != "GTiff":
        raise FlawError(Problem.UNREADABLE, f"{where} is of the format {rows[0][FORMAT]!r}; only GTiff is read.")
    return sample.part(rows[0][OFFSET], rows[0][LENGTH], where)
