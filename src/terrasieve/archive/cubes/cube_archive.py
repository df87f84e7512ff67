"""Archives of cubes: each step of time is cut into the same tiles, which share a location."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.cubes.cube_axes import find_axes
from terrasieve.archive.cubes.cube_bands import bands_in
from terrasieve.archive.cubes.cube_reader import Cube, CubeReader, Opened, describe_cube, step_names
from terrasieve.archive.cubes.guarded_opening import files_of, reading_cube, require_xarray
from terrasieve.archive.folders import NotTaken
from terrasieve.archive.products.tiled_products import Product, ProductsArchive, ProductsSpec
from terrasieve.console import track_many
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.sensors import Sensor

IN_MEMORY = "cube-in-memory"
"""What provenance calls the layout of a cube that lies in no file."""
_NAME_IN_MEMORY = "cube"


class CubeArchive(ProductsArchive):
    """Tiles of every step of a cube; a sample's id is ``<cube>-<time>/<row>_<column>`` of its first pixel.

    The table has ``location``, equal for one tile at all times, and ``season``, the number of the step from 0.

    Args:
        spec: How the cube is cut; its root is whole.
        cube: What it holds.
        opened: Gives its data set.
        key: What the sensor is called; the first part of its name when None.
        files: What it is read from; empty in memory, where no step is searched for tiles without data.

    Raises:
        ArchiveError: The cube is smaller than a tile, or all tiles lie over no-data.
    """

    def __init__(
        self, spec: ProductsSpec, cube: Cube, opened: Opened, key: str | None, files: tuple[Path, ...]
    ) -> None:
        self._cube, self._opened = cube, opened
        reader = CubeReader(cube, opened, files, spec.tile)
        masks: Iterable[NDArray[np.bool_]] = [np.zeros((1, 1), np.bool_)] * len(cube.times)
        if files and spec.max_nodata < 1 and min(cube.height, cube.width) >= spec.tile:
            masks = map(reader.empty, track_many(range(len(cube.times)), f"Steps of {cube.name}"))
        steps = [
            Product(
                name=name,
                path=spec.root,
                height=cube.height,
                width=cube.width,
                scenes={},
                empty=empty,
                time=time,
                columns={"season": step},
                tile_columns=partial(_locations, cube.name),
            )
            for step, (name, time, empty) in enumerate(zip(step_names(cube), cube.times, masks, strict=True))
        ]
        super().__init__(spec, steps, lambda products: {key or cube.sensor.key: reader})

    @property
    def not_taken(self) -> NotTaken:
        """The pixels at the edges; a store's own files are all of it."""
        return NotTaken(edges=self._listing.edges)


class MemoryCubeArchive(CubeArchive):
    """Tiles of an ``xarray.Dataset`` that is in memory, or read when its windows are asked for, as those of dask are.

    Args:
        dataset: The cube.
        sensor: What its bands are of; found by their names when None.
        key: What the sensor is called; the first part of its name when None.
        tile: Rows and columns of a sample; fewer where the cube has fewer.

    Raises:
        ArchiveError: It has no rows and columns, or a further axis.
        BandError: Its bands are not those of the sensor, or of no sensor that is known.
    """

    def __init__(self, dataset: Any, sensor: Sensor | None, key: str | None, tile: int) -> None:
        cube = describe_cube(dataset, sensor, _NAME_IN_MEMORY, "The cube")
        spec = _InMemory(root=Path(_NAME_IN_MEMORY), tile=min(tile, cube.height, cube.width), edge="drop")
        super().__init__(spec, cube, partial(_as_it_is, dataset), key, ())
        del self.__dict__["spec"]  # nothing could open it again, which is what is said where there is none

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance; ``fingerprint`` is of coordinates and attributes, and of the pixels where they are in memory."""
        return {
            "layout": IN_MEMORY,
            "root": None,
            "sensors": {key: sensor.name for key, sensor in self.sensors.items()},
            "simulated": False,
            "fingerprint": self._fingerprint,
        }

    def _name(self, index: int, sensor: str) -> str:
        return f"tile {self._listing.ids[index]}"

    @cached_property
    def _fingerprint(self) -> str:
        found = hashlib.sha256()
        with self._opened() as dataset:
            for name, one in sorted(dataset.variables.items(), key=lambda item: str(item[0])):
                found.update(repr((name, one.dims, one.shape, str(one.dtype), sorted(one.attrs))).encode())
                if one.chunks is None and "source" not in one.encoding:
                    found.update(np.ascontiguousarray(one.values).tobytes())
                else:
                    # Read when it is asked for: what it is read from stands for it.
                    found.update(repr((one.encoding.get("source"), getattr(one.data, "name", None))).encode())
        return found.hexdigest()


def open_cube(spec: ProductsSpec, sensor: Sensor | None, key: str | None) -> CubeArchive:
    """The archive of a NetCDF file or a Zarr store.

    Args:
        spec: How it is cut; its root is the file or store.
        sensor: What its bands are of; found by their names when None.
        key: What the sensor is called; the first part of its name when None.

    Raises:
        ArchiveError: It is not there, cannot be read, or is no cube.
        BandError: Its bands are not those of the sensor, or of no sensor that is known.
    """
    path = spec.root
    if not path.exists():
        raise ArchiveError(f"{path} does not exist; name the NetCDF file or the Zarr store.")
    opened = partial(reading_cube, path)
    try:
        with opened() as dataset:
            cube = describe_cube(dataset, sensor, path.stem, str(path))
    except SampleError as error:
        raise ArchiveError(str(error)) from error
    return CubeArchive(spec, cube, opened, key, files_of(path, sorted({band.variable for band in cube.bands})))


def cube_in(source: object) -> Any:
    """The ``xarray.Dataset`` of what is an xarray object with rows and columns; None of what is something else.

    Args:
        source: Whatever a user holds; xarray is not imported for what is no object of it.
    """
    if type(source).__module__.partition(".")[0] != "xarray":
        return None
    xarray = require_xarray("The cube")
    if isinstance(source, xarray.DataArray):
        if find_axes(source) is None:
            return None
        return source.to_dataset(name="pixels" if source.name is None or source.name in source.coords else source.name)
    return source if isinstance(source, xarray.Dataset) else None


def names_in(dataset: Any) -> list[str]:
    """Names of the bands of an ``xarray.Dataset``; none where it has no rows and columns."""
    axes = find_axes(dataset)
    return [] if axes is None else [band.said for band in bands_in(dataset, axes, "The cube")]


class _InMemory(ProductsSpec):
    layout: str = IN_MEMORY

    def open(self) -> CubeArchive:
        raise ArchiveError("A cube in memory cannot be opened again; write it as NetCDF or Zarr and name that.")


@contextmanager
def _as_it_is(dataset: Any) -> Iterator[Any]:
    yield dataset


def _locations(name: str, corners: NDArray[np.int64]) -> dict[str, pa.Array]:
    return {"location": pa.array([f"{name}/{row}_{column}" for row, column in corners.tolist()], pa.string())}
