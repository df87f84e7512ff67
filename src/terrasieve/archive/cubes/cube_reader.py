"""What a cube holds, and the tiles of it: read window by window, whether it lies in a file, a store or in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.cubes.cube_axes import Axes, Transform, crs_of, find_axes, times_of, transform_of
from terrasieve.archive.cubes.cube_bands import CubeBand, bands_in, choose_bands, in_unit, read_bands
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import missing
from terrasieve.archive.readers.byte_limits import check_array_bytes
from terrasieve.archive.readers.geotiff import Header
from terrasieve.archive.readers.tile_header import tile_header
from terrasieve.errors import ArchiveError, BandError
from terrasieve.sensors import Sensor

Opened = Callable[[], AbstractContextManager[Any]]
"""Gives the ``xarray.Dataset`` of a cube; what cannot be read of it within is a sample error."""
_MASK_ROWS = 32
"""Rows, and columns, of a tile that are looked at to see where nothing was measured."""


@dataclass(frozen=True)
class Cube:
    """What a cube says of itself.

    Attributes:
        name: What samples are named after.
        sensor: The bands that are read.
        bands: Where each of them lies.
        axes: Names of its dimensions.
        height: Number of rows.
        width: Number of columns.
        times: When each step was taken; None where it does not say.
        crs: Coordinate reference system, such as ``EPSG:32632``; None where it does not say.
        transform: The affine a-f of its grid; None where it has none.
    """

    name: str
    sensor: Sensor
    bands: tuple[CubeBand, ...]
    axes: Axes
    height: int
    width: int
    times: tuple[datetime | None, ...]
    crs: str | None
    transform: Transform | None


def describe_cube(dataset: Any, sensor: Sensor | None, name: str, what: str) -> Cube:
    """What a cube says of itself; coordinates and attributes are read, no pixels.

    Args:
        dataset: An ``xarray.Dataset``.
        sensor: What its bands are of; found by their names when None.
        name: What samples are named after.
        what: The cube, as errors name it.

    Raises:
        ArchiveError: It has no rows and columns, a further axis, or bands of several types.
        BandError: Its bands are not those of the sensor, or of no sensor that is known.
    """
    axes = find_axes(dataset)
    if axes is None:
        raise ArchiveError(
            f"{what} has the axes {', '.join(map(str, dataset.dims)) or 'none'}, and none that is called y and x, lat "
            "and lon or the like. Give them such names with the rename method of xarray."
        )
    chosen, bands = choose_bands(bands_in(dataset, axes, what), sensor, what)
    kinds = {str(dataset[band.variable].dtype): band.said for band in bands}
    if len(kinds) > 1:
        held = ", ".join(f"{said} of {kind}" for kind, said in kinds.items())
        raise BandError(f"{what} holds {held}; name a sensor without one of them, or write them in one type.")
    first = bands[0].variable
    height, width = (int(dataset.sizes[dim]) for dim in (axes.y, axes.x))
    place = transform_of(dataset, axes, first)
    crs = crs_of(dataset, axes, first, what)
    return Cube(name, chosen, tuple(bands), axes, height, width, tuple(times_of(dataset, axes)), crs, place)


def step_names(cube: Cube) -> list[str]:
    """A unique name for each step of time: the cube's, with the time or else the number of the step."""
    if cube.axes.time is None:
        return [cube.name]
    texts = [f"{time:%Y%m%dT%H%M%S}" if time else f"{step:04d}" for step, time in enumerate(cube.times)]
    return [
        f"{cube.name}-{text}" if texts.count(text) == 1 else f"{cube.name}-{text}-{step:04d}"
        for step, text in enumerate(texts)
    ]


class CubeReader:
    """Reads tiles; an address is ``<step>/<row>_<column>`` of the tile's first pixel.

    Args:
        cube: What is read.
        opened: Gives its data set.
        files: What it is read from, the file or store first; empty in memory.
        tile: Rows and columns of a tile.
    """

    def __init__(self, cube: Cube, opened: Opened, files: Sequence[Path], tile: int) -> None:
        self.sensor, self.tile = cube.sensor, tile
        self._cube, self._opened, self._files = cube, opened, tuple(files)
        self._steps = {name: step for step, name in enumerate(step_names(cube))}

    def files(self, address: str) -> tuple[Path, ...]:
        """The file, or the store and the metadata of its arrays."""
        return self._files

    def shape(self, address: str) -> tuple[int, int]:
        """Height and width of every tile."""
        return (self.tile, self.tile)

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor; see ``PatchReader.read``."""
        step, row, column = self._place(address)
        part = window or Window(0, 0, self.tile, self.tile)
        rows = slice(row + part.top, row + part.top + part.height)
        columns = slice(column + part.left, column + part.left + part.width)
        return self._read(step, positions, rows, columns)

    def header(self, address: str) -> Header | None:
        """Where a tile lies; None where the cube does not say."""
        cube = self._cube
        if cube.transform is None or cube.crs is None:
            return None
        _, row, column = self._place(address)
        return tile_header(
            cube.name, cube.crs, cube.transform, bands=len(cube.bands), tile=self.tile, row=row, column=column
        )

    def empty(self, step: int) -> NDArray[np.bool_]:
        """Where the first band was not measured at a step, at some pixels of each tile.

        Args:
            step: Position in time; a row of tiles is read at a time.
        """
        skip = max(1, self.tile // _MASK_ROWS)
        height, width = self._cube.height, self._cube.width
        strips = [
            self._read(step, [0], slice(top, min(top + self.tile, height)), slice(0, width))
            for top in range(0, height, self.tile)
        ]
        return np.concatenate([missing(one[0], self.sensor.nodata)[::skip, ::skip] for one in strips])

    def _read(self, step: int, positions: Sequence[int], rows: slice, columns: slice) -> NDArray[Any]:
        cube = self._cube
        shape = (len(positions), rows.stop - rows.start, columns.stop - columns.start)
        with self._opened() as dataset:
            kind = dataset[cube.bands[0].variable].dtype
            check_array_bytes(cube.name, shape, kind.itemsize)
            place: dict[str, Any] = {cube.axes.y: rows, cube.axes.x: columns}
            if cube.axes.time is not None:
                place[cube.axes.time] = step
            pixels = read_bands(dataset, cube.axes, cube.bands, positions, place)
            return np.ascontiguousarray(in_unit(dataset, cube.bands, cube.sensor, positions, pixels, cube.name))

    def _place(self, address: str) -> tuple[int, int, int]:
        step, _, corner = address.rpartition("/")
        row, _, column = corner.partition("_")
        return self._steps[step], int(row), int(column)
