"""What the simulated Wave Mode archive shows: the ten phenomena of TenGeoP-SARwv, and the weather that they occur in.

Names are those of Wang et al. 2019, "A labelled ocean SAR imagery dataset of ten geophysical phenomena from Sentinel-1
wave mode", Geosci. Data J. 6, doi:10.1002/gdj3.73. Order and ranges are ours: frequent phenomena first, as far as the
literature tells (Wang et al. 2020, Remote Sens. Environ. 237), winds as the phenomena are known to need.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phenomenon:
    """One class.

    Attributes:
        name: The label.
        winds: Lowest and highest wind speed at 10 m that it occurs at, in m/s.
        swell: Chance that a swell runs through it.
        polar: It occurs at high latitudes only.
        covered: Ice hides the water: no waves, and no wind that a radar could tell.
    """

    name: str
    winds: tuple[float, float]
    swell: float = 0.6
    polar: bool = False
    covered: bool = False


PHENOMENA = (
    Phenomenon("pure ocean waves", (4.0, 18.0), swell=1.0),
    Phenomenon("micro convective cells", (4.0, 14.0)),
    Phenomenon("wind streaks", (6.0, 18.0)),
    Phenomenon("low wind area", (1.5, 4.5)),
    Phenomenon("rain cells", (3.0, 11.0)),
    Phenomenon("biological slicks", (2.0, 6.0)),
    Phenomenon("atmospheric front", (4.0, 12.0)),
    Phenomenon("sea ice", (3.0, 16.0), swell=0.0, polar=True, covered=True),
    Phenomenon("iceberg", (3.0, 12.0), polar=True),
    Phenomenon("oceanic front", (3.0, 10.0)),
)
"""The most frequent first; the position is the rank."""
