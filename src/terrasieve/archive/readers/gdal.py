"""The one place where GDAL opens a file: by the driver of its suffix, without side files, if its header can be true.

GDAL finds out by itself what a file is, and some formats only point to other files or addresses (VRT, WMS and their
like). A file named ``x.tif`` is therefore opened as a TIFF or not at all. Overviews, masks and metadata beside a file
(``.ovr``, ``.msk``, ``.aux.xml``) may be of any format and are not looked for.
"""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.env import getenv, hasenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.byte_limits import check_bytes
from terrasieve.archive.readers.meaning import Stated

REFUSALS = (RasterioError, CPLE_BaseError)
"""How GDAL says that it cannot do something.

Mostly it becomes a ``RasterioError``, but what a header's attributes ask it (colours, tags, transform), and what it
finds wrong with a coordinate system, comes as it is, and rasterio has no public name for that.
"""

FAILURES = (*REFUSALS, OSError, ValueError, IndexError, MemoryError)
"""What opening and reading a damaged raster file may raise."""


@dataclass(frozen=True)
class ZipMember:
    """A file in a zip on this machine.

    Attributes:
        archive: The zip.
        name: Path of the file within it.
    """

    archive: Path
    name: str

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    def __fspath__(self) -> str:
        return str(self.archive)


Address = Path | str | ZipMember
"""A local file, or one in a local zip; or, as text, a name of GDAL's virtual file systems such as
``/vsicurl/https://...``."""

DRIVERS: Mapping[str, str] = {
    ".tif": "GTiff",
    ".tiff": "GTiff",
    ".gtiff": "GTiff",
    ".jp2": "JP2OpenJPEG",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
}
"""The only driver that may open a file, by its suffix in lower case."""

# Pictures lie nowhere, and need not say so. What a thread ignores for the time being, another one may bring back.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

_REMOTE = ("/vsicurl/http://", "/vsicurl/https://", "/vsis3/", "/vsigs/")
"""How the name of a file on the net begins; no other of GDAL's file systems is opened."""
_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
_NET_OPTIONS = {
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
}
"""How GDAL reads what is not a local file: a busy server (429, 5xx) is asked again."""

_MUCH = 2**28
"""Bytes of pixels, 256 MiB, from which on a file is asked whether it can hold what its header claims."""
_DENSEST = 2_000
"""Bytes of pixels that a byte of a file may stand for: deflate reaches 1,000 at best, on nothing but zeros."""


