"""The land that stands behind the samples on the map, which is drawn without asking anybody for it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import mapping

_SHARE, _LEAST = 0.5, 5.0
"""How far around the samples land is drawn finely: in their extent, and in degrees at least."""
_DECIMALS = 2


def land_around(places: NDArray[np.floating]) -> dict[str, Any]:
    """Land as the geometry of GeoJSON: Natural Earth's at 1:50 million around samples, elsewhere at 1:110 million.

    A browser without a graphics card takes long for the whole Earth in the finer one.

    Args:
        places: Longitude and latitude of samples, shape ``(n, 2)``; one or more.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    margin = np.maximum((high - low) * _SHARE, _LEAST)
    box = shapely.box(*(low - margin), *(high + margin))
    fine = shapely.intersection(_land("50m"), box)
    coarse = shapely.difference(_land("110m"), box)
    parts = [
        polygon
        for part in shapely.get_parts([fine, coarse])
        for polygon in shapely.get_parts(part)
        if isinstance(polygon, shapely.Polygon)
    ]
    land: dict[str, Any] = mapping(shapely.set_precision(shapely.multipolygons(parts), 10.0**-_DECIMALS, "pointwise"))
    return land


def _land(scale: str) -> shapely.Geometry:
    text = (files("terrasieve.explorer") / "static" / f"land-{scale}.geojson").read_text(encoding="ascii")
    # Rounding lets some islands touch themselves.
    return shapely.make_valid(shapely.from_geojson(text))
