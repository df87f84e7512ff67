"""A reader of zipped Zarr stores that hold many places at several times in one array.

Stores of Zarr format 2, as xarray writes them: ``bands`` with the dimensions sample, time, band, y, x; ``sample`` and
``band`` with the names of these; and ``time_``, ``crs``, ``x_`` and ``y_`` with what is known of each sample.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.byte_limits import check_array_bytes
from terrasieve.archive.readers.geotiff import Header
from terrasieve.archive.readers.handles import DECODING_FAILURES, Handles
from terrasieve.archive.readers.patch_reader import check_size, split_item_address
from terrasieve.archive.readers.zarr_codecs import check_zip
from terrasieve.archive.scenes.acquisition_time import parse_time
from terrasieve.band_names import canonical_name, names_of_band
from terrasieve.sensors import Sensor

PIXELS = "bands"
_DIMENSIONS = ["sample", "time", "band", "y", "x"]
_OPEN_STORES = 4
"""Stores that stay open, each with the chunk that it decoded last."""
_NAME_BYTES = 64
"""Bytes that a name takes in memory at least, as a text of Python and the pointer to it."""
# zlib's error is no ValueError, and zipfile's no OSError.
_FAILURES = (*DECODING_FAILURES, zipfile.BadZipFile, zlib.error)
_UNITS = {
    "nanoseconds": 1e-9,
    "microseconds": 1e-6,
    "milliseconds": 1e-3,
    "seconds": 1.0,
    "minutes": 60.0,
    "hours": 3600.0,
    "days": 86400.0,
}


@dataclass(frozen=True)
class StoredSamples:
    """What a store says of its samples.

    Attributes:
        names: One unique name for each sample.
        times: When each was taken, one row a sample and one entry for each of its times; None where unknown.
    """

    names: tuple[str, ...]
    times: tuple[tuple[datetime | None, ...], ...]


class ZippedZarrReader:
    """The array ``bands`` of zipped stores; an address is a file, a sample's number in it and that of its time.

    Args:
        root: Folder that addresses are relative to.
        sensor: The bands, in the order of the array's.
        size: Height and width of the patches.
    """

    def __init__(self, root: Path, sensor: Sensor, size: tuple[int, int]) -> None:
        self.root, self.sensor, self.size = root, sensor, size

    def files(self, address: str) -> tuple[Path, ...]:
        """The one store."""
        return (self.root / split_item_address(address)[0],)

    def shape(self, address: str) -> tuple[int, int]:
        """The size that all have."""
        return self.size

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor; see ``PatchReader.read``."""
        file, (sample, time) = split_item_address(address)
        path = self.root / file
        part = window or Window(0, 0, *self.size)
        with _open_stores.reading(path) as store:
            store.check(self.sensor, self.size)
            return store.read(sample, time, positions, part)

    def header(self, address: str) -> Header | None:
        """Where a patch lies, by the coordinates of its pixels' centres; None where the store has none."""
        file, (sample, _) = split_item_address(address)
        path = self.root / file
        with _open_stores.reading(path) as store:
            return store.header(sample)


def read_samples(path: Path) -> StoredSamples:
    """The names and times of a store's samples, without their pixels.

    Raises:
        SampleError: The store cannot be read, or names a codec that is not allowed.
    """
    with _open_stores.reading(path) as store:
        return store.samples()


