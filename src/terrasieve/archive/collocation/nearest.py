"""Join measurements to samples by place and time, as columns of a catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from terrasieve.archive.catalogue import write_catalogue
from terrasieve.archive.collocation.measurements import Targets, read_targets
from terrasieve.archive.collocation.points import EARTH_KM, MINUTE, Points, Reach
from terrasieve.archive.footprints import centres
from terrasieve.archive.protocol import Archive, source_place
from terrasieve.console import track_many
from terrasieve.errors import ArchiveError

MAX_KM = 50.0
MAX_MINUTES = 30.0
"""The customary limits between altimeters and buoys, after Monaldo 1988, "Expected differences between buoy and radar
altimeter estimates of wind speed and significant wave height and their implications on buoy-altimeter comparisons",
J. Geophys. Res. 93(C3): wider ones add more by the sea's own variation than they gain by pairs."""

_NEIGHBOURS = 16
"""Targets near a sample that are asked for at first; most samples have one among them that is in time."""
_SAMPLES = 4096
"""Samples that are looked up at once, which bounds memory."""


@dataclass(frozen=True)
class Matches:
    """The target of each sample, all shape ``(n,)``.

    Attributes:
        rows: Position among the targets, -1 where none is near enough.
        km: Great-circle distance, NaN where there is none.
        minutes: Time of the target after that of the sample, NaN where there is none.
    """

    rows: NDArray[np.int64]
    km: NDArray[np.float64]
    minutes: NDArray[np.float64]


@dataclass(frozen=True)
class CollocationReport:
    """What collocation did.

    Attributes:
        path: The catalogue that was written.
        samples: Number of rows of the catalogue.
        matched: Number of samples with a value, by column.
        unplaced: Number of samples without a place or a time, which match nothing.
        targets: Number of rows of the targets that have a place and a time.
        incomplete: Number of rows of the targets that have not.
        max_km: Largest distance that was allowed, in km.
        max_minutes: Longest time between that was allowed, in minutes.
    """

    path: Path
    samples: int
    matched: Mapping[str, int]
    unplaced: int
    targets: int
    incomplete: int
    max_km: float
    max_minutes: float

    def summary(self) -> str:
        """A few lines for the screen."""
        columns = ", ".join(f"{count:,} have {name}" for name, count in self.matched.items())
        lines = [
            f"{self.samples:,} samples in {self.path}: {columns}, within {self.max_km:g} km and {self.max_minutes:g} "
            f"minutes; the rest stay null."
        ]
        if self.unplaced:
            lines.append(f"{self.unplaced:,} samples have no place or no time.")
        if self.incomplete:
            lines.append(f"{self.incomplete:,} of {self.targets + self.incomplete:,} targets have no place or no time.")
        return "\n".join(lines)


# --------------------------------------------------- samples and their columns


