"""Band order that contradicts the spectra.

Files of 13 Sentinel-2 bands come in two orders, with B8A after B08 or last, and most say nothing of it. Read in the
wrong one, B09 to B12 and B8A each show a neighbour.
"""

from __future__ import annotations

import numpy as np

from terrasieve.archive.suspicions.look import Look
from terrasieve.archive.suspicions.offset import CLEAR_AIR, FLOOR, OFFSET, may_carry

# B8A and B08 see nearly the same light (0.865 and 0.833 um): over land no other band of this group follows B08 as
# closely. Water is left out, where all of them are noise: there B08 varies by less than a reflectance of 0.01.
_LIKE_B08 = ("B09", "B11", "B12")
_TEXTURE = 100.0
_CLOSE, _MARGIN = 0.9, 0.05
# B10 sees no ground and lies below its neighbours. Of the two, B09 is brighter always; B11 is not over water or
# under clouds of ice, so that only a B11 as dark as clear air in B10 speaks against the order.
_ABOVE_B09 = 100.0
_ABOVE_B11, _DARK_B11 = 300.0, 300.0


def find(look: Look) -> str | None:
    """Which bands look exchanged; see ``Check``."""
    if not may_carry(look.sensor):
        return None
    return _cirrus(look) or _near_infrared(look)


def _cirrus(look: Look) -> str | None:
    level = _levels(look)
    if "B10" not in level:
        return None
    cirrus, vapour, swir = level["B10"], level.get("B09"), level.get("B11")
    if vapour is not None and cirrus > vapour + _ABOVE_B09:
        return f"B10, which sees no ground, has the median {cirrus:,.0f} above that of B09, {vapour:,.0f}."
    if swir is not None and swir < _DARK_B11 and cirrus > swir + _ABOVE_B11:
        return f"B10, which sees no ground, has the median {cirrus:,.0f} above that of B11, {swir:,.0f}."
    return None


def _near_infrared(look: Look) -> str | None:
    names = look.sensor.names
    if not {"B08", "B8A"} <= set(names):
        return None
    wide = names.index("B08")
    if not np.nanstd(look.thinned[wide]) > _TEXTURE:
        return None
    own = look.correlation(wide, names.index("B8A"))
    for name in (one for one in _LIKE_B08 if one in names):
        other = look.correlation(wide, names.index(name))
        if other > _CLOSE and other > own + _MARGIN and _gap(look, name) < _gap(look, "B8A"):
            return f"{name} follows B08 with a correlation of {other:.2f}, B8A with {own:.2f}; B8A should."
    return None


def _gap(look: Look, name: str) -> float:
    """How far the median of a band is from that of B08."""
    level = _levels(look)
    return abs(level[name] - level["B08"])


def _levels(look: Look) -> dict[str, float]:
    """Medians by band, above what the darkest one has where that is the offset."""
    darkest = float(look.low.min())
    lifted = OFFSET if FLOOR <= darkest <= CLEAR_AIR + OFFSET else 0
    return {name: float(middle) - lifted for name, middle in zip(look.sensor.names, look.middle, strict=True)}
