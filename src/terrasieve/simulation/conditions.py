"""What the simulated Wave Mode archive shows: the ten phenomena of TenGeoP-SARwv, and the weather that they occur in.

Names are those of Wang et al. 2019, "A labelled ocean SAR imagery dataset of ten geophysical phenomena from Sentinel-1
wave mode", Geosci. Data J. 6, doi:10.1002/gdj3.73. Order and ranges are ours: frequent phenomena first, as far as the
literature tells (Wang et al. 2020, Remote Sens. Environ. 237). Wind and waves are drawn alike for all phenomena, though
in nature some need weak winds and others strong ones: here the weather must not tell what there is to see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import shapely
from numpy.typing import NDArray

from terrasieve.ocean.viewing import INCIDENCE
from terrasieve.ocean.waves import GRAVITY, WaveSystem, significant_height, swell, wind_sea


@dataclass(frozen=True)
class Phenomenon:
    """One class.

    Attributes:
        name: The label of its vignettes.
        polar: It occurs at high latitudes only.
        covered: Ice hides the water: no waves, and no wind that a radar could tell.
    """

    name: str
    polar: bool = False
    covered: bool = False


PHENOMENA = (
    Phenomenon("pure ocean waves"),
    Phenomenon("micro convective cells"),
    Phenomenon("wind streaks"),
    Phenomenon("low wind area"),
    Phenomenon("rain cells"),
    Phenomenon("biological slicks"),
    Phenomenon("atmospheric front"),
    Phenomenon("sea ice", polar=True, covered=True),
    Phenomenon("iceberg", polar=True),
    Phenomenon("oceanic front"),
)
"""The most frequent first; the position is the rank."""

# ------------------------------------------------------------------ conditions

# Shape without unit, scale in m/s.
_WEIBULL_SHAPE, _WEIBULL_SCALE = 2.2, 8.5
WINDS = (3.0, 16.0)
"""Lowest and highest wind speed at 10 m, in m/s: the same for all phenomena, so that the wind does not tell which."""
# Distance in m over which the wind has blown: that decides how far its waves have grown.
_FETCH = (30e3, 1500e3)
# Median in m, standard deviation of the logarithm, and what is cut off on either side.
_SWELL_HEIGHT, _SWELL_SIGMA, _SWELL_HEIGHTS = 1.8, 0.5, (0.4, 7.0)
_SWELL_PERIOD = (10.5, 13.5)
"""In s: the waves of storms far away, longer than those of the local wind."""
_STEEPEST_SWELL = 0.02
"""Height over length: swells that come from far away are no steeper."""
_TURN = 25.0
"""Standard deviation in degrees by which a wind leaves the antenna's look or its opposite, and a swell the wind."""
_BEAM_JITTER = 0.3
"""Degrees by which the incidence of a vignette differs from that of its beam, either way."""
# Boxes of water without land: west, east, south, north in degrees.
_OPEN = ((-178, -135, 15, 48), (-50, -32, 12, 50), (-140, -85, -50, -12), (-32, 4, -50, -18), (62, 105, -45, -10))
_POLAR = ((-165, -95, -72, -62), (-40, -12, -70, -60), (-20, 20, -66, -56))
_START, _DAYS = datetime(2016, 1, 1, tzinfo=UTC), 5 * 365
# Heading in degrees and local solar hour: Sentinel-1 flies over at dawn and at dusk.
_ASCENDING, _DESCENDING = (348.0, 18.0), (192.0, 6.0)
_METRES_A_DEGREE = 111_320.0


@dataclass(frozen=True)
class Conditions:
    """What is known of one vignette without its pixels.

    Attributes:
        phenomenon: The phenomenon that it shows.
        mode: ``WV1`` or ``WV2``.
        incidence: Angle of incidence in its middle, in degrees.
        wind_speed: Mean over the vignette at 10 m, in m/s.
        wind_direction: That the wind comes from, relative to the antenna's look, in degrees; 0 is upwind.
        waves: The wind sea and a swell, of open water; ice hides them.
        longitude: Of the middle, in degrees; ``latitude`` likewise.
        heading: That the satellite flies to, in degrees clockwise from north.
        time: When it was acquired, in UTC.
    """

    phenomenon: Phenomenon
    mode: str
    incidence: float
    wind_speed: float
    wind_direction: float
    waves: tuple[WaveSystem, ...]
    longitude: float
    latitude: float
    heading: float
    time: datetime

    @property
    def blows_to(self) -> float:
        """Where the wind blows to, in radians from increasing range (columns) towards increasing azimuth (rows)."""
        return math.radians(180 + self.wind_direction)

    @property
    def swh(self) -> float | None:
        """Significant wave height of all waves together, in m; None under ice."""
        return None if self.phenomenon.covered else significant_height(self.waves)

    @property
    def known_wind(self) -> float | None:
        """The wind speed where it can be seen; None under ice."""
        return None if self.phenomenon.covered else self.wind_speed