def collocate(
    archive: Archive,
    path: Path,
    columns: Sequence[str],
    out: Path,
    *,
    max_km: float = MAX_KM,
    max_minutes: float = MAX_MINUTES,
) -> CollocationReport:
    """Write the catalogue of an archive with measured values in it.

    For each column three are added: ``<name>``, ``<name>:km`` and ``<name>:minutes`` (positive where it was measured
    after the sample). See :func:`match` for what is taken; rows of the targets that lack a value are passed over, so
    columns of one sample may come from different rows.

    Args:
        archive: Samples; they lie where ``latitude`` and ``longitude`` of the table say, else in the middle of the
            outline.
        path: The targets; see :func:`~terrasieve.archive.collocation.measurements.read_targets`.
        columns: Names of the columns to take from the targets.
        out: The catalogue to write, ``.parquet``.
        max_km: Largest great-circle distance in km, inclusive.
        max_minutes: Longest time between in minutes, inclusive, before or after.

    Raises:
        ArchiveError: A column is absent or there already, no sample has a place and a time, or the targets cannot be
            read.
    """
    table, where = archive.table(), source_place(archive.source)
    if doubled := [name for name in columns if {name, f"{name}:km", f"{name}:minutes"} & set(table.column_names)]:
        raise ArchiveError(f"{where} already has a column {doubled[0]!r}; rename that of {path}.")
    places, known = sample_points(table)
    if not known.any():
        raise ArchiveError(f"No sample of {where} has both a place and a time; nothing can match.")
    reach = Reach(places.take(known), max_km, max_minutes)
    targets = read_targets(path, columns, reach)
    added: dict[str, pa.Array] = {}
    matched: dict[str, int] = {}
    for name in columns:
        # Each column apart: a buoy may lack the wind, and the next nearest have it.
        found, values = _match_column(reach, targets, name)
        added |= {
            name: _of_all_samples(values, known),
            f"{name}:km": _of_all_samples(found.km, known),
            f"{name}:minutes": _of_all_samples(found.minutes, known),
        }
        matched[name] = int(np.count_nonzero(found.rows >= 0))
    for column, found_of_it in added.items():
        table = table.append_column(column, found_of_it)
    # The catalogue keeps what an earlier one suspected.
    write_catalogue(archive, table, archive.suspicions, out)
    unplaced = int(np.count_nonzero(~known))
    return CollocationReport(
        out, len(table), matched, unplaced, len(targets.points), targets.incomplete, max_km, max_minutes
    )


# ---------------------------------------------------------- the nearest target


