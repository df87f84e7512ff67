"""Where Sentinel-1 looks from in Wave Mode.

Orbit and geometry of Torres et al. 2012, "GMES Sentinel-1 mission", Remote Sens. Environ. 120: 693 km above a sphere.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

INCIDENCE = {"WV1": 23.8, "WV2": 36.8}
"""Incidence in degrees at the middle of a vignette, by beam."""

_EARTH = 6_371_000.0
"""Radius of the Earth in m."""
_ORBIT = _EARTH + 693_000.0
"""Radius of the orbit in m."""
_SPEED = math.sqrt(3.986e14 / _ORBIT)
"""Speed in m/s on a circular orbit, from the Earth's gravitational parameter in m3/s2."""


def range_to_velocity(incidence: float) -> float:
    """Slant range over the platform's speed, in s: metres of azimuth shift for 1 m/s towards the radar.

    Args:
        incidence: Angle between the line of sight and the vertical at the surface, in degrees between 0 and 90.
    """
    angle = math.radians(incidence)
    look = _look(angle)
    # Slant range by the law of sines: the angle at the Earth's centre is incidence less look angle.
    return _EARTH * math.sin(angle - look) / math.sin(look) / _SPEED


def incidences(middle: float, columns: int, spacing: float) -> NDArray[np.float64]:
    """Incidence of each column of an image whose range grows with the columns, in degrees.

    Args:
        middle: Incidence in degrees at the middle of the image.
        columns: Number of columns of the image.
        spacing: Distance between neighbouring columns on the ground, in m.

    Returns:
        Ascending, shape ``(columns,)``.
    """
    angle = math.radians(middle)
    # On a sphere incidence is look angle plus the angle at the Earth's centre, and that is ground range over radius.
    ratio = _EARTH / _ORBIT * math.cos(angle) / math.cos(_look(angle))
    rise = math.degrees(1 / (_EARTH * (1 - ratio)))
    offsets = np.arange(columns, dtype=np.float64) - (columns - 1) / 2
    return middle + rise * spacing * offsets


def _look(incidence: float) -> float:
    """The angle at the satellite between its line of sight and its nadir, in radians as the incidence."""
    return math.asin(_EARTH / _ORBIT * math.sin(incidence))