def phenomenon_shares(zipf: float) -> NDArray[np.float64]:
    """How frequent each phenomenon is: proportional to rank to the power ``-zipf``."""
    weights = np.arange(1, len(PHENOMENA) + 1) ** -float(zipf)
    return np.asarray(weights / weights.sum())


def draw_conditions(rng: np.random.Generator, zipf: float) -> Conditions:
    """Conditions of a vignette.

    Winds follow the Weibull distribution of the open ocean (Monahan 2006, J. Climate 19: shape about 2.2), within
    :data:`WINDS`, and blow along the antenna's look or against it: most winds over the ocean are zonal, and a satellite
    on a polar orbit looks east or west. Swells are log-normal in height; the fetch of the wind sea is log-uniform.

    Args:
        rng: The vignette's own generator, untouched.
        zipf: Exponent of the phenomena's frequencies.
    """
    seen = PHENOMENA[int(rng.choice(len(PHENOMENA), p=phenomenon_shares(zipf)))]
    mode = "WV1" if rng.random() < 0.5 else "WV2"
    incidence = INCIDENCE[mode] + float(rng.uniform(-_BEAM_JITTER, _BEAM_JITTER))
    # The inverse of the distribution function, between its values at the least and the greatest wind allowed.
    low, high = (1 - math.exp(-((speed / _WEIBULL_SCALE) ** _WEIBULL_SHAPE)) for speed in WINDS)
    speed = float(_WEIBULL_SCALE * (-math.log1p(-rng.uniform(low, high))) ** (1 / _WEIBULL_SHAPE))
    direction = (float(rng.choice([0.0, 180.0])) + float(rng.normal(0, _TURN)) + 180) % 360 - 180
    waves = _draw_waves(rng, speed, math.radians(180 + direction))
    longitude, latitude = _draw_place(rng, seen.polar)
    heading, hour = _ASCENDING if rng.random() < 0.5 else _DESCENDING
    # 15 degrees of longitude are an hour: that makes universal time of the local one.
    day = timedelta(days=int(rng.integers(_DAYS)), hours=hour - longitude / 15, minutes=float(rng.uniform(-30, 30)))
    return Conditions(seen, mode, incidence, speed, direction, waves, longitude, latitude, heading, _START + day)


def outline(longitude: float, latitude: float, heading: float, side: float) -> bytes:
    """A square on the sea, as well-known binary in longitude and latitude.

    Args:
        longitude: Longitude of its middle, in degrees.
        latitude: Latitude of its middle, in degrees.
        heading: Direction of one pair of its sides, in degrees clockwise from north.
        side: Length of a side, in m.
    """
    turn, half = math.radians(heading), side / 2
    along, across = np.array([-1, -1, 1, 1]) * half, np.array([-1, 1, 1, -1]) * half
    north = along * math.cos(turn) - across * math.sin(turn)
    east = along * math.sin(turn) + across * math.cos(turn)
    # Degrees of longitude shrink towards the poles; over 20 km the Earth is flat enough for the rest.
    longitudes = longitude + east / (_METRES_A_DEGREE * math.cos(math.radians(latitude)))
    ring = np.stack([longitudes, latitude + north / _METRES_A_DEGREE], axis=1)
    return bytes(shapely.to_wkb(shapely.polygons(ring)))


def _draw_waves(rng: np.random.Generator, wind_speed: float, blows_to: float) -> tuple[WaveSystem, ...]:
    fetch = float(np.exp(rng.uniform(*np.log(_FETCH))))
    sea = wind_sea(wind_speed, blows_to, fetch)
    period = float(rng.uniform(*_SWELL_PERIOD))
    # Waves of deep water are g T^2 / (2 pi) long.
    steepest = _STEEPEST_SWELL * GRAVITY * period**2 / (2 * math.pi)
    height = float(np.clip(rng.lognormal(math.log(_SWELL_HEIGHT), _SWELL_SIGMA), *_SWELL_HEIGHTS))
    return (sea, swell(min(height, steepest), period, blows_to + math.radians(float(rng.normal(0, _TURN)))))


def _draw_place(rng: np.random.Generator, polar: bool) -> tuple[float, float]:
    """Somewhere in boxes of open ocean, each as likely as it is large in degrees."""
    boxes = np.array(_POLAR if polar else _OPEN, dtype=np.float64)
    areas = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    west, east, south, north = boxes[int(rng.choice(len(boxes), p=areas / areas.sum()))]
    return float(rng.uniform(west, east)), float(rng.uniform(south, north))
