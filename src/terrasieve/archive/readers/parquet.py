"""A reader of Parquet files that hold a GeoTIFF of each band, as bytes, in every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterWindow

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.gdal import Raster
from terrasieve.archive.readers.geotiff import Header, cut, header_of, read_raster
from terrasieve.archive.readers.handles import Handles, reading
from terrasieve.archive.readers.meaning import Meaning, meanings
from terrasieve.archive.readers.patch_reader import check_size, native_sizes, split_item_address
from terrasieve.local_paths import local_path
from terrasieve.sensors import Sensor

_OPEN_FILES = 8
"""Files that stay open: samples that are read in random order come back to the same few."""
FAILURES = (OSError, ValueError, KeyError, IndexError, TypeError, pa.ArrowException, RasterioError)
"""What reading a damaged Parquet file, or a GeoTIFF in it, may raise."""


class BlobReader:
    """A column of GeoTIFF bytes for each band, coarser bands resampled to the finest (bilinear).

    An address is a file, a row group's number in it and the row's in that.

    Args:
        root: Folder that addresses are relative to.
        sensor: The bands, in the order that pixels are given in.
        columns: The column of each band.
        size: Height and width of the finest bands.
    """

    def __init__(self, root: Path, sensor: Sensor, columns: Mapping[str, str], size: tuple[int, int]) -> None:
        self.root, self.sensor, self.size = root, sensor, size
        self._columns = dict(columns)
        self._sizes = dict(zip(sensor.names, native_sizes(sensor, size), strict=True))
        self._coarsest = max(sensor.bands, key=lambda band: band.gsd).name

    def files(self, address: str) -> tuple[Path, ...]:
        """The one file."""
        return (self.root / split_item_address(address)[0],)

    def shape(self, address: str) -> tuple[int, int]:
        """The size of the finest bands."""
        return self.size

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor; see ``PatchReader.read``."""
        names = [self.sensor.names[position] for position in positions]
        path = self.files(address)[0]
        blobs = self._blobs(address, names)
        wheres = [_where(address, path, self._columns[name]) for name in names]
        wanted = meanings(self.sensor, positions, count=1)
        parts = zip(wanted, wheres, strict=True)
        return np.stack([self._decode(one, blobs[one.band], at, window) for one, at in parts])

    def header(self, address: str) -> Header:
        """Where a patch lies; from the coarsest band, which is the smallest to fetch, on the grid of the finest."""
        path = self.files(address)[0]
        column = self._columns[self._coarsest]
        blob = self._blobs(address, [self._coarsest])[self._coarsest]
        with (
            reading(_where(address, path, column), FAILURES),
            MemoryFile(blob) as file,
            file.open(driver="GTiff") as band,
        ):
            found = header_of(band, path, len(blob))
        # As many pixels of the finest bands as cover the same ground, from the same corner.
        a, b, c, d, e, f = found.transform
        down, along = found.height / self.size[0], found.width / self.size[1]
        finer = (a * along, b * down, c, d * along, e * down, f)
        height, width = self.size
        return replace(found, count=len(self.sensor.bands), height=height, width=width, transform=finer)

    def _blobs(self, address: str, names: Sequence[str]) -> dict[str, bytes]:
        """The bytes of some bands of a row."""
        file, (group, row) = split_item_address(address)
        path = self.root / file
        wanted = [self._columns[name] for name in names]
        with _open_files.reading(path) as opened:
            # In this thread: where reading is to be parallel, there is a process for each core already.
            table = opened.read_row_group(group, columns=sorted(set(wanted)), use_threads=False)
            found = {name: table[column][row].as_py() for name, column in zip(names, wanted, strict=True)}
        for name, blob in found.items():
            if not blob:
                raise FlawError(Problem.UNREADABLE, f"{_where(address, path, self._columns[name])} is empty.")
        return found

    def _decode(self, wanted: Meaning, blob: bytes, where: str, window: Window | None) -> NDArray[Any]:
        with reading(where, FAILURES), MemoryFile(blob) as file, file.open(driver="GTiff") as band:
            if band.count != 1:
                raise FlawError(Problem.BANDS, f"{where} has {band.count} bands, not one; it is not a band's file.")
            check_size(Path(where), (band.height, band.width), self._sizes[wanted.band])
            raster = Raster.of(band)
            # Only bands at full resolution can be read by window; others are resampled as a whole, edges included.
            if self._sizes[wanted.band] == self.size:
                part = None if window is None else RasterWindow(window.left, window.top, window.width, window.height)
                return np.asarray(read_raster(raster, where, [0], [wanted], part)[0])
            whole = np.asarray(read_raster(raster, where, [0], [wanted], None, self.size)[0])
        return cut(whole, window)


def _where(address: str, path: Path, column: str) -> str:
    group, row = split_item_address(address)[1]
    return f"{path}, row group {group}, row {row}, column {column}"


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file from which rows are read one by one.

    Raises:
        SampleError: The file is absent, truncated or not Parquet.
    """
    with reading(path, FAILURES):
        return pq.ParquetFile(local_path(path))


_open_files: Handles[Path, pq.ParquetFile] = Handles(open_parquet, _OPEN_FILES, FAILURES)
