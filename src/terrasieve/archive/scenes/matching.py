"""Which files of several sensors show the same place on the same pixel grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import product

import numpy as np
import shapely
from numpy.typing import NDArray

from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.geotiff import Header
from terrasieve.archive.readers.tile_header import moved_origin
from terrasieve.archive.scenes.acquisition_time import acquisition_time

_PIXEL_TOLERANCE = 0.01
"""Pixels by which two grids may differ anywhere in a scene and still count as the same."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Files of one place on one grid.

    Attributes:
        name: Unique within the archive.
        files: The file of each sensor.
        offsets: Row and column of the scene's top-left pixel in each file.
        height: Rows that all files cover.
        width: Columns that all files cover.
        crs: The common reference system, None where unknown.
        transform: The affine a-f of the scene's grid.
    """

    name: str
    files: Mapping[str, Header]
    offsets: Mapping[str, tuple[int, int]]
    height: int
    width: int
    crs: str | None
    transform: tuple[float, float, float, float, float, float]


Candidates = Mapping[str, Mapping[str, Header]]
"""Readable files by sensor key and name."""


@dataclass(frozen=True)
class Unmatched:
    """A file, or its absence, that keeps a place from becoming a scene."""

    name: str
    sensor: str
    header: Header | None
    beside: Header
    error: FlawError


def match_by_stem(files: Candidates, max_days: float | None = None) -> Iterator[Scene | Unmatched]:
    """Join files of the same name; they must have the same grid, corner for corner.

    Args:
        files: Readable files by sensor key and name.
        max_days: Most days between the acquisitions of a scene's files; any number when None.

    Yields:
        One scene, or one reason why it is none, for each name.
    """
    for name in sorted({name for named in files.values() for name in named}):
        beside = next(named[name] for named in files.values() if name in named)
        absent = [key for key, named in files.items() if name not in named]
        if absent:
            yield Unmatched(name, absent[0], None, beside, _no_partner(beside, absent[0], "of the same name"))
            continue
        group = {key: named[name] for key, named in files.items()}
        far = None if max_days is None else _far_in_time(name, group, max_days)
        yield far or _join_equal(name, group)


def match_by_geometry(files: Candidates, max_days: float | None = None) -> Iterator[Scene | Unmatched]:
    """Join each file of the first sensor with those of the others that overlap it; a scene is what all cover.

    Where several files of a sensor overlap, each makes a scene of its own, named ``<first>+<other>``.

    Args:
        files: Readable files by sensor key and name.
        max_days: Most days between the acquisitions of a scene's files; any number when None. Of several partners those
            further away are passed over.

    Yields:
        Scenes, and reasons why a file of the first sensor is in none.
    """
    first, *others = files
    finders = {key: _OverlapFinder(files[key]) for key in others}
    for name, header in sorted(files[first].items()):
        partners = {key: finder.overlapping(header) for key, finder in finders.items()}
        absent = [key for key, names in partners.items() if not names]
        if absent:
            yield Unmatched(name, absent[0], None, header, _no_partner(header, absent[0], "that overlaps it"))
            continue
        far: list[Unmatched] = []
        for chosen in product(*partners.values()):
            # Only where there is a choice, so that names stay those of the files elsewhere.
            several = [other for other, names in zip(chosen, partners.values(), strict=True) if len(names) > 1]
            group = {first: header} | {key: files[key][other] for key, other in zip(others, chosen, strict=True)}
            if max_days is not None and (too_far := _far_in_time(name, group, max_days)):
                far.append(too_far)
            else:
                yield _join_overlap("+".join([name, *several]), group)
        # A file that has a partner in time is not lost by others that are far from it.
        if far and len(far) == math.prod(map(len, partners.values())):
            yield far[0]


def pixel_offset(reference: Header, other: Header) -> tuple[int, int] | None:
    """Row and column of ``other``'s first pixel in ``reference``'s grid; None where the grids do not align.

    Grids align when every corner of ``other`` lies the same whole number of pixels from where ``reference`` has it.
    """
    if reference.crs != other.crs:
        return None
    # From the other's pixels to the reference's: where it keeps all corners in their places, the grids are one.
    into = np.linalg.solve(reference.matrix, other.matrix)
    inner = _corners(other)
    moved = into @ inner - inner
    column, row = (int(step) for step in moved[:2, 0].round())
    if np.abs(moved[:2] - [[column], [row]]).max() > _PIXEL_TOLERANCE:
        return None
    return row, column


def _join_equal(name: str, group: Mapping[str, Header]) -> Scene | Unmatched:
    reference, *rest = group.items()
    for key, header in rest:
        same_size = (header.height, header.width) == (reference[1].height, reference[1].width)
        if not same_size or pixel_offset(reference[1], header) != (0, 0):
            return Unmatched(name, key, header, reference[1], _grids_differ(reference[1], header))
    return _scene(name, group, _no_offsets(tuple(group)), (reference[1].height, reference[1].width))


@lru_cache(maxsize=16)
def _no_offsets(keys: tuple[str, ...]) -> Mapping[str, tuple[int, int]]:
    """One object for all scenes: there may be a million."""
    return dict.fromkeys(keys, (0, 0))


def _join_overlap(name: str, group: Mapping[str, Header]) -> Scene | Unmatched:
    """The scene that all files of a group cover, in the grid of the first."""
    reference = next(iter(group.values()))
    corners: dict[str, tuple[int, int]] = {}
    for key, header in group.items():
        corner = pixel_offset(reference, header)
        if corner is None:
            return Unmatched(name, key, header, reference, _grids_differ(reference, header))
        corners[key] = corner
    # The part that all cover begins at the last of their first pixels and ends at the first of their last.
    top, left = (max(corner[axis] for corner in corners.values()) for axis in (0, 1))
    bottom = min(corners[key][0] + header.height for key, header in group.items())
    right = min(corners[key][1] + header.width for key, header in group.items())
    offsets = {key: (top - row, left - column) for key, (row, column) in corners.items()}
    return _scene(name, group, offsets, (bottom - top, right - left))


def _scene(
    name: str, group: Mapping[str, Header], offsets: Mapping[str, tuple[int, int]], size: tuple[int, int]
) -> Scene:
    key, reference = next(iter(group.items()))
    row, column = offsets[key]
    # An origin that stays is not computed anew: a sum with 0 would make 0 of -0.
    transform = moved_origin(reference.transform, row, column) if row or column else reference.transform
    return Scene(name, dict(group), offsets, size[0], size[1], reference.crs, transform)


class _OverlapFinder:
    """Files of one sensor by the place they cover, one tree for each reference system."""

    def __init__(self, files: Mapping[str, Header]) -> None:
        self._names: dict[str | None, list[str]] = {}
        for name, header in sorted(files.items()):
            self._names.setdefault(header.crs, []).append(name)
        self._trees = {
            crs: shapely.STRtree([footprint(files[name]) for name in names]) for crs, names in self._names.items()
        }

    def overlapping(self, header: Header) -> Sequence[str]:
        """Names of the files that share at least about one pixel with ``header``, in order."""
        tree = self._trees.get(header.crs)
        if tree is None or header.crs is None:
            return []
        place = footprint(header)
        pixel = abs(float(np.linalg.det(header.matrix)))
        # Neighbours on one grid share an edge, which intersects; rounding may make a sliver of it.
        hits = sorted(int(i) for i in tree.query(place, predicate="intersects"))
        names = self._names[header.crs]
        return [names[i] for i in hits if shapely.area(shapely.intersection(tree.geometries[i], place)) > pixel / 2]


def footprint(header: Header) -> shapely.Polygon:
    """The outline of a file in its own reference system."""
    return shapely.Polygon((header.matrix @ _corners(header))[:2].T)


def _corners(header: Header) -> NDArray[np.float64]:
    """Column, row and 1 of the four corners, shape ``(3, 4)``, starting at the first pixel."""
    right, bottom = header.width, header.height
    return np.array([[0, right, right, 0], [0, 0, bottom, bottom], [1, 1, 1, 1]], dtype=np.float64)


def _far_in_time(name: str, group: Mapping[str, Header], max_days: float) -> Unmatched | None:
    """Why files of one place are too far apart in time, or cannot be shown not to be; None where they are near."""
    (_, first), *_ = group.items()
    times = {key: acquisition_time(header) for key, header in group.items()}
    known = [time for time in times.values() if time is not None]
    unknown = next((key for key, time in times.items() if time is None), None)
    if unknown is not None:
        said = f"{group[unknown].path} does not state when it was taken, which the limit max_days asks for."
    elif max(known) - min(known) <= timedelta(days=max_days):
        return None
    else:
        unknown = max(times, key=lambda key: abs((times[key] or known[0]) - known[0]))
        days = (max(known) - min(known)).total_seconds() / 86_400
        said = (
            f"{group[unknown].path} was taken {days:,.1f} days from its partner {first.path}; the limit is "
            f"{max_days:g}. Fetch one that is nearer in time, or raise max_days."
        )
    return Unmatched(name, unknown, group[unknown], first, FlawError(Problem.PARTNER, said))


def _no_partner(header: Header, key: str, how: str) -> FlawError:
    return FlawError(
        Problem.PARTNER,
        f"{header.path} has no readable file of sensor {key!r} {how}. Add the file, remove this one, "
        f"or choose match: {'geometry' if 'name' in how else 'stem'}.",
    )


def _grids_differ(reference: Header, other: Header) -> FlawError:
    def say(header: Header) -> str:
        return f"{header.height}x{header.width} px in {header.crs} at {tuple(round(v, 3) for v in header.transform)}"

    return FlawError(
        Problem.GRID,
        f"{other.path} ({say(other)}) is not on the pixel grid of {reference.path} ({say(reference)}). "
        f"Resample one onto the other, or, where they only cover different extents, choose match: geometry.",
    )
