"""The pixels of one sensor of one sample, and the few numbers that every check reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.quality.limits import missing
from terrasieve.sensors import Sensor

_ENOUGH = 4096
"""Pixels of a band that levels are taken from: the 1st percentile then rests on some forty of them."""


@dataclass(frozen=True)
class PixelSummary:
    """What is looked at.

    Attributes:
        pixels: Shape ``(bands, height, width)``, all bands of the sensor in its order.
        sensor: What they are said to be.
    """

    pixels: NDArray[Any]
    sensor: Sensor

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """Where nothing was measured, shape of the pixels."""
        return missing(self.pixels, self.sensor.nodata)

    @cached_property
    def thinned(self) -> NDArray[np.float32]:
        """Every n-th row and column, NaN where nothing was measured, shape ``(bands, pixels)``."""
        step = max(1, int(np.sqrt(self.pixels[0].size / _ENOUGH)))
        part = (slice(None), slice(None, None, step), slice(None, None, step))
        values = self.pixels[part].astype(np.float32)
        values[self.absent[part]] = np.nan
        return values.reshape(len(values), -1)

    @cached_property
    def levels(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Percentiles 1, 50 and 99 of each band, shape ``(bands,)`` each; NaN where no pixel is left."""
        ordered = np.sort(self.thinned, axis=1)  # NaN comes last
        last = np.isfinite(ordered).sum(axis=1) - 1
        ranks = np.rint(np.outer((0.01, 0.5, 0.99), np.maximum(last, 0))).astype(np.intp)
        low, middle, high = np.take_along_axis(ordered, ranks.T, axis=1).T.astype(np.float64)
        return low, middle, high

    @property
    def low(self) -> NDArray[np.float64]:
        """The 1st percentile of each band."""
        return self.levels[0]

    @property
    def middle(self) -> NDArray[np.float64]:
        """The median of each band."""
        return self.levels[1]

    @property
    def high(self) -> NDArray[np.float64]:
        """The 99th percentile of each band."""
        return self.levels[2]

    def correlation(self, one: int, other: int) -> float:
        """Pearson's correlation of two bands over the pixels that both have; 0 where one does not vary."""
        pair = self.thinned[[one, other]]
        pair = pair[:, np.isfinite(pair).all(axis=0)]
        if pair.shape[1] < 3 or not pair.std(axis=1).all():
            return 0.0
        return float(np.asarray(np.corrcoef(pair))[0, 1])


Check = Callable[[PixelSummary], str | None]
"""What a check saw in one sensor's pixels, in numbers; None where there is nothing to suspect."""
