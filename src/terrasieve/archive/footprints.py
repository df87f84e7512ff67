"""Outlines of samples on the globe, and tables of them as GeoParquet.

An outline is a polygon in longitude and latitude as well-known binary. GeoParquet 1.1 is described at
https://geoparquet.org/releases/v1.1.0; its coordinates are OGC:CRS84 where no ``crs`` is stated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio.warp
import shapely
from numpy.typing import ArrayLike, NDArray
from rasterio.errors import CRSError

from terrasieve.archive.readers.gdal import REFUSALS
from terrasieve.files.writing import write_whole

_LONGITUDE_LATITUDE = "EPSG:4326"
_BLOCK = 8192
"""Polygons that are held in memory as such at a time."""


def corners(transforms: ArrayLike, boxes: NDArray[Any]) -> NDArray[np.float64]:
    """Coordinates of the corners of pixel boxes.

    Args:
        transforms: The affine a-f from (column, row) to coordinates: one for all, or shape ``(n, 6)``.
        boxes: Shape ``(n, 4)``: top, left, height, width in pixels.

    Returns:
        Shape ``(n, 4, 2)``: x and y, counter-clockwise on a north-up grid from the bottom left.
    """
    a, b, c, d, e, f = np.asarray(transforms, dtype=np.float64).T[..., None]
    top, left, height, width = np.asarray(boxes, dtype=np.float64).T
    columns = np.stack([left, left + width, left + width, left], axis=1)
    rows = np.stack([top + height, top + height, top, top], axis=1)
    return np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=-1)


def outlines(points: NDArray[np.float64], crs: str | None) -> list[bytes | None]:
    """Polygons in longitude and latitude.

    Args:
        points: Shape ``(n, 4, 2)``, in ``crs``.
        crs: As rasterio understands it, or None.

    Returns:
        Well-known binary, None for all where the system is unknown, and for a polygon that cannot be projected. One
        that crosses the antimeridian comes in two parts (RFC 7946, section 3.1.9), one that holds a pole as None.
    """
    if crs is None or not len(points):
        return [None] * len(points)
    try:
        flat = rasterio.warp.transform(crs, _LONGITUDE_LATITUDE, points[..., 0].ravel(), points[..., 1].ravel())
    except (CRSError, *REFUSALS):
        return [None] * len(points)
    # A polygon that spans half the globe crosses the antimeridian: drawn as it stands, it would cover all the rest.
    rings = np.stack([np.asarray(axis) for axis in flat[:2]], axis=-1).reshape(points.shape)
    crossing = np.ptp(rings[..., 0], axis=1) >= 180
    rings[..., 0] = np.where(crossing[:, None], rings[..., 0] % 360, rings[..., 0])
    usable = np.isfinite(rings).all(axis=(1, 2)) & (np.ptp(rings[..., 0], axis=1) < 180)
    shapes = shapely.polygons(np.where(usable[:, None, None], rings, 0.0))
    for index in np.flatnonzero(crossing & usable):
        # Its longitudes run from 0 to 360 degrees.
        east = shapely.intersection(shapes[index], shapely.box(0, -90, 180, 90))
        west = shapely.intersection(shapes[index], shapely.box(180, -90, 360, 90))
        shapes[index] = shapely.multipolygons([east, shapely.transform(west, lambda points: points - [360, 0])])
    return [bytes(wkb) if ok else None for wkb, ok in zip(shapely.to_wkb(shapes), usable, strict=True)]


def centres(outlines: Any) -> NDArray[np.float64]:
    """Longitude and latitude in the middle of each outline, also of one that comes in two parts; shape ``(n, 2)``.

    Args:
        outlines: Shapes of shapely, in longitude and latitude, shape ``(n,)``; None where unknown, which gives NaN.
    """
    middle = shapely.centroid(outlines)
    found = np.stack([shapely.get_x(middle), shapely.get_y(middle)], axis=-1)
    bounds = shapely.bounds(outlines)
    # Parts at both ends of the map belong together: the mean of 179.9 and -179.9 would lie in Africa.
    for index in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180):
        whole = shapely.transform(outlines[index], lambda points: np.stack([points[:, 0] % 360, points[:, 1]], axis=-1))
        x, y = shapely.get_coordinates(shapely.centroid(whole))[0]
        found[index] = (x + 180) % 360 - 180, y
    return found


def outlines_in_systems(points: NDArray[np.float64], systems: Sequence[str | None]) -> list[bytes | None]:
    """As :func:`outlines`, of polygons that lie in several reference systems.

    Args:
        points: Shape ``(n, 4, 2)``.
        systems: The reference system of each polygon, as rasterio understands it; None where it is unknown.
    """
    found: list[bytes | None] = [None] * len(points)
    members: dict[str | None, list[int]] = {}
    for index, crs in enumerate(systems):
        members.setdefault(crs, []).append(index)
    for crs, all_of_it in members.items():
        for start in range(0, len(all_of_it), _BLOCK):
            block = all_of_it[start : start + _BLOCK]
            for index, outline in zip(block, outlines(points[block], crs), strict=True):
                found[index] = outline
    return found


# ------------------------------------------------------------------ GeoParquet

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_ROW_GROUP = 16_384
"""Rows that are encoded at a time, and geometries that are held in memory as such."""
_BBOX = pa.struct([(edge, pa.float64()) for edge in _EDGES])


def with_bbox(table: pa.Table) -> pa.Table:
    """The table with a column ``bbox``: the bounds of each geometry, null where there is none.

    Args:
        table: Has a column ``geometry`` of well-known binary.
    """
    bounds = np.empty((len(table), len(_EDGES)))
    for start in range(0, len(table), _ROW_GROUP):
        geometries = table["geometry"].slice(start, _ROW_GROUP).to_numpy(zero_copy_only=False)
        bounds[start : start + _ROW_GROUP] = shapely.bounds(shapely.from_wkb(geometries))
    mask = pa.array(np.isnan(bounds[:, 0]))
    edges = [pa.array(column) for column in bounds.T]
    return table.append_column("bbox", pa.StructArray.from_arrays(edges, fields=list(_BBOX), mask=mask))


def kinds_of(column: pa.ChunkedArray) -> list[str]:
    """The types of geometry in a column of well-known binary; ``Polygon`` where all are null."""
    kinds: set[str] = set()
    for start in range(0, len(column), _ROW_GROUP):
        shapes = shapely.from_wkb(column.slice(start, _ROW_GROUP).to_numpy(zero_copy_only=False))
        kinds |= {shape.geom_type for shape in shapes if shape is not None}
    return sorted(kinds) or ["Polygon"]


def with_metadata(
    schema: pa.Schema, metadata: Mapping[str, Mapping[str, Any]], kinds: Sequence[str] = ("Polygon",)
) -> pa.Schema:
    """The schema of a GeoParquet file.

    Args:
        schema: Has the columns ``geometry`` (binary) and ``bbox`` (as ``with_bbox`` makes it).
        metadata: JSON-able values by file-level key, to stand beside ``geo``.
        kinds: Types of geometry in the file, as :func:`kinds_of` gives them.
    """
    column = {
        "encoding": "WKB",
        "geometry_types": list(kinds),
        "covering": {"bbox": {edge: ["bbox", edge] for edge in _EDGES}},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return schema.with_metadata({key: json.dumps(value) for key, value in {"geo": geo, **metadata}.items()})


def write_geoparquet(table: pa.Table, path: Path, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a table with outlines; the file appears under its name only when it is whole.

    Args:
        table: Has a column ``geometry`` of well-known binary in longitude and latitude.
        path: The file; its folder is made where it is absent.
        metadata: JSON-able values by file-level key.
    """
    full = with_bbox(table)
    full = full.cast(with_metadata(full.schema, metadata, kinds_of(full["geometry"])))
    with write_whole(path) as partial:
        pq.write_table(full, partial, compression="zstd", row_group_size=_ROW_GROUP)
