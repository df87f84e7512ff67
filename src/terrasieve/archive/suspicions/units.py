"""Units that the values do not quite contradict: what ``quality.check`` cannot refuse, but a scientist would doubt."""

from __future__ import annotations

import numpy as np

from terrasieve.archive.suspicions.look import Look

_BRIGHT_DB = -2.0
"""Median in decibels above which a scene would outshine a city: C-band sigma0 of cities is about -5 dB."""
_STRONG_LINEAR = 10.0
"""Median of linear power, 10 dB, that no scene reaches; digital numbers of a product are in the hundreds."""
_NEGATIVE = -200.0
"""Median reflectance times 10,000 that no processing leaves; an offset subtracted twice does."""


def find(look: Look) -> str | None:
    """Which band's values look like another unit; see ``Check``."""
    for position, band in enumerate(look.sensor.bands):
        judge = _JUDGES.get(band.unit)
        said = judge(look, position) if judge else None
        if said:
            return f"{band.name} is declared {band.unit}, but {said}."
    return None


def _decibels(look: Look, position: int) -> str | None:
    if look.middle[position] > _BRIGHT_DB:
        return f"its median is {look.middle[position]:.2f}, brighter than a city; standardised or rescaled values are"
    values = look.thinned[position]
    values = values[np.isfinite(values)]
    if values.size > 1 and (values == np.round(values)).all():
        return f"no value of {values.size:,} has a fraction; decibels were cast to integers once"
    return None


def _linear(look: Look, position: int) -> str | None:
    if np.issubdtype(look.pixels.dtype, np.integer):
        return f"its type is {look.pixels.dtype}, which holds a stretched picture or digital numbers, not power"
    if look.middle[position] > _STRONG_LINEAR:
        return f"its median is {look.middle[position]:,.1f}, which uncalibrated digital numbers have"
    return None


def _reflectance(look: Look, position: int) -> str | None:
    if look.pixels.dtype == np.uint8:
        return "its type is uint8, a picture stretched to 8 bits"
    if look.middle[position] > 2:
        return f"its median is {look.middle[position]:.2f}; reflectance in per cent is as large"
    return None


def _reflectance_e4(look: Look, position: int) -> str | None:
    if look.pixels.dtype == np.uint8:
        return "its type is uint8, a picture stretched to 8 bits"
    if np.issubdtype(look.pixels.dtype, np.floating) and np.nanmax(look.high) <= 100:
        return f"no band exceeds {np.nanmax(look.high):.2f}: reflectance in per cent, divided or standardised"
    if look.middle[position] < _NEGATIVE:
        return f"its median is {look.middle[position]:,.0f}; an offset of 1,000 was subtracted once too often"
    return None


_JUDGES = {"db": _decibels, "linear": _linear, "reflectance": _reflectance, "reflectance_e4": _reflectance_e4}
