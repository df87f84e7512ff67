"""From the pixels of a sensor to something to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.quality.limits import missing
from terrasieve.sensors import Sensor

_TRUE_COLOUR = ("B04", "B03", "B02")
_PERCENTILES = (2.0, 98.0)
_MISSING_GREY = 0.5


def shown_bands(sensor: Sensor) -> tuple[str, ...]:
    """The bands to look at: red, green and blue where the sensor has them, else its first."""
    if len(sensor.sets.get("rgb", ())) == len(_TRUE_COLOUR):
        return sensor.sets["rgb"]
    return _TRUE_COLOUR if set(_TRUE_COLOUR) <= set(sensor.names) else sensor.names[:1]


def pictures(samples: Sequence[NDArray[Any]], sensor: Sensor) -> list[NDArray[np.float64]]:
    """Samples of one sensor as pictures that can be compared with each other.

    A map's classes get the colours of ``tab20``. Of anything else, each band is stretched from the 2nd to the
    98th percentile of its valid pixels in all samples together; what is missing is grey. Reflectance is drawn as
    its square root, which is about how screens and eyes expect brightness, so that fields show beside snow.

    Args:
        samples: Pixels of ``shown_bands``, shape ``(bands, height, width)`` each.
        sensor: Declares the bands, their unit and the nodata value.

    Returns:
        Shape ``(height, width, 3)`` each, 0 to 1.
    """
    if sensor.bands[0].unit == "class":
        palette = np.asarray(matplotlib.colormaps["tab20"](range(20)))[:, :3]
        return [palette[np.nan_to_num(sample[0]).astype(np.int64) % len(palette)] for sample in samples]
    ranges = [_range([sample[band] for sample in samples], sensor.nodata) for band in range(samples[0].shape[0])]
    gamma = 0.5 if sensor.bands[0].unit.startswith("reflectance") else 1.0
    return [_stretch(sample, ranges, sensor.nodata) ** gamma for sample in samples]


def _range(planes: Sequence[NDArray[Any]], nodata: float | None) -> tuple[float, float]:
    valid = np.concatenate([plane[~missing(plane, nodata)].ravel() for plane in planes]).astype(np.float64)
    if not valid.size:
        return (0.0, 1.0)
    low, high = np.percentile(valid, _PERCENTILES)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _stretch(sample: NDArray[Any], ranges: Sequence[tuple[float, float]], nodata: float | None) -> NDArray[np.float64]:
    limits = np.asarray(ranges)[:, :, None, None]
    absent = missing(sample, nodata)
    scaled = (np.where(absent, 0, sample).astype(np.float64) - limits[:, 0]) / (limits[:, 1] - limits[:, 0])
    painted = np.where(absent, _MISSING_GREY, np.clip(scaled, 0, 1))
    return np.broadcast_to(painted, (3, *painted.shape[1:])).transpose(1, 2, 0)
