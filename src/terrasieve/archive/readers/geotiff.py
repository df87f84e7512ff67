"""Reading GeoTIFF by band and window."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import from_gcps
from rasterio.windows import Window as RasterWindow

from terrasieve.archive.protocol import Window, leaves, window_error
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.gdal import FAILURES, Address, Raster, open_raster
from terrasieve.archive.readers.handles import Handles
from terrasieve.archive.readers.meaning import Meaning, settle
from terrasieve.band_names import find_misnamed
from terrasieve.processes.parallel import map_threads
from terrasieve.sensors import Sensor

_OPEN_DATASETS = 64
_FLAT = 1e6
"""Ratio of the longer to the shorter axis of a cloud of points from which on it is a line."""


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
        transform: The affine a-f from (column, row) to coordinates; where the file has ground control points only, the
            one that fits them best.
        nodata: The file's own nodata value.
        descriptions: What the file calls each band, None where it does not.
        block: Rows and columns of the blocks that the file is stored in.
        tags: The file's own metadata, by name.
        alpha: Whether its last band is an alpha band that says where there are data. A PNG's transparency does not: it
            is made for the eye.
        offset: What the file says is to be added to the values of its first band, after its scale.
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
    alpha: bool = False
    offset: float = 0.0

    @property
    def path(self) -> Path:
        """The file."""
        return _path(self.name)

    def record(self) -> list[Any]:
        """The header as JSON can hold it, for a journal and on the way from a reader process."""
        return [*_values(self)[:-3], list(self.tags.items()), self.alpha, self.offset]

    @classmethod
    def parse(cls, stored: Sequence[Any]) -> Header:
        """The header that :meth:`record` gave; what files mostly have in common is kept once for all of them."""
        *sizes, dtype, crs, transform, nodata, descriptions, block, tags, alpha, offset = stored
        held = (sys.intern(dtype), sys.intern(crs) if crs else None, tuple(transform), nodata)
        shared = (_once(tuple(descriptions)), _once(tuple(block)), _tags(tuple(map(tuple, tags))))
        values: list[Any] = [*sizes, *held, *shared, alpha, offset]
        return cls(*values)

    @property
    def names(self) -> tuple[str, ...]:
        """The file; where each band has its own, all of them."""
        return (self.name,)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The transform in homogeneous form: 3x3, from (column, row, 1) to (x, y, 1)."""
        return np.array([*self.transform, 0.0, 0.0, 1.0]).reshape(3, 3)


_values = attrgetter(*Header.__slots__)
_path = lru_cache(maxsize=256)(Path)
"""The same object for the tiles of a file that are read one after the other: it knows its text and its hash."""


def read_header(path: Path) -> Header:
    """The header of a raster file, without its pixels; the file stays open for the next call, which may read them.

    Raises:
        SampleError: The file is absent, truncated or not a raster.
    """
    with _open_datasets.reading(path) as raster:
        header = header_of(raster.dataset, path, raster.bytes or 0)
    a, b, _, d, e, _ = header.transform
    if not (np.isfinite(header.transform).all() and a * e - b * d):
        text = f"{path} has the transform {header.transform}, which places no pixel; correct the file."
        raise FlawError(Problem.GRID, text)
    return header


def header_of(dataset: Any, path: Path, size: int) -> Header:
    """The header of an open dataset; what files mostly have in common is kept once for all of them.

    Args:
        dataset: An open dataset of rasterio.
        path: The file that it was opened from.
        size: Size of the file in bytes.
    """
    crs, transform = _place(dataset)
    return Header(
        name=str(path),
        bytes=size,
        height=dataset.height,
        width=dataset.width,
        count=dataset.count,
        dtype=sys.intern(dataset.dtypes[0]),
        crs=sys.intern(crs) if crs else None,
        transform=transform,
        nodata=dataset.nodata,
        descriptions=_once(tuple(dataset.descriptions)),
        block=_once(tuple(dataset.block_shapes[0])),
        tags=_tags(tuple(sorted(dataset.tags().items()))),
        alpha=dataset.colorinterp[-1] is ColorInterp.alpha and dataset.driver != "PNG",
        offset=dataset.offsets[0],
    )


