"""Values that a band cannot have, such as -9999 where no nodata value is declared."""

from __future__ import annotations

import numpy as np

from terrasieve.archive.suspicions.look import Look

_SHARE = 0.01
"""Share of a band from which on stray values are no longer noise."""


def find(look: Look) -> str | None:
    """Which band has more than a hundredth of its values out of its ``valid_range``; see ``Check``."""
    if look.sensor.kind == "map":
        return None
    for band, values in zip(look.sensor.bands, look.thinned, strict=True):
        low, high = band.valid_range
        stray = values[(values < low) | (values > high)]
        if stray.size > _SHARE * values.size:
            common, count = np.unique(stray, return_counts=True)
            return (
                f"{stray.size / values.size:.1%} of {band.name} lies outside {low:g} to {high:g}, "
                f"most often at {common[count.argmax()]:g}."
            )
    return None