def match(reach: Reach, targets: Points) -> Matches:
    """The nearest target in space of each sample, among those within reach.

    Of several equally near ones the nearest in time is taken, of these the first in order.

    Args:
        reach: The samples and the limits.
        targets: Place and time of each target.
    """
    samples, window = reach.samples, reach.window
    rows = np.full(len(samples), -1, dtype=np.int64)
    km, minutes = np.full((2, len(samples)), np.nan)
    by_time = np.argsort(targets.time, kind="stable")
    times = targets.time[by_time]
    for block in _blocks(samples.time, window):
        span = samples.time[block[0]] - window, samples.time[block[-1]] + window
        # In the order of the targets again, by which ties are broken.
        near = np.sort(by_time[np.searchsorted(times, span[0], "left") : np.searchsorted(times, span[1], "right")])
        if not near.size:
            continue
        finder = _Finder(targets.take(near), reach.max_km, window)
        for part in np.array_split(block, -(-len(block) // _SAMPLES)):
            found, distance, late = finder.nearest(samples.take(part))
            hit = found >= 0
            rows[part[hit]] = near[found[hit]]
            km[part[hit]], minutes[part[hit]] = distance[hit], late[hit] / MINUTE
    return Matches(rows, km, minutes)


def sample_points(table: pa.Table) -> tuple[Points, NDArray[np.bool_]]:
    """Where and when samples were taken, and which of them say both.

    Args:
        table: That of an archive: ``time``, ``geometry``, and perhaps ``latitude`` and ``longitude`` in degrees.

    Returns:
        Points of all n samples, and a mask ``(n,)`` of those whose place and time are known; the others' are NaN and 0.
    """
    shapes = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    longitude, latitude = centres(shapes).T
    if {"latitude", "longitude"} <= set(table.column_names):
        own = [table[name].cast(pa.float64()).to_numpy().astype(np.float64) for name in ("latitude", "longitude")]
        stated = np.isfinite(own[0]) & np.isfinite(own[1])
        latitude, longitude = np.where(stated, own[0], latitude), np.where(stated, own[1], longitude)
    column = table["time"].cast(pa.timestamp("us", tz="UTC"))
    known = np.asarray(column.is_valid().to_numpy(), dtype=np.bool_) & np.isfinite(latitude) & np.isfinite(longitude)
    time = np.asarray(column.cast(pa.int64()).fill_null(0).to_numpy(), dtype=np.int64)
    return Points(latitude, longitude, time), known


def _match_column(reach: Reach, targets: Targets, name: str) -> tuple[Matches, NDArray[np.float64]]:
    """Matches among the rows that have a value, and the values; NaN where there is none."""
    valued = np.flatnonzero(np.isfinite(targets.values[name]))
    found = match(reach, targets.points.take(valued))
    values = np.full(len(reach.samples), np.nan)
    hit = found.rows >= 0
    values[hit] = targets.values[name][valued[found.rows[hit]]]
    return found, values


def _of_all_samples(values: NDArray[np.float64], known: NDArray[np.bool_]) -> pa.Array:
    """Values of the samples that have a place and a time to one of all, null where there is none."""
    everywhere = np.full(len(known), np.nan)
    everywhere[known] = values
    return pa.array(everywhere, pa.float64(), mask=np.isnan(everywhere))


def _blocks(times: NDArray[np.int64], window: int) -> Iterator[NDArray[np.int64]]:
    """Positions in order of time, in blocks so short that most targets of a block are in time for most of it."""
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    length = max(2 * window, MINUTE)  # a window of zero would make a block of each moment
    starts = []
    start = 0
    while start < len(order):
        starts.append(start)
        start = int(np.searchsorted(ordered, ordered[start] + length, "right"))
    blocks = np.split(order, starts[1:]) if starts else []
    yield from track_many(blocks, "Matching (spans of time)")


class _Finder:
    """Targets by place."""

    def __init__(self, targets: Points, max_km: float, window: int) -> None:
        self._tree = cKDTree(_unit_vectors(targets))
        self._times = targets.time
        self._max_km, self._window = max_km, window
        # A little more than the chord of the limit: the tree leaves out what lies exactly at its bound.
        self._bound = 2 * np.sin(min(max_km / EARTH_KM, np.pi) / 2) * (1 + 1e-9) + 1e-12

    def nearest(self, samples: Points) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Position, km and microseconds late of each sample's target; -1 where none is within the limits.

        As the nearest may be out of time, ever more neighbours are asked for, until one is in time and any that is
        equally near has been seen, too.
        """
        points = _unit_vectors(samples)
        rows = np.full(len(samples), -1, dtype=np.int64)
        km, late = np.zeros(len(samples)), np.zeros(len(samples), dtype=np.int64)
        open_ones, count = np.arange(len(samples)), _NEIGHBOURS
        while open_ones.size:
            count = min(count, len(self._times))
            # A list of ranks, not their number: for one neighbour the tree would drop the axis.
            chords, found = self._tree.query(
                points[open_ones], k=np.arange(1, count + 1), distance_upper_bound=self._bound
            )
            present = found < len(self._times)  # the tree gives its size as the position of what is not there
            found = np.where(present, found, 0)
            apart = np.where(present, 2 * EARTH_KM * np.arcsin(np.minimum(chords, 2) / 2), np.inf)
            after = self._times[found] - samples.time[open_ones][:, None]
            fits = present & (np.abs(after) <= self._window) & (apart <= self._max_km)
            best = _first(fits, apart, np.abs(after), found)
            hit = np.take_along_axis(fits, best[:, None], axis=1)[:, 0]
            nearest = np.where(hit, np.take_along_axis(apart, best[:, None], axis=1)[:, 0], np.inf)
            seen_all = ~present[:, -1] | (count == len(self._times))
            done = seen_all | (nearest < apart[:, -1])
            settled, place = open_ones[done & hit], best[done & hit]
            picked = np.flatnonzero(done & hit)
            rows[settled], km[settled] = found[picked, place], apart[picked, place]
            late[settled] = after[picked, place]
            open_ones, count = open_ones[~done], count * 8
        return rows, km, late


def _first(fits: NDArray[np.bool_], *keys: NDArray[Any]) -> NDArray[np.int64]:
    """Column of each row's first fitting entry by several keys, the first of them deciding first."""
    left = fits
    for key in keys:
        values = np.where(left, key.astype(np.float64), np.inf)
        left = left & (values == values.min(axis=1, keepdims=True))
    columns: NDArray[np.int64] = left.argmax(axis=1)
    return columns


def _unit_vectors(points: Points) -> NDArray[np.float64]:
    """Shape ``(n, 3)``."""
    latitude, longitude = np.radians(points.latitude), np.radians(points.longitude)
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=-1
    )
