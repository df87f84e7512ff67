"""Outlines of samples on the globe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio.warp
import shapely
from numpy.typing import ArrayLike, NDArray
from rasterio.errors import CRSError, RasterioError

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
        Well-known binary, None for all where the system is unknown, and for a polygon that cannot be
        projected or crosses the antimeridian.
    """
    if crs is None or not len(points):
        return [None] * len(points)
    try:
        flat = rasterio.warp.transform(crs, _LONGITUDE_LATITUDE, points[..., 0].ravel(), points[..., 1].ravel())
    except (CRSError, RasterioError):
        return [None] * len(points)
    rings = np.stack([np.asarray(axis) for axis in flat[:2]], axis=-1).reshape(points.shape)
    usable = np.isfinite(rings).all(axis=(1, 2)) & (np.ptp(rings[..., 0], axis=1) < 180)
    binary = shapely.to_wkb(shapely.polygons(np.where(usable[:, None, None], rings, 0.0)))
    return [bytes(wkb) if ok else None for wkb, ok in zip(binary, usable, strict=True)]


def outlines_in_systems(points: NDArray[np.float64], systems: Sequence[str | None]) -> list[bytes | None]:
    """The same, of polygons that lie in several reference systems.

    Args:
        points: Shape ``(n, 4, 2)``.
        systems: Of each polygon; see ``crs`` of :func:`outlines`.
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