@dataclass(frozen=True)
class Raster:
    """An open raster file, with what it says of its values.

    Attributes:
        dataset: The open dataset of rasterio.
        stated: What the file says of the values of each band.
        masks: Of each band, whether validity is stored as a mask or an alpha band.
        alpha: Position of the alpha band, from 0; None where there is none.
        bytes: Size of the local file when it was opened; None of what is none.
    """

    dataset: Any
    stated: tuple[Stated, ...]
    masks: tuple[bool, ...]
    alpha: int | None
    bytes: int | None = None

    @classmethod
    def of(cls, dataset: Any, size: int | None = None) -> Raster:
        """The raster that an open dataset of rasterio shows.

        Args:
            dataset: An open dataset of rasterio.
            size: Size of its local file in bytes; None where there is none.

        Raises:
            SampleError: Its metadata names another file to read overviews from, which may lie anywhere.
        """
        if "OVERVIEW_FILE" in dataset.tags(ns="OVERVIEWS"):
            raise FlawError(
                Problem.UNREADABLE,
                f"{dataset.name} takes overviews from a file elsewhere, which is not followed. Write it again without "
                "the metadata OVERVIEW_FILE.",
            )
        rows = zip(dataset.nodatavals, dataset.scales, dataset.offsets, strict=True)
        stored = {MaskFlags.per_dataset, MaskFlags.alpha}
        alphas = [place for place, kind in enumerate(dataset.colorinterp) if kind is ColorInterp.alpha]
        return cls(
            dataset,
            tuple(Stated(*row) for row in rows),
            tuple(bool(stored & set(flags)) for flags in dataset.mask_flag_enums),
            alphas[0] if alphas else None,
            size,
        )

    def close(self) -> None:
        """Give the file back."""
        self.dataset.close()

    def masked(self, band: int, count: int) -> bool:
        """Whether a mask or an alpha band says which pixels of a band are valid.

        Args:
            band: Position in the file, from 0.
            count: Number of bands that the sensor takes from the file: an alpha band among them is one of its bands.
        """
        return self.masks[band] and (self.alpha is None or self.alpha >= count)

    def pixels(
        self,
        bands: Sequence[int],
        window: Any = None,
        size: tuple[int, int] | None = None,
        how: Resampling = Resampling.bilinear,
    ) -> NDArray[Any]:
        """Pixels of some bands as they are stored, shape ``(len(bands), height, width)``.

        Args:
            bands: Positions in the file, from 0.
            window: The part wanted, as a window of rasterio; all of it when None.
            size: Rows and columns to resample to; as stored when None.
            how: The way in which they are resampled.

        Raises:
            SampleError: The pixels would take more than :data:`terrasieve.archive.readers.byte_limits.MOST_BYTES`.
        """
        height, width = size or ((window.height, window.width) if window else self.dataset.shape)
        check_bytes(self.dataset.name, len(bands), height, width, pixel_bytes(self.dataset) / self.dataset.count)
        return np.asarray(self.dataset.read([band + 1 for band in bands], **_part(window, size, how)))

    def absent(
        self, bands: Sequence[int], window: Any = None, size: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Where the mask or the alpha band says that nothing was measured; as :meth:`pixels`, by nearest pixel."""
        part = _part(window, size, Resampling.nearest)
        masks = np.asarray(self.dataset.read_masks([band + 1 for band in bands], **part))
        empty: NDArray[np.bool_] = masks == 0
        return empty

    def mixed_in(self, band: int, values: Sequence[float], window: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Where one of some values takes part in a pixel that is resampled (bilinear), shape ``size``.

        GDAL leaves out what the file itself marks as missing, and knows nothing of what is stated elsewhere.

        Args:
            band: Position in the file, from 0.
            values: What is looked for, as it is stored.
            window: The part that is resampled, as a window of rasterio; all of the file when None.
            size: Rows and columns that it is resampled to.
        """
        part = window or Window(0, 0, self.dataset.width, self.dataset.height)
        axes = ((part.row_off, part.height, size[0]), (part.col_off, part.width, size[1]))
        # Two stored pixels take part along each axis, those on both sides of the centre of the new one.
        between = [start + (np.arange(count) + 0.5) * (length / count) - 0.5 for start, length, count in axes]
        sides = [
            [np.clip(round_(places), 0, stored - 1).astype(np.int64) for round_ in (np.floor, np.ceil)]
            for places, stored in zip(between, self.dataset.shape, strict=True)
        ]
        (top, bottom), (left, right) = ((low[0], high[-1] + 1) for low, high in sides)
        stored = self.dataset.read(band + 1, window=Window(left, top, right - left, bottom - top))
        marked = np.isin(stored, list(values))
        mixed = np.zeros(size, np.bool_)
        for rows in sides[0]:
            for columns in sides[1]:
                mixed |= marked[np.ix_(rows - top, columns - left)]
        return mixed


def open_raster(address: Address) -> Raster:
    """Open a file by the driver of its suffix.

    Args:
        address: A local file, or one in a local zip; or, as text, a name on the net that begins with
            ``/vsicurl/http``, ``/vsis3/`` or ``/vsigs/``.

    Raises:
        SampleError: The suffix or the file system is none that is read, the header claims more than the file can
            hold, or a zip is damaged or has no such file.
        RasterioError: The file is absent, damaged, or of another format than its suffix says.
    """
    remote = isinstance(address, str)
    # Of a file in a zip, the zip is what has to lie on this machine.
    place = address if isinstance(address, str) else os.path.join(os.getcwd(), address)
    if place.startswith("/vsi") and not (remote and place.startswith(_REMOTE)):
        raise FlawError(Problem.UNREADABLE, f"{place} is in a virtual file system of GDAL, which is not read; copy it.")
    # NON_CACHED: or else GDAL answers from memory that a file could not be read, however often one tries.
    options = {**_OPTIONS, **({**_NET_OPTIONS, "CPL_VSIL_CURL_NON_CACHED": place} if remote else {})}
    size = None if isinstance(address, str) else _bytes_of(address)
    place = f"/vsizip/{{{place}}}/{address.name}" if isinstance(address, ZipMember) else place
    # Entering and leaving options costs as much as they do: where they hold already, nothing is done.
    held = hasenv() and options.items() <= getenv().items()
    with warnings.catch_warnings(), nullcontext() if held else rasterio.Env(**options):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        # rasterio.open makes an environment for each file, which is for the credentials of an address on the net.
        dataset = (rasterio.open if remote else DatasetReader)(place, driver=driver_of(address), sharing=False)
    try:
        _check_claim(dataset, str(address), size)
        return Raster.of(dataset, size)
    except Exception:
        dataset.close()
        raise


def many_files() -> AbstractContextManager[Any]:
    """How a process that opens many files says once, and not at each of them, how GDAL is to open them."""
    environment: AbstractContextManager[Any] = rasterio.Env(**_OPTIONS)
    return environment


@contextmanager
def open_blob(blob: bytes, name: str) -> Iterator[Raster]:
    """Open a TIFF that lies in memory, as one that is a value of a table.

    Args:
        blob: Content of the file.
        name: What errors call it.

    Raises:
        SampleError: Its header claims more than the bytes can hold.
        RasterioError: It is damaged, or no TIFF.
    """
    with MemoryFile(blob) as file, file.open(driver="GTiff") as dataset:
        _check_claim(dataset, name, len(blob))
        yield Raster.of(dataset)


@contextmanager
def open_pixels(pixels: NDArray[Any]) -> Iterator[Raster]:
    """Pixels that were decoded by something else as a raster, so that they are resampled as those of files are.

    Args:
        pixels: One band, shape ``(height, width)``.
    """
    height, width = pixels.shape
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": pixels.dtype}
    with warnings.catch_warnings(), MemoryFile() as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(**profile) as dataset:
            dataset.write(pixels, 1)
        with file.open(driver="GTiff") as dataset:
            yield Raster.of(dataset)


def driver_of(address: Address) -> str:
    """The only driver that may open a file.

    Args:
        address: As for :func:`open_raster`. What is on the net and has no suffix is taken for a TIFF.

    Raises:
        SampleError: The suffix is none that is read.
    """
    remote = isinstance(address, str)
    path = urlsplit(address.removeprefix("/vsicurl/")).path if isinstance(address, str) else str(address)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in DRIVERS:
        return DRIVERS[suffix]
    if remote:
        return "GTiff"
    raise FlawError(
        Problem.UNREADABLE, f"{address} is none of {', '.join(DRIVERS)}, by which files are opened. Convert it."
    )


def pixel_bytes(dataset: Any) -> int:
    """Bytes of one pixel of all bands of an open dataset."""
    # GDAL's complex 16-bit integers, as in radar products, are no type of numpy's.
    return sum(np.dtype("int32" if kind == "complex_int16" else kind).itemsize for kind in dataset.dtypes)


def _bytes_of(address: Path | ZipMember) -> int:
    """Bytes that a file takes, in its zip where it lies in one.

    Raises:
        SampleError: The zip is damaged, has no such file, or cannot be named to GDAL.
        OSError: There is no such file or zip.
    """
    if isinstance(address, Path):
        return address.stat().st_size
    if {"{", "}"} & set(str(address)):
        raise FlawError(Problem.UNREADABLE, f"{address} has a brace in its name, which GDAL cannot open; rename it.")
    try:
        with zipfile.ZipFile(address.archive) as opened:
            return opened.getinfo(address.name).compress_size
    except (zipfile.BadZipFile, KeyError) as error:
        raise FlawError(Problem.UNREADABLE, f"{address} cannot be read: {error}. Fetch the zip again.") from error


def _part(window: Any, size: tuple[int, int] | None, how: Resampling) -> dict[str, Any]:
    if size is None:
        return {"window": window}
    return {"window": window, "out_shape": size, "resampling": how}


def _check_claim(dataset: Any, name: str, size: int | None) -> None:
    """Refuse a header that claims far more pixels than the file can hold, before anybody makes room for them.

    Of a file on the net, whose ``size`` nobody knows, only the blocks are looked at.
    """
    each = pixel_bytes(dataset)
    for rows, columns in dataset.block_shapes:
        # Who reads a corner decodes the whole block that it lies in.
        check_bytes(name, 1, rows, columns, each / dataset.count)
    claimed = math.prod(dataset.shape) * each
    if size is not None and claimed >= _MUCH and claimed > _DENSEST * size:
        raise FlawError(
            Problem.UNREADABLE,
            f"{name} claims {dataset.height:,}x{dataset.width:,} px in {size:,} bytes, so its header is damaged. "
            "Fetch the file again, or remove it.",
        )
