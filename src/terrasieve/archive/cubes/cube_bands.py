"""The bands of a cube: where each lies in it, which sensor they are of, and what their values mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.cubes.cube_axes import Axes
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.meaning import Stated, meanings, settle
from terrasieve.band_names import match_names, sensor_with
from terrasieve.errors import ArchiveError, BandError
from terrasieve.sensors import SENSORS, Sensor

_PHYSICAL = ("1", "reflectance", "unitless", "dimensionless")
"""What is written for the unit of a number from 0 to 1."""
_PERCENT = ("%", "percent")
_UNLIKE = {"db": ("linear", "1"), "linear": ("db", "decibel", "decibels")}
"""By unit of a band, those that its values cannot be in."""

_FIX = (
    "Name the sensor: --sensor KEY=SENSOR on the command line, sensor='SENSOR' in Python, or a YAML file with "
    "layout: cube, root and sensor, which may declare bands by the names of the cube."
)


@dataclass(frozen=True)
class CubeBand:
    """Where a band lies.

    Attributes:
        said: Its name in the cube.
        variable: Name of the variable that holds it.
        place: Its position along the axis of bands; None where it is a variable of its own.
    """

    said: str
    variable: str
    place: int | None = None


def bands_in(dataset: Any, axes: Axes, what: str) -> list[CubeBand]:
    """Every band of a cube; names that are plain numbers say nothing, and are kept.

    Args:
        dataset: An ``xarray.Dataset``.
        axes: Its axes.
        what: The cube, as errors name it.

    Raises:
        ArchiveError: No variable lies on rows and columns, several lie on the axis of bands, or one has a further axis.
    """
    plane = {axes.y, axes.x}
    found = [name for name, one in dataset.data_vars.items() if plane <= set(one.dims) and one.dtype.kind in "uif"]
    if not found:
        held = ", ".join(f"{name} {tuple(one.dims)}" for name, one in dataset.data_vars.items()) or "no variable"
        raise ArchiveError(f"{what} has no numbers over ({axes.y}, {axes.x}); it holds {held}.")
    # An axis of one band, such as rioxarray gives every variable, tells nothing where each band is a variable.
    along = [name for name in found if axes.band in dataset[name].dims]
    stacked = along if len(found) == 1 else [name for name in along if dataset[name].sizes[axes.band] > 1]
    if stacked:
        if len(stacked) > 1:
            raise ArchiveError(
                f"{what} has {', '.join(map(str, stacked))} over {axes.band}; keep one of them: "
                f"dataset[['{stacked[0]}']]."
            )
        found = stacked
    for name in found:
        _check_axes(dataset[name], axes, f"{what}, variable {name!r},")
    if axes.band is None or not stacked:
        return [CubeBand(str(name), str(name)) for name in found]
    names = _names_along(dataset[stacked[0]], axes.band)
    return [CubeBand(said, str(stacked[0]), place) for place, said in enumerate(names)]


def choose_bands(bands: Sequence[CubeBand], sensor: Sensor | None, what: str) -> tuple[Sensor, list[CubeBand]]:
    """The sensor's bands that a cube holds, and where each lies.

    Args:
        bands: Those of the cube.
        sensor: What they are of; when None, the one built-in sensor that has them all.
        what: The cube, as errors name it.

    Returns:
        The sensor with the bands that are there, in its own order, and the cube's bands in that order.

    Raises:
        BandError: The cube has no band of the sensor, or no built-in sensor has all of its bands.
    """
    said = [band.said for band in bands]
    if all(name.isdigit() for name in said):
        # Numbers only count, as those of a GeoTIFF do: bands are in the order of a sensor that has as many.
        if sensor is None or len(sensor.bands) != len(said):
            has = "" if sensor is None else f", and {sensor.name} has {len(sensor.bands)}: {', '.join(sensor.names)}"
            raise BandError(f"{what} has {len(said)} bands without a name{has}. {_FIX}")
        return sensor, list(bands)
    if sensor is None:
        try:
            chosen = sensor_with(said, SENSORS.values())
        except BandError as error:
            raise BandError(f"{what} holds the bands {', '.join(said)}. {error} {_FIX}") from error
        return chosen, list(bands)
    names = match_names(said, sensor)
    by_name: dict[str, CubeBand] = {}
    for name, band in zip(names, bands, strict=True):
        if name is not None:
            by_name.setdefault(name, band)
    if not by_name:
        raise BandError(
            f"{what} holds the bands {', '.join(said)}, of which {sensor.name} ({', '.join(sensor.names)}) has none. "
            f"{_FIX}"
        )
    kept = [name for name in sensor.names if name in by_name]
    return sensor.select(*kept), [by_name[name] for name in kept]


def read_bands(
    dataset: Any, axes: Axes, bands: Sequence[CubeBand], positions: Sequence[int], place: Mapping[str, Any]
) -> NDArray[Any]:
    """Pixels as they are stored.

    Args:
        dataset: An ``xarray.Dataset``.
        axes: Its axes.
        bands: Those of the cube, in the order of the sensor.
        positions: Of the bands wanted.
        place: By dimension, the step of time, rows and columns wanted.

    Returns:
        Shape ``(len(positions), height, width)``.
    """
    wanted = [bands[position] for position in positions]
    if wanted[0].place is not None:
        array = dataset[wanted[0].variable]
        # Read once and in the order stored, whatever order, or repetition, is asked for.
        order = sorted({band.place for band in wanted if band.place is not None})
        within = _within(array, place)
        within[str(axes.band)] = order
        pixels: NDArray[Any] = array.isel(within).transpose(axes.band, axes.y, axes.x).values
        return pixels[[order.index(band.place) for band in wanted if band.place is not None]]
    arrays = [dataset[band.variable] for band in wanted]
    return np.stack([one.isel(_within(one, place)).transpose(axes.y, axes.x).values for one in arrays])


def in_unit(
    dataset: Any,
    bands: Sequence[CubeBand],
    sensor: Sensor,
    positions: Sequence[int],
    pixels: NDArray[Any],
    what: str,
) -> NDArray[Any]:
    """Pixels in the unit of the sensor, with its nodata value, or NaN, where nothing was measured.

    Scale, offset and fill are those that attributes state. Where these were applied before, as ``xarray.open_dataset``
    does, and of floating-point numbers of the unit 1, values are physical: they come in 1/10,000 where the sensor's do.

    Args:
        dataset: An ``xarray.Dataset``.
        bands: Those of the cube, in the order of the sensor.
        sensor: Its bands.
        positions: Of the bands that the pixels are of.
        pixels: As stored, shape ``(len(positions), height, width)``.
        what: The cube, as errors name it.

    Raises:
        SampleError: What is stated contradicts the unit of a band.
    """
    arrays = [dataset[bands[position].variable] for position in positions]
    units = [str(array.attrs.get("units", "")).strip().lower() for array in arrays]
    for position, unit in zip(positions, units, strict=True):
        band = sensor.bands[position]
        if unit in _UNLIKE.get(band.unit, ()):
            raise FlawError(
                Problem.UNIT,
                f"{what} states the unit {unit} for {band.name}, which {sensor.name} has in {band.unit}. Name the "
                "sensor that has it in that unit.",
            )
    if all(str(array.attrs.get("_Unsigned", "")).lower() == "true" for array in arrays) and pixels.dtype.kind == "i":
        pixels = pixels.view(f"u{pixels.dtype.itemsize}")
    stated = [_stated(array, unit, pixels.dtype) for array, unit in zip(arrays, units, strict=True)]
    factors = np.array(
        [
            1e4 if sensor.bands[position].unit == "reflectance_e4" and _is_physical(array, unit) else 1.0
            for position, array, unit in zip(positions, arrays, units, strict=True)
        ],
        pixels.dtype if pixels.dtype.kind == "f" else np.float32,
    )
    masked = None
    if (factors != 1).any() and sensor.scaling == "stated":
        fills = [np.nan if one.nodata is None else one.nodata for one in stated]
        physical = pixels.astype(factors.dtype)
        masked = physical == np.array(fills, factors.dtype)[:, None, None]
        pixels = physical * factors[:, None, None]
        stated = [Stated(None, one.scale, one.offset) for one in stated]
    return settle(what, pixels, masked, stated, meanings(sensor, positions))


def _check_axes(array: Any, axes: Axes, what: str) -> None:
    known = {axes.y, axes.x, axes.time, axes.band}
    further = [f"{dim} of {size}" for dim, size in array.sizes.items() if dim not in known and size > 1]
    if further:
        raise ArchiveError(
            f"{what} has the further axes {', '.join(further)} beside time, band, y and x. Choose one of each: "
            f"dataset.isel({further[0].split()[0]}=0)."
        )


def _names_along(array: Any, dim: str) -> list[str]:
    """Names of the bands along an axis: its coordinate, or a list of names as rioxarray keeps that of a file."""
    said = array.attrs.get("long_name")
    if isinstance(said, (list, tuple, np.ndarray)) and len(said) == array.sizes[dim]:
        return [str(name) for name in said]
    if dim in array.coords and array.coords[dim].ndim == 1:
        return [one.decode() if isinstance(one, bytes) else str(one) for one in array.coords[dim].values.tolist()]
    return [str(number) for number in range(1, array.sizes[dim] + 1)]


def _within(array: Any, place: Mapping[str, Any]) -> dict[str, Any]:
    """The place by those dimensions that an array has, and the first along its others, which are of length 1."""
    kept = {dim: part for dim, part in place.items() if dim in array.dims}
    return kept | {dim: 0 for dim, size in array.sizes.items() if dim not in place and size == 1}


def _is_physical(array: Any, unit: str) -> bool:
    """Whether values are what is meant already, and not to be scaled."""
    if {"scale_factor", "add_offset"} & set(array.attrs):
        return False
    return "scale_factor" in array.encoding or (unit in _PHYSICAL and array.dtype.kind == "f")


def _stated(array: Any, unit: str, dtype: np.dtype[Any]) -> Stated:
    said = array.attrs
    fill = next((said[name] for name in ("_FillValue", "missing_value") if said.get(name) is not None), None)
    value = None if fill is None else np.asarray(fill).reshape(-1)[0]
    if value is not None and dtype.kind == "u" and value < 0:
        value = int(value) % 2 ** (8 * dtype.itemsize)  # of what is stored as signed and meant as unsigned
    scale, offset = (float(said.get(name, usual)) for name, usual in (("scale_factor", 1.0), ("add_offset", 0.0)))
    share = 0.01 if unit in _PERCENT else 1.0
    return Stated(None if value is None else float(value), scale * share, offset * share)
