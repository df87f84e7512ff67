"""Reading Parquet from elsewhere: tables of samples, and files that hold a GeoTIFF of each band in every row."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers import gdal
from terrasieve.archive.readers.byte_limits import MOST_TABLE_BYTES, check_array_bytes
from terrasieve.archive.readers.gdal import open_blob
from terrasieve.archive.readers.geotiff import Header, cut, header_of, read_raster
from terrasieve.archive.readers.handles import Handles, reading
from terrasieve.archive.readers.meaning import Meaning, meanings
from terrasieve.archive.readers.patch_reader import check_size, native_sizes, split_item_address
from terrasieve.files.local_paths import local_path
from terrasieve.sensors import Sensor

_OPEN_FILES = 8
"""Files that stay open: samples that are read in random order come back to the same few."""
_BATCH = 1024
"""Rows of a table that are decoded before their size is looked at."""
FAILURES = (*gdal.FAILURES, KeyError, TypeError, pa.ArrowException)
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
        where = _where(address, path, column)
        with reading(where, FAILURES), open_blob(blob, where) as band:
            found = header_of(band.dataset, path, len(blob))
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
            part = _row(opened, path, group, row, sorted(set(wanted)))
            found = {name: part[column][0].as_py() for name, column in zip(names, wanted, strict=True)}
        for name, blob in found.items():
            if not blob:
                raise FlawError(Problem.UNREADABLE, f"{_where(address, path, self._columns[name])} is empty.")
        return found

    def _decode(self, wanted: Meaning, blob: bytes, where: str, window: Window | None) -> NDArray[Any]:
        with reading(where, FAILURES), open_blob(blob, where) as raster:
            if raster.dataset.count != 1:
                count = raster.dataset.count
                raise FlawError(Problem.BANDS, f"{where} has {count} bands, not one; it is not a band's file.")
            check_size(Path(where), raster.dataset.shape, self._sizes[wanted.band])
            # Only bands at full resolution can be read by window; others are resampled as a whole, edges included.
            if self._sizes[wanted.band] == self.size:
                part = None if window is None else RasterWindow(window.left, window.top, window.width, window.height)
                return np.asarray(read_raster(raster, where, [0], [wanted], part)[0])
            whole = np.asarray(read_raster(raster, where, [0], [wanted], None, self.size)[0])
        return cut(whole, window)


def _row(opened: pq.ParquetFile, path: Path, group: int, row: int, columns: Sequence[str]) -> pa.RecordBatch:
    """One row of some columns, after what the file declares of them; no other row is kept in memory.

    A column whose values are listed once and then referred to may come to more in memory than a header says, so that
    rows are decoded one by one.
    """
    metadata = opened.metadata.row_group(group)
    chunks = [metadata.column(number) for number in range(metadata.num_columns)]
    size = sum(one.total_uncompressed_size for one in chunks if one.path_in_schema.partition(".")[0] in columns)
    check_array_bytes(f"{path}, row group {group}, columns {', '.join(columns)}", (size,), 1)
    if row >= metadata.num_rows:
        raise IndexError(f"row {row} of {metadata.num_rows} rows")
    # In this thread: where reading is to be parallel, there is a process for each core already.
    rows = opened.iter_batches(batch_size=1, row_groups=[group], columns=list(columns), use_threads=False)
    return next(itertools.islice(rows, row, None))


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


def read_table(path: Path | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A table of samples that is read whole, as long as it takes no more memory than a table may.

    Args:
        path: The Parquet file, or its content.
        columns: Names of the columns wanted, in any order; all of them when None.

    Raises:
        SampleError: It takes more than :data:`terrasieve.archive.readers.byte_limits.MOST_TABLE_BYTES`.
        OSError: The file is absent.
        ArrowException: It is damaged, or no Parquet.
    """
    with _opened(path) as file:
        batches = list(_batches(file, path, columns))
        schema = batches[0].schema if batches else pa.schema([file.schema_arrow.field(one) for one in columns or ()])
        return pa.Table.from_batches(batches, schema if batches or columns else file.schema_arrow).combine_chunks()


def read_column(path: Path | bytes, name: str) -> Iterator[pa.Array]:
    """One column of a table of samples, some rows at a time; errors as those of :func:`read_table`.

    Args:
        path: The Parquet file, or its content.
        name: The column wanted.
    """
    with _opened(path) as file:
        for batch in _batches(file, path, [name]):
            yield batch.column(0)


def _opened(path: Path | bytes) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(path) if isinstance(path, bytes) else local_path(path))


def _batches(file: pq.ParquetFile, path: Path | bytes, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """The rows of a table, until they take more memory than a table may."""
    name = "The table" if isinstance(path, bytes) else str(path)
    size = 0
    # What is written once and referred to by many rows shows its size only when it is decoded: so few at a time.
    # In this thread, as handing over so few rows takes longer than decoding them.
    for batch in file.iter_batches(batch_size=_BATCH, columns=columns, use_threads=False):
        for column in batch.columns:
            size += (column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).nbytes
        if size > MOST_TABLE_BYTES:
            raise FlawError(
                Problem.UNREADABLE,
                f"{name} takes more than {MOST_TABLE_BYTES:,} bytes in memory: its {file.metadata.num_rows:,} rows "
                "are too many. Split it, and do not trust it if it comes from elsewhere.",
            )
        yield batch


_open_files: Handles[Path, pq.ParquetFile] = Handles(open_parquet, _OPEN_FILES, FAILURES)
