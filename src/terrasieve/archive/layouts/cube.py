"""Data cubes: a NetCDF file or a Zarr store over time, band, y and x, in any order, or with a variable a band."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from pydantic import Field

from terrasieve.archive.cubes.cube_archive import open_cube
from terrasieve.archive.cubes.cube_axes import PLANES
from terrasieve.archive.cubes.guarded_opening import NETCDF, has_axes, is_netcdf, is_zarr
from terrasieve.archive.derived.seasons import Seasons, seasons_as
from terrasieve.archive.folders import list_files
from terrasieve.archive.layout import DataSet, Recognition
from terrasieve.archive.packed.store import is_packed_store
from terrasieve.archive.products.tiled_products import ProductsSpec
from terrasieve.archive.protocol import Archive
from terrasieve.archive.scenes.survey import Edge
from terrasieve.errors import ConfigError
from terrasieve.sensors import SENSORS, Sensor, anchored_sensor, load_sensor


class CubeSpec(ProductsSpec):
    """A cube and how to cut it.

    Attributes:
        root: The NetCDF file or the Zarr store.
        sensor: What its bands are of: name of a built-in sensor, path of a YAML declaration, or the declaration itself;
            found by the names of the bands when None.
        key: What the sensor is called in the archive; the first part of its name, such as ``s2``, when None.
        tile: Rows and columns of a sample.
        seasons: ``samples``: each step of time is a sample, beside the others of its place. ``views``: a place is, with
            the sensors of every step.
    """

    layout: Literal["cube"] = "cube"
    sensor: str | Sensor | None = None
    key: str | None = None
    tile: int = Field(default=64, ge=1)
    seasons: Seasons = "samples"

    data_set = DataSet(
        title="data cubes in NetCDF or Zarr",
        sensors="any, named by you or by their bands",
        page="../how-to/own-scenes.md",
    )

    def open(self) -> Archive:
        """The archive; see :class:`terrasieve.archive.cubes.cube_archive.CubeArchive`."""
        spec = self.self_contained()
        sensor = load_sensor(spec.sensor) if isinstance(spec.sensor, str) else spec.sensor
        return seasons_as(open_cube(spec, sensor, spec.key), spec.seasons)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the suffix of a NetCDF file, or the axes of an array directly below the root of a store."""
        if is_netcdf(folder):
            return Recognition(1.0, "a NetCDF file", cls(root=folder))
        # The arrays of a packed store have rows and columns, too.
        if not is_zarr(folder) or is_packed_store(folder) or not has_axes(folder, PLANES):
            return None
        return Recognition(0.7, "a Zarr store of arrays over y and x", cls(root=folder))

    @classmethod
    def near_miss(cls, folder: Path) -> str | None:
        """A folder of NetCDF files, of which one is an archive."""
        first = next((path for kind in NETCDF for path in list_files(folder, kind)), None)
        if first is None:
            return None
        command = shlex.join(["terrasieve", "info", str(first)])
        return f"It holds NetCDF files, each of which is an archive; name one: {command}"

    def anchored(self, folder: Path) -> CubeSpec:
        """The same with a relative root, and a sensor that is a file, taken from a folder."""
        sensor = None if self.sensor is None else anchored_sensor(self.sensor, folder)
        return super().anchored(folder).model_copy(update={"sensor": sensor})

    def self_contained(self) -> CubeSpec:
        """The same with an absolute root and with a sensor declared in a YAML file written out."""
        known = self.sensor is None or (isinstance(self.sensor, str) and self.sensor in SENSORS)
        sensor = self.sensor if known or not isinstance(self.sensor, str) else load_sensor(self.sensor)
        return self.model_copy(update={"root": self.root.resolve(), "sensor": sensor})


def is_cube(path: Path) -> bool:
    """Whether a path is a NetCDF file, or a Zarr store with arrays over y and x."""
    return CubeSpec.recognise(path) is not None


def cube_spec_from_options(
    root: Path, sensors: list[str], tile: int = 64, stride: int | None = None, edge: Edge = "drop"
) -> CubeSpec:
    """A spec from what fits on a command line.

    Args:
        root: The NetCDF file or the Zarr store.
        sensors: One ``key=sensor``.
        tile: Rows and columns of a sample, in pixels, at least 1.
        stride: Pixels from the first row of one sample to that of the next; ``tile`` when None.
        edge: What becomes of the remainder at the far edges.

    Raises:
        ConfigError: The entry is malformed, or there are several.
    """
    key, _, sensor = sensors[0].partition("=")
    if len(sensors) > 1 or not key or not sensor:
        raise ConfigError(f"{root} is a cube, of one --sensor key=sensor, such as s2=s2-l2a, not {' '.join(sensors)}.")
    return CubeSpec(root=root, sensor=sensor, key=key, tile=tile, stride=stride, edge=edge)
