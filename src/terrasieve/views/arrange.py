"""From the plans of a step to what has to be read, and to the table by which the device makes views of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Window
from terrasieve.views.band_policy import Channel
from terrasieve.views.dihedral import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE, dihedral_codes
from terrasieve.views.plan import ViewPlan
from terrasieve.views.stored import ViewGroup

AXIS_ROWS, ITEM_ROWS = 5, 4
"""Parameters of an item, of each axis and of itself."""

_WIDE = 0.75
"""Share of a sample's columns from which on all of them are read."""


class PlaneRead(NamedTuple):
    """Bands of one sensor of one sample, which are read at once.

    Attributes:
        sample: Archive index of the sample.
        sensor: Key of the sensor.
        bands: Names of the bands, each once.
        window: The smallest window that holds whatever any view shows of the sample; of most of its columns, all.
        shape: Height and width in pixels that the sample was planned to have.
        places: Of each band its position among the planes of the sensor.
    """

    sample: int
    sensor: str
    bands: tuple[str, ...]
    window: Window
    shape: tuple[int, int]
    places: tuple[int, ...]


@dataclass(frozen=True)
class Arrangement:
    """What to read for a micro-batch, and how to render it.

    Attributes:
        samples: Number of samples.
        reads: What to read, by archive index; no plane twice.
        planes: How many planes of each sensor there are, in the order in which their sections lie.
        canvas: Height and width in pixels of the largest window.
        groups: The views, size by size.
        table: The parameters, 4 bytes each, as float32 ``(parameters,)``.
        names: Every band that any view may show.
    """

    samples: int
    reads: list[PlaneRead]
    planes: dict[str, int]
    canvas: tuple[int, int]
    groups: tuple[ViewGroup, ...]
    table: NDArray[np.float32]
    names: tuple[Channel, ...]


def arrange(
    plans: Sequence[ViewPlan],
    channels: Sequence[tuple[Channel, ...]],
    indices: Sequence[NDArray[np.int64]],
) -> Arrangement:
    """Find what the views of a micro-batch have in common.

    The table begins with the position in ``names`` of the band of each plane. Of each group then follow, one after the
    other: ``(5, 2, items)`` of rows and of columns the first pixel of the crop, its length in pixels, whether it comes
    out in reverse, and middle and half the length in pixels of what is erased; ``(4, items)`` whether the item is
    transposed, standard deviation of the blur in pixels, free rotation in radians, whether the item is grey; where they
    are looked up, the first row of each channel of the items among those of all planes; the blurred items; the rotated
    items. Positions are int32, all else is float32.

    Args:
        plans: One for each view, ``n`` samples each.
        channels: For each view every band that it may show, which its plan's ``channels`` are positions in.
        indices: For each view the archive indices ``(n,)`` of what it shows of the samples.
    """
    names = _Names.of(tuple(channels))
    drawn = [table[plan.channels] for table, plan in zip(names.positions, plans, strict=True)]
    windows = np.concatenate([plan.windows for plan in plans])
    shown = np.concatenate(indices)

    # Planes that one view shows together have to lie on one grid, so they share a box: that of the sample's sensors.
    boxes, box = np.unique(
        shown * len(names.sensors) + names.blocks[np.concatenate([rows[:, 0] for rows in drawn])], return_inverse=True
    )
    order = np.argsort(box, kind="stable")
    starts = np.searchsorted(box[order], np.arange(len(boxes)))
    corners = np.minimum.reduceat(windows[order, :2], starts)
    extents = np.maximum.reduceat(windows[order, :2] + windows[order, 2:], starts) - corners
    shapes = np.concatenate([plan.shapes for plan in plans])[order[starts]]
    # Whole rows lie in one piece, and are copied faster than most of each.
    wide = extents[:, 1] >= _WIDE * shapes[:, 1]
    corners[wide, 1], extents[wide, 1] = 0, shapes[wide, 1]

    # Planes go sensor by sensor, and then in the order in which views first show them: so most often nothing has to be
    # looked up.
    keys = [index[:, None] * len(names) + rows for index, rows in zip(indices, drawn, strict=True)]
    found, first, place = np.unique(
        np.concatenate([key.ravel() for key in keys]), return_index=True, return_inverse=True
    )
    arranged = np.lexsort((first, names.sensor_of[found % len(names)]))
    rank = np.empty_like(arranged)
    rank[arranged] = np.arange(len(arranged))
    ends = np.cumsum([key.size for key in keys])[:-1]
    places = [part.reshape(key.shape) for part, key in zip(np.split(rank[place], ends), keys, strict=True)]
    samples, bands = np.divmod(found[arranged], len(names))

    origins = np.split(windows[:, :2] - corners[box], len(plans))
    height, width = extents.max(axis=0).tolist()
    groups, tables, start = [], [_as_table(bands)], len(bands)
    for views in _by_size(plans):
        group, table = _group(views, plans, places, origins, height, start)
        groups.append(group)
        tables.append(table)
        start += len(table)
    reads = list(_reads(names, samples, bands, boxes, np.concatenate([corners, extents, shapes], axis=1)))
    counts = np.bincount(names.sensor_of[bands], minlength=len(names.sensors)).tolist()
    planes = {sensor: count for sensor, count in zip(names.sensors, counts, strict=True) if count}
    return Arrangement(
        len(plans[0]), reads, planes, (height, width), tuple(groups), np.concatenate(tables), names.channels
    )


