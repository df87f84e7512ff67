"""Tiles of items: the grid of each item, and its pixels, by range requests where they lie on the net."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.gdal import Address
from terrasieve.archive.readers.geotiff import (
    Header,
    PixelGrid,
    read_grid,
    read_stretched,
    read_window,
)
from terrasieve.archive.readers.meaning import Meaning, meanings
from terrasieve.archive.readers.tile_header import tile_header
from terrasieve.archive.stac.items import unsigned
from terrasieve.archive.stac.values import values_stated
from terrasieve.sensors import Sensor

_PAUSES = (0.5, 1.0, 2.0)
"""Seconds before the second attempt and the further ones."""

ATTEMPTS = len(_PAUSES) + 1

_TOLERANCE = 1.0
"""Pixels of the finest band by which the corners of others may be off."""

T = TypeVar("T")


@dataclass(frozen=True)
class BandFile:
    """One band of an item.

    Attributes:
        address: Path of its file, or its name in GDAL's virtual file systems, such as ``/vsicurl/https://...``.
        position: Position of the band in the file, from 0.
        height: Number of rows of the file.
        width: Number of columns of the file.
        stated: What the item, or the product, says of the values of the band, by attribute of ``Stated``.
    """

    address: Address
    position: int
    height: int
    width: int
    stated: Mapping[str, float] = field(default_factory=dict)

    @property
    def public(self) -> str:
        """The address without a signature, as catalogues and messages give it."""
        return unsigned(str(self.address))

    @property
    def file(self) -> Path:
        """The file, or the zip that it lies in; of an address on the net a path that does not exist."""
        return Path(self.public if isinstance(self.address, str) else self.address)


@dataclass(frozen=True)
class StacScene:
    """One item as one sensor sees it; its grid is that of the band with the most pixels, the finest.

    Attributes:
        bands: The file of each band, in the sensor's order.
        height: Number of rows of the finest band.
        width: Number of columns of the finest band.
        crs: Coordinate reference system, such as ``EPSG:32632``; None where none is stated.
        transform: Affine coefficients a to f of the finest band, from columns and rows to coordinates of the system.
        documents: Files that say what the values mean, beside those of the bands.
    """

    bands: tuple[BandFile, ...]
    height: int
    width: int
    crs: str | None
    transform: tuple[float, float, float, float, float, float]
    documents: tuple[Path, ...] = ()


class TileReader:
    """Reads tiles; an address is ``<item>/<row>_<column>`` of the tile's first pixel.

    Args:
        sensor: The sensor, whose bands the files hold.
        scenes: The scene of each item, by the item's name.
        tile: Rows and columns of a tile, in pixels of the finest band.
    """

    def __init__(self, sensor: Sensor, scenes: Mapping[str, StacScene], tile: int) -> None:
        self.sensor, self.tile = sensor, tile
        self._scenes = scenes

    def files(self, address: str) -> tuple[Path, ...]:
        """The file of each band, without signatures; a path cannot hold addresses on the net, which the table has."""
        scene, _, _ = self._scene(address)
        return (*(band.file for band in scene.bands), *scene.documents)

    def shape(self, address: str) -> tuple[int, int]:
        """Height and width of every tile, in pixels of the finest band."""
        return (self.tile, self.tile)

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor, coarser ones resampled to the finest; see ``PatchReader.read``."""
        scene, row, column = self._scene(address)
        part = window or Window(0, 0, self.tile, self.tile)
        place = Window(row + part.top, column + part.left, part.height, part.width)
        return read_bands(scene, self.sensor, positions, place)

    def header(self, address: str) -> Header:
        """Where a tile lies, as the item says."""
        scene, row, column = self._scene(address)
        return tile_header(
            scene.bands[0].public,
            scene.crs,
            scene.transform,
            bands=len(scene.bands),
            tile=self.tile,
            row=row,
            column=column,
        )

    def _scene(self, address: str) -> tuple[StacScene, int, int]:
        # From the right: names of items may hold slashes.
        item, _, corner = address.rpartition("/")
        row, _, column = corner.partition("_")
        return self._scenes[item], int(row), int(column)


def read_bands(scene: StacScene, sensor: Sensor, positions: Sequence[int], place: Window) -> NDArray[Any]:
    """Pixels of a scene on the grid of its finest band, to which coarser ones are resampled.

    Args:
        scene: The file of each band.
        sensor: Declares the bands.
        positions: Of the bands wanted in the sensor, from 0.
        place: Rows and columns of the finest band.

    Returns:
        Array of shape ``(len(positions), place.height, place.width)``.

    Raises:
        SampleError: A file cannot be read, or states a scale that contradicts the sensor.
    """
    wanted = [scene.bands[position] for position in positions]
    # An alpha band of a picture is none of the sensor's, wherever its bands are.
    meant = [
        replace(one, stated=band.stated) for one, band in zip(meanings(sensor, positions, count=0), wanted, strict=True)
    ]
    if len({band.address for band in wanted}) == 1 and _is_finest(wanted[0], scene):
        # All bands wanted are in one file, on the scene's own grid: they are read together.
        together = [band.position for band in wanted]
        return patiently(wanted[0].address, partial(read_window, bands=together, window=place, wanted=meant))
    parts = zip(wanted, meant, strict=True)
    return np.stack([patiently(band.address, partial(_read_band, band, one, scene, place)) for band, one in parts])


