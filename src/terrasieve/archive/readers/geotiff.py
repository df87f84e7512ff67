"""Reading GeoTIFF by band and window."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from terrasieve.archive.protocol import Window, leaves, window_error
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.handles import Handles, reading
from terrasieve.band_names import find_misnamed
from terrasieve.parallel import map_threads
from terrasieve.sensors import Sensor

_OPEN_DATASETS = 64
_FAILURES = (RasterioError, OSError, ValueError, IndexError)
_MUCH = 2**28
"""Bytes of pixels, 256 MiB, from which on a file is asked whether it can hold what its header claims."""
_REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
}
"""How GDAL reads what is not a local file: neighbours are not asked for, a busy server (429, 5xx) is asked again."""

Address = Path | str
"""A local file; or, as text, a name of GDAL's virtual file systems such as ``/vsicurl/https://...``."""

_DENSEST = 10_000
"""Bytes of pixels that a byte of a file may stand for: deflate reaches 1,000 at best, on nothing but zeros."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a raster file says about itself.

    Attributes:
        name: The file's path, as text: an archive of a million files holds as many of these.
        bytes: Its size on disk.
        height: Number of rows of pixels.
        width: Number of columns of pixels.
        count: Number of bands of the file.
        dtype: Pixel type of the first band, as numpy names it.
        crs: Such as ``EPSG:32632``, or WKT where there is no code; None where unknown.
        transform: The affine a-f from (column, row) to coordinates.
        nodata: The file's own nodata value.
        descriptions: What the file calls each band, None where it does not.
        block: Rows and columns of the blocks that the file is stored in.
        tags: The file's own metadata, by name.
    """

    name: str
    bytes: int
    height: int
    width: int
    count: int
    dtype: str
    crs: str | None
    transform: tuple[float, float, float, float, float, float]
    nodata: float | None
    descriptions: tuple[str | None, ...]
    block: tuple[int, int]
    tags: Mapping[str, str]

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.name)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The transform in homogeneous form: 3x3, from (column, row, 1) to (x, y, 1)."""
        return np.array([*self.transform, 0.0, 0.0, 1.0]).reshape(3, 3)


def read_header(path: Path) -> Header:
    """The header of a raster file, without its pixels.

    Raises:
        SampleError: The file is absent, truncated or not a raster.
    """
    with reading(path, _FAILURES), _open(path) as dataset:
        a, b, _, d, e, _ = transform = tuple(dataset.transform)[:6]
        if not (np.isfinite(transform).all() and a * e - b * d):
            text = f"{path} has the transform {transform}, which places no pixel; correct the file."
            raise FlawError(Problem.GRID, text)
        return header_of(dataset, path, path.stat().st_size)


def header_of(dataset: Any, path: Path, size: int) -> Header:
    """The header of an open dataset; what files mostly have in common is kept once for all of them.

    Args:
        dataset: An open dataset of rasterio.
        path: The file that it was opened from.
        size: Size of the file in bytes.
    """
    return Header(
        name=str(path),
        bytes=size,
        height=dataset.height,
        width=dataset.width,
        count=dataset.count,
        dtype=sys.intern(dataset.dtypes[0]),
        crs=sys.intern(dataset.crs.to_string()) if dataset.crs else None,
        transform=tuple(dataset.transform)[:6],
        nodata=dataset.nodata,
        descriptions=_once(tuple(dataset.descriptions)),
        block=_once(tuple(dataset.block_shapes[0])),
        tags=_tags(tuple(sorted(dataset.tags().items()))),
    )


@lru_cache(maxsize=1024)
def _once(value: Any) -> Any:
    return value


@lru_cache(maxsize=1024)
def _tags(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return dict(items)


@dataclass(frozen=True)
class PixelGrid:
    """Where the pixels of a file lie.

    Attributes:
        height: Number of rows of pixels.
        width: Number of columns of pixels.
        crs: Such as ``EPSG:32632``, as :class:`Header` has it; None where unknown.
        transform: The affine a-f from (column, row) to coordinates.
    """

    height: int
    width: int
    crs: str | None
    transform: tuple[float, float, float, float, float, float]


def read_grid(path: Address) -> PixelGrid:
    """The grid of a file, which stays open for the next call.

    Raises:
        SampleError: The file is absent, truncated or not a raster.
    """
    with _open_datasets.reading(path) as dataset:
        crs = dataset.crs.to_string() if dataset.crs else None
        return PixelGrid(dataset.height, dataset.width, crs, tuple(dataset.transform)[:6])


def read_headers(paths: Iterable[Path], description: str) -> list[Header | FlawError]:
    """Headers of many files; an unreadable file gives its error in place of a header.

    Args:
        paths: The files; the answer has their order.
        description: What the progress bar says, shown where the files are many.
    """
    return list(map_threads(_header_or_error, list(paths), description))


def read_window(path: Address, bands: Sequence[int], window: Window) -> NDArray[Any]:
    """Pixels of some bands in a rectangle, touching only the blocks that it meets.

    The file stays open for the next call, in a cache that belongs to the calling thread and process.

    Args:
        path: A local file, or a name of GDAL's virtual file systems.
        bands: Positions in the file, from 0.
        window: Rows and columns of the file.

    Returns:
        Array of shape ``(len(bands), window.height, window.width)`` in the file's type.

    Raises:
        SampleError: The file cannot be read, lacks a band, or ends before the window does.
    """
    with _open_datasets.reading(path) as dataset:
        if leaves(window, dataset.height, dataset.width):
            raise window_error(window, dataset.height, dataset.width, str(path))
        rectangle = rasterio.windows.Window(window.left, window.top, window.width, window.height)
        return np.asarray(dataset.read([band + 1 for band in bands], window=rectangle))


def read_stretched(
    path: Address, band: int, box: tuple[float, float, float, float], height: int, width: int
) -> NDArray[Any]:
    """A part of one band on a grid of another resolution (bilinear), touching only the blocks that it meets.

    Args:
        path: A local file, or a name of GDAL's virtual file systems.
        band: Position in the file, from 0.
        box: Top, left, height and width of the part in pixels of the file, which need not be whole.
        height: Number of rows wanted.
        width: Number of columns wanted.

    Returns:
        Array of shape ``(height, width)`` in the file's type.

    Raises:
        SampleError: The file cannot be read, or lacks the band.
    """
    top, left, rows, columns = box
    rectangle = rasterio.windows.Window(left, top, columns, rows)
    with _open_datasets.reading(path) as dataset:
        return np.asarray(
            dataset.read(band + 1, window=rectangle, out_shape=(height, width), resampling=Resampling.bilinear)
        )


def read_resampled(path: Path, height: int, width: int, nearest: bool = False) -> NDArray[Any]:
    """The one band of a file on a grid of another size, shape ``(height, width)``.

    A band that has that size already is returned as it is.

    Args:
        path: A file of one band.
        height: Number of rows wanted.
        width: Number of columns wanted.
        nearest: For classes: take the nearest pixel's value, where bilinear interpolation would mix two.

    Raises:
        SampleError: The file cannot be read, or has several bands.
    """
    how = Resampling.nearest if nearest else Resampling.bilinear
    with _open_datasets.reading(path) as dataset:
        count = dataset.count
        pixels = np.asarray(dataset.read(1, out_shape=(height, width), resampling=how))
    if count != 1:
        raise FlawError(Problem.BANDS, f"{path} has {count} bands, not one; it is not the file of a single band.")
    return pixels


def cut(pixels: NDArray[Any], window: Window | None) -> NDArray[Any]:
    """The part of decoded pixels that a window asks for; all of them when None.

    Args:
        pixels: Rows and columns last.
        window: The part wanted, within the pixels; all of them when None.
    """
    if window is None:
        return pixels
    return pixels[..., window.top : window.top + window.height, window.left : window.left + window.width]


def validate_bands(header: Header, sensor: Sensor) -> None:
    """Refuse a file whose bands are not, or state that they are not, those of the sensor in its order.

    Names are compared as :func:`terrasieve.band_names.find_misnamed` says: ``B2`` is ``B02``.

    Args:
        header: Says how many bands the file has, and what it calls them.
        sensor: The bands that the file is said to hold, in its order.

    Raises:
        SampleError: The band count differs, or a band's description names another band.
    """
    if header.count != len(sensor.bands):
        raise FlawError(
            Problem.BANDS,
            f"{header.path} has {header.count} bands, sensor {sensor.name!r} has {len(sensor.bands)} "
            f"({', '.join(sensor.names)}). Declare the sensor that delivered the file.",
        )
    position = find_misnamed(header.descriptions, sensor)
    if position is not None:
        said, order = header.descriptions[position], ", ".join(str(one) for one in header.descriptions)
        raise FlawError(
            Problem.BANDS,
            f"{header.path} calls its band {position + 1} {said!r}, sensor {sensor.name!r} has "
            f"{sensor.names[position]!r} there. The file's order is {order}: declare the bands in that order, or "
            "correct the file.",
        )


def fitting_sensors(header: Header) -> list[str]:
    """Names of the built-in sensors that a file may be of, by number, type and descriptions of its bands.

    Args:
        header: Says how many bands the file has, of what type, and what it calls them.
    """
    fitting = []
    for name, sensor in SENSORS.items():
        unit = sensor.bands[0].unit
        wanted = "u1" if unit in ("dn", "class") else "iu" if unit == "reflectance_e4" else "f"
        kind = np.dtype(header.dtype if header.dtype != "complex_int16" else "complex64")
        # Eight bits hold no reflectance times 10,000, and no decibels.
        of_type = kind == np.uint8 if wanted == "u1" else kind.kind in wanted and kind.itemsize > 1
        try:
            validate_bands(header, sensor)
        except FlawError:
            continue
        fitting += [name] if of_type else []
    return fitting


def _header_or_error(path: Path) -> Header | FlawError:
    try:
        return read_header(path)
    except FlawError as error:
        return error


def _open(path: Address) -> Any:
    # TRUE: side files are still looked for by name, but a folder of 100,000 files is not listed at every open.
    # NON_CACHED: or else GDAL answers from memory that a file could not be read, however often one tries.
    local = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
    options = {**_REMOTE, "CPL_VSIL_CURL_NON_CACHED": path} if isinstance(path, str) else local
    with warnings.catch_warnings(), rasterio.Env(**options):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(path, sharing=False)
    if dataset.driver == "GTiff" and isinstance(path, Path):
        _check_claim(dataset, path)
    return dataset


def _check_claim(dataset: Any, path: Path) -> None:
    """Refuse a header that claims far more pixels than the file can hold, before anybody makes room for them."""
    # GDAL's complex 16-bit integers, as in radar products, are no type of numpy's.
    kinds = ("int32" if kind == "complex_int16" else kind for kind in dataset.dtypes)
    claimed = dataset.height * dataset.width * sum(np.dtype(kind).itemsize for kind in kinds)
    if claimed < _MUCH:
        return
    size = path.stat().st_size
    if claimed > _DENSEST * size:
        dataset.close()
        raise FlawError(
            Problem.UNREADABLE,
            f"{path} claims {dataset.height:,}x{dataset.width:,} px in {size:,} bytes, so its header is damaged. "
            "Fetch the file again, or remove it.",
        )


_open_datasets: Handles[Address, Any] = Handles(_open, _OPEN_DATASETS, _FAILURES)
