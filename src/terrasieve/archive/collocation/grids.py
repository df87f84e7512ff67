"""Targets on a grid of time, latitude and longitude, such as a reanalysis: only the cells near some sample.

A year of an hourly global grid has thousands of millions of cells. A step at a time is read, and of it the cells are
kept that lie within reach of a sample taken about then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.collocation.points import EARTH_KM, Points, Reach
from terrasieve.console import track_many

_BLOCK_BYTES = 2**28
"""Most bytes of values that are read at once."""
_ROUNDING = 1e-9
"""Degrees by which a cell may seem to be out of reach and yet be at its very edge."""


def is_grid(dataset: Any, names: Mapping[str, str], columns: Sequence[str]) -> bool:
    """Whether time, latitude and longitude are axes of their own, and the columns have these three and no other.

    Args:
        dataset: An ``xarray.Dataset`` without axes of length one, but for those of place and time.
        names: Names of its variables for ``time``, ``latitude`` and ``longitude``, by these keys.
        columns: Names of its variables that hold measured values.
    """
    axes = [dataset[name] for name in names.values()]
    if any(axis.ndim != 1 for axis in axes):
        return False
    dims = {axis.dims[0] for axis in axes}
    return len(dims) == 3 and all(set(dataset[column].dims) == dims for column in columns)


def near_cells(dataset: Any, names: Mapping[str, str], columns: Sequence[str], reach: Reach) -> pa.Table:
    """Place, time and values of the cells within reach, and of some that lie just beyond, in the file's order.

    Args:
        dataset: An ``xarray.Dataset`` that is a grid by :func:`is_grid`.
        names: Names of its variables for ``time``, ``latitude`` and ``longitude``, by these keys.
        columns: Names of its variables that hold measured values.
        reach: The samples, and how far from them in place and time a cell may lie.

    Returns:
        A row for each cell and step, with the variables as columns under their own names.
    """
    time, latitude, longitude = (dataset[names[name]] for name in ("time", "latitude", "longitude"))
    grid = dataset[list(columns)].transpose(time.dims[0], latitude.dims[0], longitude.dims[0])
    steps = time.values.astype("datetime64[us]")
    cells = _Cells(latitude.values, longitude.values, reach.max_km)
    found: dict[str, list[NDArray[Any]]] = {}
    for name in (*names.values(), *columns):
        # An empty first part gives the column its type where no cell is within reach.
        kind = dataset[name].dtype
        found[name] = [np.empty(0, dtype="datetime64[us]" if kind.kind == "M" else kind)]
    visits = list(_visits(steps, reach))
    length = max(1, _BLOCK_BYTES // (8 * len(columns) * latitude.size * longitude.size))
    blocks = [visits[start : start + length] for start in range(0, len(visits), length)]
    for some in track_many(blocks, "Reading the grid"):
        block = grid.isel({time.dims[0]: [step for step, _ in some]}).load()
        for row, (step, samples) in enumerate(some):
            rows, across = cells.near(samples)
            found[names["time"]].append(np.full(len(rows), steps[step]))
            found[names["latitude"]].append(latitude.values[rows])
            found[names["longitude"]].append(longitude.values[across])
            for column in columns:
                found[column].append(block[column].values[row, rows, across])
    return pa.table({name: np.concatenate(parts) for name, parts in found.items()})


def _visits(steps: NDArray[Any], reach: Reach) -> Iterator[tuple[int, Points]]:
    """Steps of time that some sample may take its target from, with these samples."""
    ordered = reach.samples.take(np.argsort(reach.samples.time, kind="stable"))
    for step in np.flatnonzero(~np.isnat(steps)):
        moment = int(steps[step].astype(np.int64))
        first = np.searchsorted(ordered.time, moment - reach.window, "left")
        last = np.searchsorted(ordered.time, moment + reach.window, "right")
        if first < last:
            yield int(step), ordered.take(slice(first, last))


class _Cells:
    """Cells by where they lie.

    Args:
        latitude: Latitude of each row in degrees, -90 to 90, in any order.
        longitude: Longitude of each column in degrees, from -180 or from 0.
        max_km: Largest great-circle distance from a sample to a cell, in km.
    """

    def __init__(self, latitude: NDArray[Any], longitude: NDArray[Any], max_km: float) -> None:
        self._latitude, self._longitude = latitude.astype(np.float64), longitude.astype(np.float64)
        self._angle = min(max_km / EARTH_KM, np.pi)  # half the circle reaches everything

    def near(self, samples: Points) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of the cells within reach of at least one sample, and some more, in order."""
        mask = np.zeros((len(self._latitude), len(self._longitude)), dtype=np.bool_)
        for latitude, longitude in np.unique(np.stack([samples.latitude, samples.longitude], axis=1), axis=0):
            rows = np.flatnonzero(np.abs(self._latitude - latitude) <= np.degrees(self._angle) + _ROUNDING)
            # The shorter way around, whichever convention the two longitudes follow.
            apart = np.abs((self._longitude - longitude + 180) % 360 - 180)
            mask[np.ix_(rows, np.flatnonzero(apart <= self._width(latitude) + _ROUNDING))] = True
        rows, columns = np.nonzero(mask)
        return rows, columns

    def _width(self, latitude: float) -> float:
        """Largest difference in longitude at that distance, in degrees; all of it where a pole is within reach."""
        if abs(np.radians(latitude)) + self._angle >= np.pi / 2:
            return 180.0
        # Where a meridian touches the circle of that radius: not at the sample's own latitude, but nearer to the pole.
        return float(np.degrees(np.arcsin(np.sin(self._angle) / np.cos(np.radians(latitude)))))