class _Store:
    """One store that stays open, with the chunk that was last decoded."""

    def __init__(self, path: Path) -> None:
        check_zip(path)
        self._path = path
        self._zip = ZipStore(path, mode="r")
        self._group = zarr.open_group(self._zip, mode="r", zarr_format=2)
        self._pixels = self._array(PIXELS)
        self._held: tuple[tuple[int, int], NDArray[Any]] | None = None
        self._coordinates: tuple[NDArray[Any], ...] | None = None
        self._checked: set[str] = set()

    def close(self) -> None:
        """Give the file back."""
        self._zip.close()

    def check(self, sensor: Sensor, size: tuple[int, int]) -> None:
        """Refuse an array of other dimensions or bands than the sensor's."""
        if sensor.name in self._checked:
            return
        dimensions = self._pixels.attrs.get("_ARRAY_DIMENSIONS", _DIMENSIONS)
        if dimensions != _DIMENSIONS or self._pixels.ndim != len(_DIMENSIONS):
            raise FlawError(
                Problem.GRID, f"{self._path} has {PIXELS!r} over {dimensions}, not over {', '.join(_DIMENSIONS)}."
            )
        said = [str(name) for name in self._whole("band", _NAME_BYTES)]
        if len(said) != len(sensor.bands) or not all(
            canonical_name(name) in names_of_band(band) for name, band in zip(said, sensor.bands, strict=True)
        ):
            raise FlawError(
                Problem.BANDS,
                f"{self._path} holds the bands {', '.join(said)}, sensor {sensor.name!r} has {', '.join(sensor.names)} "
                "in this order. Fetch the file again.",
            )
        check_size(self._path, self._pixels.shape[-2:], size)
        self._checked.add(sensor.name)

    def read(self, sample: int, time: int, positions: Sequence[int], part: Window) -> NDArray[Any]:
        """Bands of one sample; where a chunk holds several samples, it is decoded once for all of them."""
        samples, times = self._pixels.shape[:2]
        if not (sample < samples and time < times):
            raise IndexError(f"sample {sample} at time {time} of {samples} samples at {times} times")
        rows, columns = slice(part.top, part.top + part.height), slice(part.left, part.left + part.width)
        several = self._pixels.chunks[0]
        if several == 1:
            return np.asarray(self._pixels.oindex[sample, time, list(positions), rows, columns])
        # All samples of a chunk are decoded to get one; whoever reads in order asks for the next one soon.
        start = sample - sample % several
        if self._held is None or self._held[0] != (start, time):
            shape = (min(several, samples - start), *self._pixels.shape[2:])
            check_array_bytes(f"{self._path}, array {PIXELS!r},", shape, self._pixels.dtype.itemsize)
            self._held = ((start, time), np.asarray(self._pixels[start : start + several, time]))
        chunk = self._held[1][sample - start]
        return np.ascontiguousarray(chunk[:, rows, columns][list(positions)])

    def samples(self) -> StoredSamples:
        """Names and times."""
        names = tuple(str(name) for name in self._whole("sample", _NAME_BYTES))
        shape = (len(names), self._pixels.shape[1])
        times = self._array("time_") if "time_" in self._group else None
        if self._pixels.shape[0] != shape[0] or (times is not None and times.shape != shape):
            raise FlawError(
                Problem.GRID,
                f"{self._path} has names of {shape[0]} samples, pixels of {self._pixels.shape[0]}"
                + (f" and times of shape {times.shape}" if times is not None else "")
                + ". Fetch the file again.",
            )
        if times is None:
            return StoredSamples(names, ((None,) * shape[1],) * shape[0])
        return StoredSamples(names, _moments(self._whole("time_"), str(times.attrs.get("units", ""))))

    def header(self, sample: int) -> Header | None:
        """Grid of one sample."""
        if not all(name in self._group for name in ("crs", "x_", "y_")):
            return None
        if self._coordinates is None:
            self._coordinates = tuple(self._whole(name) for name in ("crs", "x_", "y_"))
        crs, x, y = (values[sample] for values in self._coordinates)
        # Coordinates are of pixels' centres, a grid begins at the corner of the first.
        a, e = float(x[1] - x[0]), float(y[1] - y[0])
        return Header(
            name=str(self._path),
            bytes=self._path.stat().st_size,
            height=len(y),
            width=len(x),
            count=self._pixels.shape[2],
            dtype=str(self._pixels.dtype),
            crs=f"EPSG:{int(crs)}",
            transform=(a, 0.0, float(x[0]) - a / 2, 0.0, e, float(y[0]) - e / 2),
            nodata=None,
            descriptions=(None,) * self._pixels.shape[2],
            block=(self._pixels.chunks[-2], self._pixels.chunks[-1]),
            tags={},
        )

    def _array(self, name: str) -> Any:
        found = self._group.get(name)
        if not isinstance(found, zarr.Array):
            raise KeyError(f"it has no array {name!r}")
        # Who reads one value decodes the whole chunk that it lies in.
        check_array_bytes(f"{self._path}, a chunk of {name!r},", found.chunks, found.dtype.itemsize)
        return found

    def _whole(self, name: str, each: int = 0) -> NDArray[Any]:
        """All values of a small array, whose type may understate the bytes of ``each``."""
        found = self._array(name)
        check_array_bytes(f"{self._path}, array {name!r},", found.shape, max(each, found.dtype.itemsize))
        return np.asarray(found[...])


def _moments(values: NDArray[Any], units: str) -> tuple[tuple[datetime | None, ...], ...]:
    """Times from what xarray writes: numbers with units such as ``seconds since 2020-04-19 09:40:31``."""
    if values.dtype.kind == "M":
        values, units = values.astype("M8[us]").astype(np.int64), "microseconds since 1970-01-01"
    unit, _, origin = units.partition(" since ")
    start = parse_time(origin)
    if start is None or unit not in _UNITS:
        return tuple((None,) * values.shape[1] for _ in values)
    seconds = _UNITS[unit]
    return tuple(tuple((start + timedelta(seconds=float(v) * seconds)).astimezone(UTC) for v in row) for row in values)


_open_stores: Handles[Path, _Store] = Handles(_Store, _OPEN_STORES, _FAILURES)