def _place(dataset: Any) -> tuple[str | None, tuple[float, float, float, float, float, float]]:
    """Reference system and affine of a dataset; of ground control points where it has nothing else."""
    points, crs = dataset.gcps
    if dataset.crs is None and crs is not None and len(points) > 2:
        pixels, places = [(one.col, one.row) for one in points], [(one.x, one.y) for one in points]
        # Points on one line fix no plane: such a file lies nowhere, and what rasterio then gives was never computed.
        if all(np.linalg.cond(np.subtract(each, np.mean(each, axis=0))) < _FLAT for each in (pixels, places)):
            a, b, c, d, e, f = tuple(from_gcps(points))[:6]
            return crs.to_string(), (a, b, c, d, e, f)
    own = dataset.crs
    t = dataset.transform
    return own.to_string() if own else None, (t.a, t.b, t.c, t.d, t.e, t.f)


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
    with _open_datasets.reading(path) as raster:
        height, width = raster.dataset.shape
        return PixelGrid(height, width, *_place(raster.dataset))


def has_palette(path: Path) -> bool:
    """Whether the values of a file are places in a table of colours that it holds.

    Raises:
        SampleError: The file is absent, truncated or not a raster.
    """
    with _open_datasets.reading(path) as raster:
        return bool(raster.dataset.colorinterp[0] is ColorInterp.palette)


def read_headers(paths: Iterable[Path], description: str) -> list[Header | FlawError]:
    """Headers of many files; an unreadable file gives its error in place of a header.

    Args:
        paths: The files; the answer has their order.
        description: What the progress bar says, shown where the files are many.
    """
    return list(map_threads(_header_or_error, list(paths), description))


def read_window(
    path: Address, bands: Sequence[int], window: Window, wanted: Sequence[Meaning] | None = None
) -> NDArray[Any]:
    """Pixels of some bands in a rectangle, touching only the blocks that it meets.

    The file stays open for the next call, in a cache that belongs to the calling thread and process.

    Args:
        path: A local file, or a name of GDAL's virtual file systems.
        bands: Positions in the file, from 0.
        window: Rows and columns of the file.
        wanted: What the values of each band are to be; as they are stored when None.

    Returns:
        Array of shape ``(len(bands), window.height, window.width)``, in the file's type unless what is wanted needs
        another (:func:`terrasieve.archive.readers.meaning.settle`).

    Raises:
        SampleError: The file cannot be read, lacks a band, ends before the window does, or states a scale that
            contradicts what is wanted.
    """
    with _open_datasets.reading(path) as raster:
        height, width = raster.dataset.shape
        if leaves(window, height, width):
            raise window_error(window, height, width, str(path))
        rectangle = RasterWindow(window.left, window.top, window.width, window.height)
        return read_raster(raster, str(path), bands, wanted, rectangle)


def read_stretched(
    path: Address,
    band: int,
    box: tuple[float, float, float, float],
    height: int,
    width: int,
    wanted: Meaning | None = None,
) -> NDArray[Any]:
    """A part of one band on a grid of another resolution (bilinear), touching only the blocks that it meets.

    Args:
        path: A local file, or a name of GDAL's virtual file systems.
        band: Position in the file, from 0.
        box: Top, left, height and width of the part in pixels of the file, which need not be whole.
        height: Number of rows wanted.
        width: Number of columns wanted.
        wanted: What the values are to be; as they are stored when None.

    Returns:
        Array of shape ``(height, width)``, in a type as that of :func:`read_window`.

    Raises:
        SampleError: The file cannot be read, lacks the band, or states a scale that contradicts what is wanted.
    """
    top, left, rows, columns = box
    rectangle = RasterWindow(left, top, columns, rows)
    with _open_datasets.reading(path) as raster:
        pixels = read_raster(raster, str(path), [band], [wanted] if wanted else None, rectangle, (height, width))
        return np.asarray(pixels[0])


