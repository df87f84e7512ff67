"""Points in place and time, and how far apart they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EARTH_KM = 6371.0088
"""Mean radius (IUGG); on the ellipsoid great circles differ by at most 0.6 %."""
MINUTE = 60_000_000
"""A minute in microseconds, the unit of times here."""


@dataclass(frozen=True)
class Points:
    """Where and when something was measured; all shape ``(n,)``.

    Attributes:
        latitude: Latitude in degrees, -90 to 90.
        longitude: Longitude in degrees, east positive, from -180 or from 0.
        time: Microseconds since 1970 in UTC.
    """

    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    time: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: NDArray[Any] | slice) -> Points:
        """Some of them, by position or mask."""
        return Points(self.latitude[rows], self.longitude[rows], self.time[rows])


@dataclass(frozen=True)
class Reach:
    """What is near enough to some samples to be their target.

    Attributes:
        samples: Place and time of each sample; at least one.
        max_km: Largest great-circle distance in km on the sphere of :data:`EARTH_KM`, inclusive.
        max_minutes: Longest time between in minutes, inclusive, before or after.
    """

    samples: Points
    max_km: float
    max_minutes: float

    @property
    def window(self) -> int:
        """Longest time between in microseconds."""
        return round(self.max_minutes * MINUTE)

    @property
    def span(self) -> tuple[int, int]:
        """First and last time that matter, microseconds since 1970."""
        return int(self.samples.time.min()) - self.window, int(self.samples.time.max()) + self.window
