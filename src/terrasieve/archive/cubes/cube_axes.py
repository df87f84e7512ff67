"""The axes of a cube: which of its dimensions are time, band, y and x, and where and when its pixels lie.

Names and attributes are those of the CF conventions (https://cfconventions.org), the grid mapping also as rioxarray
writes it: ``spatial_ref`` with ``crs_wkt`` and ``GeoTransform``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from terrasieve.archive.scenes.acquisition_time import parse_time
from terrasieve.errors import ArchiveError

NAMES: Mapping[str, tuple[str, ...]] = {
    "y": ("y", "lat", "latitude", "northing", "row"),
    "x": ("x", "lon", "longitude", "easting", "column"),
    "time": ("time", "t", "date", "valid_time"),
    "band": ("band", "bands", "channel", "wavelength"),
}
"""What an axis may be called, in lower case."""
PLANES = tuple(zip(NAMES["y"], NAMES["x"], strict=True))
"""Names of y and x that go together."""
_STANDARD = {
    "projection_y_coordinate": "y",
    "latitude": "y",
    "projection_x_coordinate": "x",
    "longitude": "x",
    "time": "time",
}
_UNEVEN = 0.1
"""Share of a step by which a coordinate may lie off an even grid; those in 32 bits do by some hundredths."""

Transform = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Axes:
    """Names of a cube's dimensions.

    Attributes:
        y: Along the rows.
        x: Along the columns.
        time: Along the steps of time; None where there is one image alone.
        band: Along the bands; None where each band is a variable.
    """

    y: str
    x: str
    time: str | None = None
    band: str | None = None


def find_axes(dataset: Any) -> Axes | None:
    """The axes of a data set; None where it has no rows and columns.

    Args:
        dataset: An ``xarray.Dataset`` or ``xarray.DataArray``.
    """
    found: dict[str, str] = {}
    for dim in map(str, dataset.dims):
        meaning = _meaning(dataset, dim)
        if meaning is not None:
            found.setdefault(meaning, dim)
    if not {"y", "x"} <= set(found):
        return None
    return Axes(found["y"], found["x"], found.get("time"), found.get("band"))


def times_of(dataset: Any, axes: Axes) -> list[datetime | None]:
    """When each step was taken, in UTC; None where no coordinate says it. One entry where time is no axis."""
    name = axes.time or next((name for name in NAMES["time"] if name in dataset.coords), None)
    count = dataset.sizes[axes.time] if axes.time else 1
    values = dataset.coords[name].values.reshape(-1) if name in dataset.coords else []
    # A time that is neither an axis nor one moment, such as one of each row, is not that of the image.
    return [_moment(value) for value in values] if len(values) == count else [None] * count


def crs_of(dataset: Any, axes: Axes, variable: str, what: str) -> str | None:
    """The coordinate reference system, such as ``EPSG:32632``, or WKT where there is no code; None where none is said.

    Args:
        dataset: An ``xarray.Dataset``.
        axes: Its axes.
        variable: Name of a variable of pixels, whose grid mapping counts.
        what: The cube, as errors name it.

    Raises:
        ArchiveError: The grid mapping says one that is none.
    """
    said = _grid_mapping(dataset, variable)
    try:
        if text := next((said[name] for name in ("crs_wkt", "spatial_ref") if said.get(name)), None):
            return _name(CRS.from_wkt(str(text)))
        if said.get("grid_mapping_name"):
            # Attributes are numpy's numbers where they come from a file.
            plain = {
                key: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
                for key, value in said.items()
            }
            return _name(CRS.from_cf(plain))
        places = (said, dataset[variable].attrs, dataset.attrs)
        if code := next((one[key] for one in places for key in ("proj:code", "epsg_code", "crs") if key in one), None):
            return _name(CRS.from_authority(*str(code).split(":", 1))) if ":" in str(code) else None
    except (CRSError, KeyError, TypeError, ValueError) as error:
        raise ArchiveError(
            f"{what} names a coordinate reference system that is none: {error}. Correct its grid mapping, or remove "
            "it: its samples have no place then."
        ) from error
    axis = dataset.coords[axes.y].attrs if axes.y in dataset.coords else {}
    geographic = axes.y.lower() in ("lat", "latitude") or axis.get("standard_name") == "latitude"
    return "EPSG:4326" if geographic else None


def transform_of(dataset: Any, axes: Axes, variable: str) -> Transform | None:
    """The affine a-f from (column, row) to coordinates of a corner; None where nothing says it, or rows are uneven.

    Args:
        dataset: An ``xarray.Dataset``.
        axes: Its axes; coordinates, which are of pixels' centres, go before the transform of a grid mapping, which is
            out of date where a part was cut out.
        variable: Name of a variable of pixels.
    """
    if axes.y in dataset.coords and axes.x in dataset.coords:
        rows, columns = (_line(dataset.coords[name].values) for name in (axes.y, axes.x))
        if rows is not None and columns is not None:
            return (columns[0], 0.0, columns[1], 0.0, rows[0], rows[1])
        if dataset.sizes[axes.y] > 1 and dataset.sizes[axes.x] > 1:
            return None
    text = _grid_mapping(dataset, variable).get("GeoTransform")
    try:
        c, a, b, f, d, e = map(float, str(text).split())
    except ValueError:
        return None
    return (a, b, c, d, e, f)


def _meaning(dataset: Any, dim: str) -> str | None:
    coordinate = dataset.coords.get(dim)
    said = {} if coordinate is None else coordinate.attrs
    by_attribute = _STANDARD.get(str(said.get("standard_name"))) or {"Y": "y", "X": "x", "T": "time"}.get(
        str(said.get("axis"))
    )
    by_name = next((meaning for meaning, names in NAMES.items() if dim.lower() in names), None)
    if by_attribute or by_name or coordinate is None:
        return by_attribute or by_name
    return {"M": "time", "U": "band", "O": "band", "T": "band"}.get(coordinate.dtype.kind)


def _moment(value: Any) -> datetime | None:
    if isinstance(value, np.datetime64):
        if np.isnat(value):
            return None
        made: datetime = value.astype("datetime64[us]").item()
        return made.replace(tzinfo=UTC)
    return parse_time(str(value)) if not isinstance(value, np.number) else None


def _grid_mapping(dataset: Any, variable: str) -> Mapping[str, Any]:
    array = dataset[variable]
    named = array.attrs.get("grid_mapping", array.encoding.get("grid_mapping"))
    for name in (named, "spatial_ref", "crs"):
        if name is not None and str(name) in dataset.variables:
            attributes: Mapping[str, Any] = dataset[str(name)].attrs
            return attributes
    return {}


def _line(values: NDArray[Any]) -> tuple[float, float] | None:
    """Step, and the edge before the first, of evenly spaced centres; None of what are none."""
    if len(values) < 2 or values.dtype.kind not in "uif":
        return None
    centres = values.astype(np.float64)
    step = (centres[-1] - centres[0]) / (len(centres) - 1)
    off = np.abs(centres - (centres[0] + step * np.arange(len(centres))))
    if not np.isfinite(step) or step == 0 or not off.max() < _UNEVEN * abs(step):
        return None
    return float(step), float(centres[0] - step / 2)


def _name(crs: CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority is not None else crs.to_wkt()