def read_resampled(path: Path, height: int, width: int, wanted: Meaning | None = None) -> NDArray[Any]:
    """The one band of a file on a grid of another size (bilinear), shape ``(height, width)``.

    A band that has that size already is returned as it is.

    Args:
        path: A file of one band.
        height: Number of rows wanted.
        width: Number of columns wanted.
        wanted: What the values are to be; as they are stored when None.

    Raises:
        SampleError: The file cannot be read, has several bands, or states a scale that contradicts what is wanted.
    """
    with _open_datasets.reading(path) as raster:
        if (count := raster.dataset.count) != 1:
            raise FlawError(Problem.BANDS, f"{path} has {count} bands, not one; it is not the file of a single band.")
        return np.asarray(read_raster(raster, str(path), [0], [wanted] if wanted else None, None, (height, width))[0])


def read_raster(
    raster: Raster,
    name: str,
    bands: Sequence[int],
    wanted: Sequence[Meaning] | None,
    window: RasterWindow | None = None,
    size: tuple[int, int] | None = None,
) -> NDArray[Any]:
    """Pixels of an open file, as stored or as they are wanted.

    Args:
        raster: The open file.
        name: What messages call it.
        bands: Positions in the file, from 0.
        wanted: What the values of each band are to be; as they are stored when None.
        window: The part wanted; all of it when None.
        size: Rows and columns to resample to, bilinear or, of classes, by the nearest pixel; as stored when None.

    Returns:
        Array of shape ``(len(bands), height, width)``.

    Raises:
        SampleError: The pixels would take too much memory, or a scale contradicts what is wanted.
        RasterioError: The file is damaged.
        IndexError: The file lacks a band.
    """
    classes = wanted is not None and any(one.unit == "class" for one in wanted)
    pixels = raster.pixels(bands, window, size, Resampling.nearest if classes else Resampling.bilinear)
    if wanted is None:
        return pixels
    masked = any(raster.masked(band, one.count) for band, one in zip(bands, wanted, strict=True))
    absent = raster.absent(bands, window, size) if masked else None
    if size is not None and not classes and any(one.marks for one in wanted):
        mixed = np.stack(
            [raster.mixed_in(band, one.marks, window, size) for band, one in zip(bands, wanted, strict=True)]
        )
        absent = mixed if absent is None else absent | mixed
    return settle(name, pixels, absent, [raster.stated[band] for band in bands], wanted)


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
        SampleError: The band count differs, a band's description names another band, or a sensor of 8 bits is said to
            have delivered values of another type.
    """
    more = header.count - len(sensor.bands)
    if more and not (more == 1 and header.alpha):
        raise FlawError(
            Problem.BANDS,
            f"{header.path} has {header.count} bands, sensor {sensor.name!r} has {len(sensor.bands)} "
            f"({', '.join(sensor.names)}). Declare the sensor that delivered the file.",
        )
    # An alpha band may follow the sensor's own.
    position = find_misnamed(header.descriptions[: len(sensor.bands)], sensor)
    if position is not None:
        said, order = header.descriptions[position], ", ".join(str(one) for one in header.descriptions)
        raise FlawError(
            Problem.BANDS,
            f"{header.path} calls its band {position + 1} {said!r}, sensor {sensor.name!r} has "
            f"{sensor.names[position]!r} there. The file's order is {order}: declare the bands in that order, or "
            "correct the file.",
        )
    if sensor.eight_bit and header.dtype != "uint8":
        raise FlawError(
            Problem.UNIT,
            f"{header.path} holds {header.dtype}, sensor {sensor.name!r} is of 8 bits (uint8). Declare the sensor that "
            "delivered the file, or export pictures of 8 bits.",
        )


def _header_or_error(path: Path) -> Header | FlawError:
    try:
        return read_header(path)
    except FlawError as error:
        return error


_open_datasets: Handles[Address, Raster] = Handles(open_raster, _OPEN_DATASETS, FAILURES)