def plan_scene(files: Sequence[tuple[Address, int, Mapping[str, Any]]], name: str) -> StacScene:
    """The scene that files make, from what the item says of their grids, or else from their headers.

    Args:
        files: Address, band of the file from 0, and the asset's properties (with those of the item), of each band.
        name: Name of the item, for messages.

    Raises:
        SampleError: A header cannot be read, or the files do not cover the same ground.
    """
    grids = [_stated_grid(said) or patiently(address, read_grid) for address, _, said in files]
    bands = tuple(
        BandFile(address, position, grid.height, grid.width, values_stated(said, position))
        for (address, position, said), grid in zip(files, grids, strict=True)
    )
    return join_bands(bands, grids, f"item {name}")


def join_bands(bands: Sequence[BandFile], grids: Sequence[PixelGrid], what: str) -> StacScene:
    """The scene that bands make, on the grid of the finest.

    Args:
        bands: Files of the bands.
        grids: Where the pixels of each lie.
        what: What they are the bands of, for messages.

    Raises:
        SampleError: They do not cover the same ground.
    """
    finest = max(grids, key=lambda grid: grid.height * grid.width)
    for band, grid in zip(bands, grids, strict=True):
        apart = np.abs(_corners(grid) - _corners(finest)).max()
        if grid.crs != finest.crs or apart > _TOLERANCE * abs(finest.transform[0]):
            raise FlawError(
                Problem.GRID,
                f"{band.public} does not cover the same ground as the others of {what}. Crop or warp them alike.",
            )
    return StacScene(tuple(bands), finest.height, finest.width, finest.crs, finest.transform)


def patiently(address: Address, read: Callable[[Any], T]) -> T:
    """Read an address, and again after a pause where it lies on the net and could not be read: connections drop.

    Args:
        address: Path of a file, which is read once, or name in GDAL's virtual file systems.
        read: Function of the address.

    Raises:
        SampleError: It failed :data:`ATTEMPTS` times, or is wrong in another way.
    """
    for pause in (*_PAUSES, None):
        try:
            return read(address)
        except FlawError as error:
            if not isinstance(address, str):
                raise
            if error.problem is not Problem.UNREADABLE:
                raise FlawError(error.problem, unsigned(error.message)) from None
            if pause is None:
                raise FlawError(error.problem, f"{unsigned(error.message)} Tried {ATTEMPTS} times.") from None
            time.sleep(pause)
    raise AssertionError


def _read_band(band: BandFile, wanted: Meaning, scene: StacScene, place: Window, address: Address) -> NDArray[Any]:
    if _is_finest(band, scene):
        pixels: NDArray[Any] = read_window(address, [band.position], place, [wanted])[0]
        return pixels
    # A tile of the finest band begins and ends within a pixel of a coarser one.
    down, right = band.height / scene.height, band.width / scene.width
    box = (place.top * down, place.left * right, place.height * down, place.width * right)
    return read_stretched(address, band.position, box, place.height, place.width, wanted)


def _is_finest(band: BandFile, scene: StacScene) -> bool:
    return (band.height, band.width) == (scene.height, scene.width)


def _stated_grid(said: Mapping[str, Any]) -> PixelGrid | None:
    """The grid as the projection extension states it; None where it does not, or not as a whole."""
    shape, transform = said.get("proj:shape"), said.get("proj:transform")
    # ``proj:epsg`` until version 1 of the extension, ``proj:code`` from version 2 on.
    code = said.get("proj:code") or (f"EPSG:{said['proj:epsg']}" if said.get("proj:epsg") else None)
    if shape is None or transform is None or code is None or not _is_system(str(code)):
        return None
    try:
        height, width = (int(side) for side in shape)
        a, b, c, d, e, f = (float(value) for value in transform[:6])
    except (TypeError, ValueError, OverflowError):
        return None
    if min(height, width) < 1 or not np.isfinite([a, b, c, d, e, f]).all() or not a * e - b * d:
        return None
    return PixelGrid(height, width, str(code), (a, b, c, d, e, f))


@lru_cache(maxsize=1024)
def _is_system(code: str) -> bool:
    """Whether a text names a coordinate reference system; some catalogues write ``EPSG:None``."""
    try:
        return bool(CRS.from_user_input(code))
    except CRSError:
        return False


def _corners(grid: PixelGrid) -> NDArray[np.float64]:
    """Coordinates of the first and the last corner."""
    a, b, c, d, e, f = grid.transform
    return np.array([c, f, a * grid.width + b * grid.height + c, d * grid.width + e * grid.height + f])
