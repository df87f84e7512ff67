"""Which samples show ground that others show as well, by their outlines, and squares of ground that hold them apart."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from terrasieve.archive.footprints import centres

_INNER = 0.9
"""Part of a sample's sides, about its centre, that has to meet another one: neighbours on a grid share an edge, which
projecting them may make a sliver of."""
_BLOCK = 16_384
"""Outlines that are compared at a time."""
_KM_PER_DEGREE = 111.195


def overlapping(table: pa.Table, samples: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which samples overlap another one by more than a margin of a twentieth of their sides.

    Args:
        table: Has ``geometry``, outlines in longitude and latitude as well-known binary, null where unknown.
        samples: Positions of the samples in question, shape ``(n,)``.
        others: Positions of those that they may overlap. A sample does not overlap itself.

    Returns:
        Shape ``(n,)``; False where a sample's place is unknown, and for simulated samples, whose places are made up.
    """
    found = np.zeros(len(samples), dtype=np.bool_)
    if _are_made_up(table):
        return found
    shapes, shape_of = _distinct(table)
    used = np.unique(shape_of[others])
    used = used[used >= 0]
    if not len(used):
        return found
    counts = np.bincount(shape_of[others][shape_of[others] >= 0], minlength=len(shapes))
    tree = shapely.STRtree(shapes[used])
    asked = np.unique(shape_of[samples])
    asked = asked[asked >= 0]
    meets = np.zeros(len(shapes), dtype=np.bool_)
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        inner, outer = tree.query(_inner(shapes[block]), predicate="intersects")
        foreign = block[inner] != used[outer]
        meets[block[inner[foreign]]] = True
    placed = shape_of[samples] >= 0
    own = shape_of[samples[placed]]
    # Samples of one and the same outline have been one shape so far; a sample among the others does not count itself.
    twins = counts[own] - np.isin(samples[placed], others)
    found[placed] = meets[own] | (twins > 0)
    return found


def blocks(table: pa.Table, km: float) -> NDArray[np.int64]:
    """The square of ground that each sample's centre lies in.

    Args:
        table: Has ``geometry``, as in :func:`overlapping`.
        km: Side of a square in km, above 0. Rows of squares run along the parallels.

    Returns:
        A number for each square, shape ``(n,)``; -1 where a sample's place is unknown.
    """
    shapes, shape_of = _distinct(table)
    if not len(shapes):
        return shape_of
    longitude, latitude = centres(shapes).T
    row = np.floor(latitude * _KM_PER_DEGREE / km)
    # Of each row of squares the middle says how long a degree is.
    degree = _KM_PER_DEGREE * np.cos(np.radians(np.clip((row + 0.5) * km / _KM_PER_DEGREE, -89.9, 89.9)))
    squares = np.stack([row, np.floor(longitude * degree / km)], axis=1)
    number = np.unique(squares, axis=0, return_inverse=True)[1].reshape(-1)
    return np.where(shape_of >= 0, number[shape_of], -1)


def _are_made_up(table: pa.Table) -> bool:
    """Whether no sample lies in a file, as simulated ones do not: two of them at one place share no ground."""
    assets = [table[name] for name in table.column_names if name.startswith("asset:")]
    return bool(assets) and not any(pc.any(pc.not_equal(one, "")).as_py() for one in assets)


def _distinct(table: pa.Table) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Every outline once, and its position for each sample, -1 where there is none."""
    if "geometry" not in table.column_names:
        return np.empty(0, dtype=object), np.full(len(table), -1)
    # A time series has one outline many times: each pair of it would be found.
    encoded = table["geometry"].combine_chunks().dictionary_encode()
    shape_of = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return shapely.from_wkb(encoded.dictionary.to_numpy(zero_copy_only=False)), shape_of


def _inner(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """The shapes without their margins."""
    whole = shapes.copy()
    simple = shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON
    # Parts on either side of 180 degrees have no common centre to shrink about.
    whole[~simple] = shapely.buffer(shapes[~simple], -(1 - _INNER) / 2 * np.sqrt(shapely.area(shapes[~simple])))
    coordinates, owner = shapely.get_coordinates(shapes[simple], return_index=True)
    centres = shapely.get_coordinates(shapely.centroid(shapes[simple]))[owner]
    whole[simple] = shapely.set_coordinates(shapes[simple].copy(), centres + _INNER * (coordinates - centres))
    return whole
