"""Pixels that are missing within what ``QualityLimits`` allows, and bands that hold one value."""

from __future__ import annotations

import numpy as np

from terrasieve.archive.suspicions.look import Look

_NODATA_SHARE = 0.01
"""A lesser share of the nodata value can be dark ground: 0 is nodata to Sentinel-2, and deep water comes near it."""


def find_missing(look: Look) -> str | None:
    """NaN or infinities anywhere, or a hundredth of nodata in a band; see ``Check``."""
    if not look.absent.any():
        return None
    shares = look.absent.reshape(len(look.absent), -1).mean(axis=1)
    worst = int(shares.argmax())
    broken = np.issubdtype(look.pixels.dtype, np.floating) and not np.isfinite(look.pixels).all()
    if not broken and shares[worst] < _NODATA_SHARE:
        return None
    return f"{shares[worst]:.2%} of {look.sensor.names[worst]} is {'NaN or infinite' if broken else 'nodata'}."


def find_constant(look: Look) -> str | None:
    """A band that holds one value only; see ``Check``. A map may, and so may a band of few coarse pixels."""
    if look.sensor.kind == "map" or look.pixels[0].size < 2:
        return None
    finest = min(band.gsd for band in look.sensor.bands)
    for band, pixels, absent in zip(look.sensor.bands, look.pixels, look.absent, strict=True):
        coarse = pixels.size * (finest / band.gsd) ** 2 < 16
        values = pixels[~absent] if absent.any() else pixels
        if not coarse and values.size and values.min() == values.max():
            return f"every pixel of {band.name} is {values.flat[0]:g}."
    return None
