"""Whatever a user holds, as an archive."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from terrasieve.archive.archive_options import ArchiveOptions
from terrasieve.archive.cubes.cube_archive import MemoryCubeArchive, cube_in
from terrasieve.archive.in_memory import ArrayArchive, unnamed_sensor
from terrasieve.archive.layouts.cube import CubeSpec, is_cube
from terrasieve.archive.layouts.pictures import PicturesSpec
from terrasieve.archive.protocol import Archive, BaseArchive
from terrasieve.archive.torch_dataset import DatasetArchive
from terrasieve.band_names import sensor_with
from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.sensors import SENSORS, Sensor, load_sensor

_TILE = 64


def open_source(
    source: object,
    *,
    sensor: str | Sensor | Mapping[str, str] | None = None,
    bands: Sequence[str] | None = None,
    key: str | None = None,
    layout: str | None = None,
    tile: int | None = None,
    labels: Sequence[Any] | None = None,
    ids: Sequence[str] | None = None,
) -> Archive:
    """Open an archive: files of any known layout, or what is in memory.

    Args:
        source: A path or a name, as every ``--data`` of the command line takes it; an array or tensor ``(samples,
            bands, height, width)``; an ``xarray.DataArray`` or ``Dataset`` with rows and columns, such as a cube over
            time, band, y and x, which is cut into tiles and read window by window; a map-style data set of torch's or
            torchgeo's; or an archive, which is given back.
        sensor: What the pixels are: the name of a sensor that is built in (``s2-l2a``), the path of a YAML file, or a
            :class:`~terrasieve.sensors.Sensor`. Of a folder of pictures, the sensor of them all (``rgb8``). Of a
            folder of scenes, the sensor of each subfolder: ``{"s2": "s2-l2a", "s1": "s1"}``. Of a cube, its bands are
            matched by name; without one, the built-in sensor that has them all is taken. Arrays without one get bands
            ``1``, ``2`` and so on, of no unit.
        bands: Of an array or data set: the sensor's bands that it holds, in its order; all of them when None. Without a
            sensor, names for the bands, of which the one built-in sensor that has them all is taken.
        key: Of an array, cube or data set, what the sensor is called in the archive; the first part of its name, such
            as ``s2`` of ``s2-l2a``, when None.
        layout: Of a folder that may be of several layouts, the one that it is of.
        tile: Of scenes, cubes, products and pictures, rows and columns of a sample in pixels. When None, 64 for scenes
            and cubes and each layout's own for the others.
        labels: Of an array, the class of each sample, ``(samples,)``.
        ids: Of an array, the name of each sample, ``(samples,)``.

    Raises:
        ArchiveError: Nothing is there, it is not recognised, or an array or data set is of another form.
        BandError: An array has other bands than the sensor, or several built-in sensors have the bands.
        ConfigError: An argument does not belong to that kind of source, or a sensor is unknown.
    """
    if isinstance(source, BaseArchive):
        _refuse(sensor=sensor, bands=bands, key=key, layout=layout, tile=tile, labels=labels, ids=ids)
        return source
    if isinstance(source, (str, os.PathLike)):
        _refuse(bands=bands, labels=labels, ids=ids)
        path = os.fspath(source)
        if layout is None and not isinstance(sensor, Mapping) and is_cube(Path(path)):
            return CubeSpec(root=Path(path), sensor=sensor, key=key, tile=tile or _TILE).open()
        _refuse(key=key)
        return _open_path(path, sensor, layout, tile)
    _refuse(layout=layout)
    if isinstance(sensor, Mapping):
        raise ConfigError("sensor maps subfolders to sensors for a folder of scenes; an array is of one sensor.")
    if (cube := cube_in(source)) is not None:
        _refuse(bands=bands, labels=labels, ids=ids)
        return MemoryCubeArchive(cube, _named_sensor(sensor, None), key, tile or _TILE)
    _refuse(tile=tile)
    if hasattr(source, "__array__"):
        pixels = np.asarray(source)
        named = _named_sensor(sensor, bands) or unnamed_sensor(pixels)
        known = {} if labels is None else {"label": [None if one is None else str(one) for one in labels]}
        name = key or named.key
        return ArrayArchive({name: pixels}, {name: named}, ids, known)
    _refuse(labels=labels, ids=ids)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return DatasetArchive(source, _named_sensor(sensor, bands), key)
    raise ArchiveError(
        f"{type(source).__name__} is nothing that an archive can be made of. Give a path, an array or tensor of shape "
        "(samples, bands, height, width), or a map-style data set of torch's or torchgeo's."
    )


def _open_path(
    path: str, sensor: str | Sensor | Mapping[str, str] | None, layout: str | None, tile: int | None
) -> Archive:
    if isinstance(sensor, Sensor):
        _refuse(layout=layout)
        return PicturesSpec(root=Path(path), sensor=sensor, tile=tile).open()
    named = [sensor] if isinstance(sensor, str) else [f"{key}={one}" for key, one in (sensor or {}).items()]
    return ArchiveOptions(tuple(named), tile=tile, layout=layout).open(path)


def _named_sensor(sensor: str | Sensor | Mapping[str, str] | None, bands: Sequence[str] | None) -> Sensor | None:
    """The sensor of an array, with the bands that it holds; None where nobody says."""
    if sensor is not None:
        whole = sensor if isinstance(sensor, Sensor) else load_sensor(str(sensor))
        return whole if bands is None else whole.select(*bands)
    return None if bands is None else sensor_with(bands, SENSORS.values())


def _refuse(**given: object) -> None:
    """Say of arguments that belong to another kind of source that they would change nothing."""
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise ConfigError(f"{', '.join(named)}: not for this kind of source, which says it itself. Leave it out.")