@dataclass(frozen=True)
class _Names:
    """The bands of all views, by number.

    Attributes:
        channels: Every band that any view may show.
        sensors: Their sensors, in the order in which their planes lie.
        positions: For each view, of each band that it may show the position in ``channels``.
        sensor_of: Of each band the position of its sensor in ``sensors``.
        blocks: Of each band a number that it shares with the bands of all sensors that a view shows beside its own.
    """

    channels: tuple[Channel, ...]
    sensors: tuple[str, ...]
    positions: tuple[NDArray[np.int64], ...]
    sensor_of: NDArray[np.int64]
    blocks: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.channels)

    @staticmethod
    @functools.lru_cache(maxsize=16)
    def of(channels: tuple[tuple[Channel, ...], ...]) -> _Names:
        """Numbers for the bands of some views."""
        every = tuple(dict.fromkeys(channel for view in channels for channel in view))
        sensors = tuple(dict.fromkeys(sensor for sensor, _ in every))
        blocks = list(range(len(sensors)))
        for view in channels:
            joined = {blocks[sensors.index(sensor)] for sensor, _ in view}
            blocks = [min(joined) if block in joined else block for block in blocks]
        sensor_of = np.array([sensors.index(sensor) for sensor, _ in every])
        positions = tuple(np.array([every.index(channel) for channel in view]) for view in channels)
        return _Names(every, sensors, positions, sensor_of, np.array(blocks)[sensor_of])


def _by_size(plans: Sequence[ViewPlan]) -> list[list[int]]:
    """Positions of the views that can be rendered together."""
    found: dict[tuple[int, int, int], list[int]] = {}
    for i, plan in enumerate(plans):
        found.setdefault((plan.size, plan.kernel, plan.channels.shape[1]), []).append(i)
    return list(found.values())


def _group(
    views: list[int],
    plans: Sequence[ViewPlan],
    places: Sequence[NDArray[np.int64]],
    origins: Sequence[NDArray[np.int64]],
    height: int,
    start: int,
) -> tuple[ViewGroup, NDArray[np.float32]]:
    own = [plans[i] for i in views]
    planes = np.stack([places[i] for i in views])
    stacked = len(views) if len(views) > 1 and (planes == planes[0]).all() else 1

    def items(arrays: Sequence[NDArray[np.generic]]) -> NDArray[np.float32]:
        """One row an item, in the order of the items."""
        rows = np.stack(arrays, axis=1 if stacked > 1 else 0).astype(np.float32)
        return rows.reshape(-1, *rows.shape[2:])

    windows, boxes, corners = (
        items(found) for found in ([p.windows for p in own], [p.boxes for p in own], [origins[i] for i in views])
    )
    sigmas, angles, grey = (
        items(found) for found in ([p.sigmas for p in own], [p.angles for p in own], [p.grey for p in own])
    )
    way = items([dihedral_codes(plan.flips, plan.turns) for plan in own]).astype(np.int64)
    longest = int(windows[:, 2:].max())
    sources = (planes[0] if stacked > 1 else planes).ravel()
    follow = bool((np.diff(sources) == 1).all())
    # Of planes that are looked up for one item alone, no more rows are taken than the highest crop has.
    rows = height if follow or stacked > 1 else int(windows[:, 2].max())
    above = np.minimum(corners[:, 0], height - rows)
    corners[:, 0] -= above
    looked_up = sources * height + np.repeat(above[::stacked].astype(np.int64), planes.shape[2])
    half, transposed = boxes[:, 2:] / 2, way & TRANSPOSE > 0
    reverse = np.stack([way & FLIP_ROWS, way & FLIP_COLUMNS], axis=1) > 0
    blurred, rotated = np.flatnonzero(sigmas > 0), np.flatnonzero(angles != 0)
    axes = np.stack([corners, windows[:, 2:], reverse, boxes[:, :2] + half, half], dtype=np.float32)
    table = (
        axes.swapaxes(1, 2).ravel(),
        np.concatenate([transposed, sigmas, np.radians(angles), grey], dtype=np.float32),
        *map(_as_table, (looked_up[: 0 if follow else None], blurred, rotated)),
    )
    group = ViewGroup(
        views=tuple(views),
        size=own[0].size,
        kernel=own[0].kernel,
        channels=planes.shape[2],
        stacked=stacked,
        first=int(sources[0]) if follow else None,
        rows=rows,
        longest=longest,
        turned=bool(transposed.any()),
        grey=bool(grey.any()),
        erased=bool(boxes.any()),
        blurred=len(blurred),
        rotated=len(rotated),
        start=start,
    )
    return group, np.concatenate(table)


def _as_table(positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Whole numbers as int32 in a table of float32, which could not hold large ones."""
    return positions.astype(np.int32).view(np.float32)


def _reads(
    names: _Names,
    samples: NDArray[np.int64],
    bands: NDArray[np.int64],
    boxes: NDArray[np.int64],
    rectangles: NDArray[np.int64],
) -> Iterator[PlaneRead]:
    """One read for each sample and sensor; ``rectangles`` are corner, extent and planned shape of each box."""
    sensors = names.sensor_of[bands]
    place = np.arange(len(bands)) - np.searchsorted(sensors, np.arange(len(names.sensors)))[sensors]
    key = samples * len(names.sensors) + sensors
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    of = np.searchsorted(boxes, (samples * len(names.sensors) + names.blocks[bands])[order[starts]])
    rows = zip(samples[order[starts]].tolist(), sensors[order[starts]].tolist(), rectangles[of].tolist(), strict=True)
    own, places = bands[order].tolist(), place[order].tolist()
    bounds = itertools.pairwise([*starts.tolist(), len(order)])
    for (index, sensor, (top, left, height, width, *shape)), (start, end) in zip(rows, bounds, strict=True):
        chosen = tuple(names.channels[band][1] for band in own[start:end])
        window = Window(top, left, height, width)
        yield PlaneRead(index, names.sensors[sensor], chosen, window, (shape[0], shape[1]), tuple(places[start:end]))
