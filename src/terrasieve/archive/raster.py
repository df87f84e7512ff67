"""Reading GeoTIFF by band and window."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality import FlawError, Problem
from terrasieve.console import MANY, track

_OPEN_DATASETS = 64
_HEADER_THREADS = 8
_FAILURES = (RasterioError, OSError, ValueError)


@dataclass(frozen=True)
class Header:
    """What a raster file says about itself.

    Attributes:
        path: The file.
        bytes: Its size on disk.
        height: Rows.
        width: Columns.
        count: Bands.
        dtype: Pixel type of the first band, as numpy names it.
        crs: Such as ``EPSG:32632``, or WKT where there is no code; None where unknown.
        transform: The affine a-f from (column, row) to coordinates.
        nodata: The file's own nodata value.
        descriptions: What the file calls each band, None where it does not.
        block: Rows and columns of the blocks that the file is stored in.
        tags: The file's metadata.
    """

    path: Path
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
    def matrix(self) -> NDArray[np.float64]:
        """The transform in homogeneous form: 3x3, from (column, row, 1) to (x, y, 1)."""
        return np.array([*self.transform, 0.0, 0.0, 1.0]).reshape(3, 3)


def read_header(path: Path) -> Header:
    """The header of a raster file, without its pixels.

    Raises:
        SampleError: The file is absent, truncated or not a raster.
    """
    try:
        with _open(path) as dataset:
            return Header(
                path=path,
                bytes=path.stat().st_size,
                height=dataset.height,
                width=dataset.width,
                count=dataset.count,
                dtype=dataset.dtypes[0],
                crs=dataset.crs.to_string() if dataset.crs else None,
                transform=tuple(dataset.transform)[:6],
                nodata=dataset.nodata,
                descriptions=dataset.descriptions,
                block=dataset.block_shapes[0],
                tags=dataset.tags(),
            )
    except _FAILURES as error:
        raise _unreadable(path, error) from error


def read_headers(paths: Iterable[Path], description: str) -> list[Header | FlawError]:
    """Headers of many files, read side by side; an unreadable file gives its error in place of a header.

    Args:
        paths: The files; the answer has their order.
        description: What the progress bar says, shown where the files are many.
    """
    files = list(paths)
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        found = pool.map(_header_or_error, files)
        return list(found) if len(files) < MANY else list(track(found, description, total=len(files)))


def read_window(path: Path, bands: Sequence[int], window: Window) -> NDArray[Any]:
    """Pixels of some bands in a rectangle, touching only the blocks that it meets.

    The file stays open for the next call, in a cache that belongs to the calling thread and process.

    Args:
        path: The file.
        bands: Positions in the file, from 0.
        window: Rows and columns of the file.

    Returns:
        Array of shape ``(len(bands), window.height, window.width)`` in the file's type.

    Raises:
        SampleError: The file cannot be read, lacks a band, or ends before the window does.
    """
    try:
        dataset = _cache.get(path)
        check_within(window, dataset.height, dataset.width, str(path))
        rectangle = rasterio.windows.Window(window.left, window.top, window.width, window.height)
        pixels: NDArray[Any] = dataset.read([band + 1 for band in bands], window=rectangle)
    except (*_FAILURES, IndexError) as error:
        _cache.drop(path)
        raise _unreadable(path, error) from error
    return pixels


def read_resampled(path: Path, height: int, width: int, nearest: bool = False) -> NDArray[Any]:
    """The one band of a file on a grid of another size, shape ``(height, width)``.

    A band that has that size already is returned as it is.

    Args:
        path: A file of one band.
        height: Rows wanted.
        width: Columns wanted.
        nearest: For classes: take the nearest pixel's value, where bilinear interpolation would mix two.

    Raises:
        SampleError: The file cannot be read, or has several bands.
    """
    how = Resampling.nearest if nearest else Resampling.bilinear
    try:
        dataset = _cache.get(path)
        count = dataset.count
        pixels: NDArray[Any] = dataset.read(1, out_shape=(height, width), resampling=how)
    except (*_FAILURES, IndexError) as error:
        _cache.drop(path)
        raise _unreadable(path, error) from error
    if count != 1:
        raise FlawError(Problem.BANDS, f"{path} has {count} bands, not one; it is not the file of a single band.")
    return pixels


def cut(pixels: NDArray[Any], window: Window | None, path: Path) -> NDArray[Any]:
    """The part of decoded pixels that a window asks for; all of them when None.

    Raises:
        SampleError: The window leaves the pixels.
    """
    if window is None:
        return pixels
    check_within(window, pixels.shape[-2], pixels.shape[-1], str(path))
    return pixels[..., window.top : window.top + window.height, window.left : window.left + window.width]


def check_within(window: Window, height: int, width: int, what: str) -> None:
    """Refuse a window that is empty or leaves a rectangle of ``height`` rows and ``width`` columns.

    Raises:
        SampleError: It does; ``what`` names the thing it leaves.
    """
    top, left, rows, columns = window
    if top < 0 or left < 0 or rows < 1 or columns < 1 or top + rows > height or left + columns > width:
        raise FlawError(
            Problem.GRID, f"Window {tuple(window)} (top, left, height, width) leaves {what}, which is {height}x{width}."
        )


def _header_or_error(path: Path) -> Header | FlawError:
    try:
        return read_header(path)
    except FlawError as error:
        return error


def _unreadable(path: Path, error: Exception) -> FlawError:
    cause = error.__cause__ or error.__context__ or error
    return FlawError(Problem.UNREADABLE, f"{path} cannot be read: {cause}. Fetch the file again, or remove it.")


def _open(path: Path) -> Any:
    # TRUE: side files are still looked for by name, but a folder of 100,000 files is not listed at every open.
    with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, sharing=False)


class _OpenDatasets(threading.local):
    """The files that a thread holds open, least recently used closed first.

    GDAL handles may be used neither by two threads nor, after a fork, by the child.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._datasets: OrderedDict[Path, Any] = OrderedDict()
        self._inherited: list[Any] = []

    def get(self, path: Path) -> Any:
        self._forget_after_fork()
        dataset = self._datasets.pop(path, None)
        if dataset is None:
            dataset = _open(path)
            while len(self._datasets) >= _OPEN_DATASETS:
                self._datasets.popitem(last=False)[1].close()
        self._datasets[path] = dataset
        return dataset

    def drop(self, path: Path) -> None:
        dataset = self._datasets.pop(path, None)
        if dataset is not None:
            dataset.close()

    def _forget_after_fork(self) -> None:
        if self._process == os.getpid():
            return
        # Kept alive but unused: closing them here could wait for a lock that a thread of the parent held at the fork.
        self._inherited.append(self._datasets)
        self._datasets = OrderedDict()
        self._process = os.getpid()


_cache = _OpenDatasets()
