"""How the covers of the simulated archive look to Sentinel-2 and Sentinel-1.

All numbers are illustrative: typical orders of magnitude that keep the known relations between covers (water
absorbs infrared, leaves have a red edge, soil brightens towards the short-wave infrared, snow is dark there,
smooth water returns little radar and towns much), not measurements. For the ranges of C-band backscatter see
Ulaby and Dobson 1989, "Handbook of Radar Scattering Statistics for Terrain".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MATERIALS: Mapping[str, tuple[float, ...]] = {
    "clear water": (0.035, 0.040, 0.045, 0.030, 0.022, 0.018, 0.016, 0.012, 0.011, 0.010, 0.006, 0.004),
    "turbid water": (0.060, 0.070, 0.100, 0.090, 0.080, 0.060, 0.055, 0.040, 0.035, 0.030, 0.012, 0.008),
    "broad leaves": (0.025, 0.030, 0.060, 0.030, 0.085, 0.250, 0.320, 0.350, 0.370, 0.380, 0.200, 0.090),
    "needles": (0.015, 0.020, 0.035, 0.022, 0.050, 0.140, 0.170, 0.190, 0.200, 0.210, 0.100, 0.045),
    "grass": (0.035, 0.045, 0.080, 0.055, 0.120, 0.240, 0.280, 0.300, 0.320, 0.330, 0.250, 0.140),
    "crop": (0.025, 0.035, 0.070, 0.035, 0.100, 0.320, 0.420, 0.450, 0.460, 0.460, 0.220, 0.100),
    "dry plants": (0.060, 0.080, 0.120, 0.150, 0.190, 0.220, 0.240, 0.260, 0.280, 0.290, 0.340, 0.240),
    "bright soil": (0.080, 0.100, 0.140, 0.190, 0.220, 0.240, 0.260, 0.280, 0.290, 0.300, 0.370, 0.320),
    "dark soil": (0.050, 0.060, 0.080, 0.100, 0.115, 0.125, 0.135, 0.145, 0.150, 0.155, 0.200, 0.180),
    "asphalt": (0.080, 0.090, 0.100, 0.105, 0.110, 0.115, 0.120, 0.125, 0.130, 0.130, 0.150, 0.140),
    "concrete": (0.180, 0.200, 0.230, 0.250, 0.260, 0.270, 0.280, 0.290, 0.300, 0.300, 0.320, 0.300),
    "snow": (0.900, 0.920, 0.910, 0.900, 0.880, 0.860, 0.850, 0.830, 0.800, 0.700, 0.120, 0.080),
}
"""Surface reflectance, 0 to 1, of pure materials in the band order of ``s2-l2a``."""

CLOUD = (0.55, 0.56, 0.55, 0.55, 0.56, 0.57, 0.58, 0.58, 0.58, 0.50, 0.42, 0.32)
"""Reflectance of an opaque cloud in the same bands."""


@dataclass(frozen=True)
class Cover:
    """One class of the land-cover map.

    A pixel's *state*, 0 to 1, moves it from ``low`` to ``high``: from a bare to a full-grown field, from clear to
    turbid water. These colours tell covers apart within a scene; between scenes they do not, as each scene gets
    colours of its own (:mod:`terrasieve.simulation.appearance`).

    Attributes:
        name: The label of scenes that show it most.
        pattern: Whether it ends at the straight edges of parcels or at smooth shores.
        low: Shares of the materials at state 0; they sum to 1 (linear mixing; Keshava and Mustard 2002,
            "Spectral unmixing", IEEE Signal Processing Magazine 19(1)).
        high: Shares at state 1.
        season: How far winter pulls the state to 0, 0 to 1.
        texture: Relative standard deviation of brightness, as the form of the cover makes it.
        vv: Backscatter sigma0 in VV at 38 degrees of incidence, dB, at states 0 and 1.
        vh: The same in VH.
        incidence: Change of sigma0 with incidence, dB a degree.
        roughness: Standard deviation of sigma0 from place to place, dB.
        weather: Standard deviation of sigma0 from one acquisition to the next (wind, moisture), dB.
    """

    name: str
    pattern: Literal["parcel", "smooth"]
    low: Mapping[str, float]
    high: Mapping[str, float]
    season: float
    texture: float
    vv: tuple[float, float]
    vh: tuple[float, float]
    incidence: float
    roughness: float
    weather: float


COVERS: tuple[Cover, ...] = (
    Cover(
        name="cropland",
        pattern="parcel",
        low={"bright soil": 0.5, "dark soil": 0.4, "dry plants": 0.1},
        high={"crop": 0.9, "dark soil": 0.1},
        season=0.8,
        texture=0.3,
        vv=(-13.0, -9.5),
        vh=(-21.5, -15.5),
        incidence=-0.15,
        roughness=0.5,
        weather=0.7,
    ),
    Cover(
        name="broadleaved forest",
        pattern="smooth",
        low={"dry plants": 0.45, "dark soil": 0.25, "broad leaves": 0.3},
        high={"broad leaves": 0.95, "dark soil": 0.05},
        season=0.8,
        texture=0.3,
        vv=(-9.5, -8.5),
        vh=(-15.0, -13.5),
        incidence=-0.08,
        roughness=0.8,
        weather=0.4,
    ),
    Cover(
        name="grassland",
        pattern="parcel",
        low={"dry plants": 0.6, "dark soil": 0.2, "grass": 0.2},
        high={"grass": 0.8, "crop": 0.2},
        season=0.5,
        texture=0.3,
        vv=(-13.0, -10.5),
        vh=(-20.5, -17.0),
        incidence=-0.13,
        roughness=0.6,
        weather=0.7,
    ),
    Cover(
        name="coniferous forest",
        pattern="smooth",
        low={"needles": 0.75, "dark soil": 0.15, "dry plants": 0.1},
        high={"needles": 0.9, "broad leaves": 0.1},
        season=0.1,
        texture=0.3,
        vv=(-10.0, -9.0),
        vh=(-15.5, -14.5),
        incidence=-0.08,
        roughness=0.8,
        weather=0.3,
    ),
    Cover(
        name="bare soil",
        pattern="smooth",
        low={"dark soil": 0.9, "dry plants": 0.1},
        high={"bright soil": 1.0},
        season=0.0,
        texture=0.3,
        vv=(-15.0, -12.0),
        vh=(-24.0, -21.0),
        incidence=-0.2,
        roughness=1.0,
        weather=1.0,
    ),
    Cover(
        name="water",
        pattern="smooth",
        low={"clear water": 1.0},
        high={"turbid water": 0.9, "clear water": 0.1},
        season=0.0,
        texture=0.3,
        vv=(-18.5, -17.5),
        vh=(-26.5, -25.5),
        incidence=-0.35,
        roughness=0.4,
        weather=2.5,
    ),
    Cover(
        name="urban",
        pattern="parcel",
        low={"asphalt": 0.6, "concrete": 0.1, "grass": 0.3},
        high={"concrete": 0.6, "asphalt": 0.3, "bright soil": 0.1},
        season=0.1,
        texture=0.3,
        vv=(-6.5, -3.0),
        vh=(-13.5, -10.0),
        incidence=-0.05,
        roughness=3.5,
        weather=0.3,
    ),
    Cover(
        name="shrubland",
        pattern="smooth",
        low={"dry plants": 0.5, "bright soil": 0.4, "grass": 0.1},
        high={"broad leaves": 0.45, "dry plants": 0.25, "dark soil": 0.3},
        season=0.3,
        texture=0.3,
        vv=(-12.5, -10.5),
        vh=(-19.0, -16.5),
        incidence=-0.11,
        roughness=1.0,
        weather=0.5,
    ),
    Cover(
        name="wetland",
        pattern="smooth",
        low={"turbid water": 0.6, "grass": 0.2, "dark soil": 0.2},
        high={"grass": 0.7, "broad leaves": 0.1, "clear water": 0.2},
        season=0.5,
        texture=0.3,
        vv=(-15.0, -9.5),
        vh=(-22.0, -17.5),
        incidence=-0.15,
        roughness=1.5,
        weather=1.2,
    ),
    Cover(
        name="snow and ice",
        pattern="smooth",
        low={"snow": 0.6, "dark soil": 0.4},
        high={"snow": 1.0},
        season=0.0,
        texture=0.3,
        vv=(-15.0, -12.0),
        vh=(-22.5, -19.5),
        incidence=-0.18,
        roughness=1.2,
        weather=1.0,
    ),
)
"""In the order of frequency: the position is the class number on the map and the rank of Zipf's law."""


def mixture(shares: Mapping[str, float]) -> NDArray[np.float32]:
    """Reflectance of a mixture of materials, shape ``(bands,)``."""
    parts = np.array([share * np.array(MATERIALS[name]) for name, share in shares.items()], dtype=np.float32)
    mixed: NDArray[np.float32] = parts.sum(axis=0)
    return mixed


def spectra() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reflectance of every cover at state 0 and at state 1, each of shape ``(covers, bands)``."""
    return np.stack([mixture(c.low) for c in COVERS]), np.stack([mixture(c.high) for c in COVERS])
