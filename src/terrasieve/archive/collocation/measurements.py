"""Measurements at points in place and time, from a CSV, Parquet or NetCDF file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from terrasieve.archive.collocation.grids import is_grid, near_cells
from terrasieve.archive.collocation.points import Points, Reach
from terrasieve.archive.cubes.guarded_opening import NETCDF, refuse_foreign_files
from terrasieve.archive.readers.byte_limits import MOST_TABLE_BYTES, check_file_bytes
from terrasieve.archive.readers.parquet import read_table
from terrasieve.archive.scenes.acquisition_time import parse_time
from terrasieve.errors import ArchiveError, SampleError, nearest

NAMES: Mapping[str, tuple[str, ...]] = {
    "time": ("time", "datetime", "timestamp", "valid_time"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
}
"""What the columns of place and time may be called, in any case; the first that is there counts."""

_ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
"""How a text of a time ends that states its offset from UTC."""


@dataclass(frozen=True)
class Targets:
    """Measured values.

    Attributes:
        points: Place and time of each row, ``(n,)``.
        values: Values of each row by column, shape ``(n,)``; NaN where nothing was measured.
        incomplete: Number of rows of the file that were left out as their place or time is missing.
    """

    points: Points
    values: Mapping[str, NDArray[np.float64]]
    incomplete: int


def read_targets(path: Path, columns: Sequence[str], reach: Reach) -> Targets:
    """Read columns of a file, and place and time of each row.

    Times without an offset are UTC. A NetCDF file may hold a grid: its cells near the samples are rows then. All
    combinations of its dimensions are where it holds something else, such as a track.

    Args:
        path: ``.csv``, ``.parquet`` or one of :data:`NETCDF`.
        columns: Names of the columns that hold measured values.
        reach: The samples, and how far from them in place and time a row matters. Of a NetCDF file not much more is
            read; other files are read as a whole.

    Raises:
        ArchiveError: The file cannot be read, xarray is missing for NetCDF, a column is absent or holds no numbers, or
            a place is impossible.
    """
    if not path.is_file():
        raise ArchiveError(f"{path} does not exist; name the file with the targets.")
    if path.suffix.lower() in NETCDF:
        table = _read_netcdf(path, columns, reach)
    elif path.suffix.lower() in (".csv", ".parquet"):
        table = _read_table(path)
    else:
        raise ArchiveError(f"{path} is neither .csv nor .parquet nor NetCDF ({', '.join(NETCDF)}); convert it.")
    names = {wanted: _find(wanted, table.column_names, path) for wanted in NAMES}
    time, known = _times(table[names["time"]], path)
    latitude, longitude = (_numbers(table, names[name], path) for name in ("latitude", "longitude"))
    known = known & np.isfinite(latitude) & np.isfinite(longitude)
    points = Points(latitude, longitude, time).take(known)
    _check_places(points.latitude, points.longitude, path)
    values = {name: _numbers(table, _exactly(name, table.column_names, path), path)[known] for name in columns}
    return Targets(points, values, int(np.count_nonzero(~known)))


def _read_table(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            return read_table(path)
        check_file_bytes(path)
        with csv.open_csv(path) as reader:
            # As text, which is parsed below in one way: Arrow would infer dates, or times with or without a zone.
            times = [name for name in reader.schema.names if name.lower() in NAMES["time"]]
        as_text = csv.ConvertOptions(column_types=dict.fromkeys(times, pa.string()), strings_can_be_null=True)
        return csv.read_csv(path, convert_options=as_text)
    except (OSError, pa.ArrowInvalid) as error:
        raise ArchiveError(f"{path} cannot be read: {error}. Export it again.") from error


def _read_netcdf(path: Path, columns: Sequence[str], reach: Reach) -> pa.Table:
    try:
        import xarray
    except ImportError as error:
        raise ArchiveError(f"{path} needs xarray: pip install 'terrasieve[netcdf]'.") from error
    try:
        refuse_foreign_files(path)
        with xarray.open_dataset(path) as dataset:
            known = [str(name) for name in dataset.variables]
            names = {wanted: _find(wanted, known, path) for wanted in NAMES}
            chosen = [_exactly(name, known, path) for name in columns]
            kept = dataset[[*dict.fromkeys([*chosen, *names.values()])]]
            # Axes of length one that say neither where nor when, such as the member of an ensemble of one, are dropped.
            placing = {dim for name in names.values() for dim in kept[name].dims}
            kept = kept.squeeze(
                [dim for dim, size in kept.sizes.items() if size == 1 and dim not in placing], drop=True
            )
            if is_grid(kept, names, chosen):
                axes = (kept[names[name]].values.astype(np.float64) for name in ("latitude", "longitude"))
                latitude, longitude = np.meshgrid(*axes, indexing="ij")
                _check_places(latitude, longitude, path)
                return near_cells(kept, names, chosen, reach)
            part = _within(kept, names["time"], reach.span)
            size = 8 * math.prod(part.sizes.values()) * len(part.variables)
            if size > MOST_TABLE_BYTES:
                raise ValueError(f"its rows come to {size:,} bytes, more than {MOST_TABLE_BYTES:,}; cut out a part")
            frame = part.to_dataframe().reset_index()
    except SampleError as error:
        raise ArchiveError(str(error)) from error
    # What a damaged file raises depends on the engine that xarray finds for it.
    except (OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, MemoryError) as error:
        raise ArchiveError(
            f"{path} cannot be read as NetCDF: {error}. Where an engine is missing: pip install 'terrasieve[netcdf]'."
        ) from error
    return pa.Table.from_pandas(frame[[*dict.fromkeys([*chosen, *names.values()])]], preserve_index=False)


def _within(dataset: Any, name: str, span: tuple[int, int]) -> Any:
    """The part between two times, where time is an axis."""
    time = dataset[name]
    if time.ndim != 1:
        return dataset
    first, last = (np.datetime64(edge, "us") for edge in span)
    steps = time.values.astype("datetime64[us]")
    return dataset.isel({time.dims[0]: np.flatnonzero((steps >= first) & (steps <= last))})


# --------------------------------------------------------------------- columns


def _find(wanted: str, names: Sequence[str], path: Path) -> str:
    # Reversed, so that of names that differ in their case alone the first counts.
    by_lower = {name.lower(): name for name in reversed(names)}
    for alias in NAMES[wanted]:
        if alias in by_lower:
            return by_lower[alias]
    raise ArchiveError(
        f"{path} has no column for the {wanted}; call it {' or '.join(NAMES[wanted])}. It has {', '.join(names)}."
    )


def _exactly(name: str, names: Sequence[str], path: Path) -> str:
    if name not in names:
        raise ArchiveError(f"{path} has no column {name!r}.{nearest(name, names)}")
    return name


def _numbers(table: pa.Table, name: str, path: Path) -> NDArray[np.float64]:
    try:
        found = table[name].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ArchiveError(f"{path} has values in column {name!r} that are no numbers: {error}.") from error
    return np.asarray(found.to_numpy(), dtype=np.float64)


def _times(column: pa.ChunkedArray, path: Path) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Microseconds since 1970, and where they are known."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _read_times(column, path)
    if not pa.types.is_timestamp(column.type):
        raise ArchiveError(f"{path} has times of type {column.type}; write them as 2020-01-31T12:00:00Z.")
    micro = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    known = np.asarray(micro.is_valid().to_numpy(), dtype=np.bool_)
    return np.asarray(micro.cast(pa.int64()).fill_null(0).to_numpy(), dtype=np.int64), known


def _read_times(column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """Times of nanoseconds from texts."""
    zoned = pc.if_else(pc.match_substring_regex(column, _ZONE), column, pc.binary_join_element_wise(column, "Z", ""))
    try:
        return zoned.cast(pa.timestamp("ns", tz="UTC"))
    except pa.ArrowInvalid:
        # Arrow is fast, but knows ISO 8601 with all its signs only.
        return pa.chunked_array([[_read_time(text, path) for text in column.to_pylist()]], pa.timestamp("us", tz="UTC"))


def _read_time(text: str | None, path: Path) -> datetime | None:
    if text is None or not text.strip():
        return None
    time = parse_time(text)
    if time is None:
        raise ArchiveError(f"{path} has a time that is none: {text!r}. Write it as 2020-01-31T12:00:00Z.")
    return time


def _check_places(latitude: NDArray[np.float64], longitude: NDArray[np.float64], path: Path) -> None:
    # Either convention of longitude, and one that goes on across its own seam, stays within a full turn.
    wrong = np.flatnonzero((np.abs(latitude) > 90) | (np.abs(longitude) > 360))
    if wrong.size:
        row = wrong[0]
        raise ArchiveError(
            f"{path} has {wrong.size} places that are not on the globe, the first at latitude "
            f"{latitude.flat[row]:g}, longitude {longitude.flat[row]:g}. Correct them; were the two exchanged?"
        )
