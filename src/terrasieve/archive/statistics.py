"""Mean, standard deviation and extremes of every band, in one pass over the pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrasieve.archive.protocol import Archive, sensor_error, source_place
from terrasieve.archive.quality.limits import missing
from terrasieve.console import track
from terrasieve.sensors import BandStatistics


class StreamingStatistics:
    """Count, mean, variance and extremes per band, merged sample by sample in float64.

    Partial sums are merged by equation 1.5 of Chan, Golub and LeVeque 1979, "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances", which loses no digits where the mean is large against the deviations.
    NaN, infinities and the nodata value are left out.

    Args:
        bands: Number of bands that every sample has.
        nodata: Pixel value that means "nothing measured here", or None.
    """

    def __init__(self, bands: int, nodata: float | None = None) -> None:
        self.nodata = nodata
        self._count = np.zeros(bands, dtype=np.int64)
        self._mean = np.zeros(bands)
        self._squares = np.zeros(bands)
        self._minimum = np.full(bands, np.inf)
        self._maximum = np.full(bands, -np.inf)

    def update(self, pixels: NDArray[Any]) -> None:
        """Take in the pixels of one sample, shape ``(bands, height, width)``."""
        valid = ~missing(pixels, self.nodata).reshape(len(pixels), -1)
        values = pixels.reshape(len(pixels), -1).astype(np.float64)
        count = valid.sum(axis=1)
        mean = values.sum(axis=1, where=valid) / np.maximum(count, 1)
        # Two passes over one sample, whose pixels are in the cache: squares less the squared mean would lose digits.
        deviations = np.subtract(values, mean[:, None], where=valid, out=np.zeros_like(values))
        self._take(count, mean, np.einsum("bp,bp->b", deviations, deviations))
        self._minimum = np.minimum(self._minimum, values.min(axis=1, where=valid, initial=np.inf))
        self._maximum = np.maximum(self._maximum, values.max(axis=1, where=valid, initial=-np.inf))

    def merge(self, other: StreamingStatistics) -> None:
        """Take in what was measured of other samples.

        Sums of rounded numbers depend on their order to the last bit: the same samples in the same groups, merged in
        the same order, give the same, wherever each group was measured.
        """
        self._take(other._count, other._mean, other._squares)
        self._minimum = np.minimum(self._minimum, other._minimum)
        self._maximum = np.maximum(self._maximum, other._maximum)

    def result(self, names: Sequence[str]) -> tuple[BandStatistics, ...]:
        """What was measured so far; ``std`` is that of the population, a band without a pixel has zeros.

        Args:
            names: Names of the bands, in pixel order.
        """
        seen = self._count > 0
        std = np.sqrt(self._squares / np.maximum(self._count, 1))
        columns = (self._mean, std, np.where(seen, self._minimum, 0), np.where(seen, self._maximum, 0))
        rows = zip(names, self._count.tolist(), *(column.tolist() for column in columns), strict=True)
        return tuple(
            BandStatistics(band=band, count=count, mean=mean, std=deviation, minimum=low, maximum=high)
            for band, count, mean, deviation, low, high in rows
        )

    def state(self) -> dict[str, list[float]]:
        """The sums as plain numbers, which JSON keeps to the last bit."""
        return {name: getattr(self, f"_{name}").tolist() for name in _SUMS}

    @classmethod
    def from_state(cls, state: Mapping[str, Sequence[float]], nodata: float | None = None) -> Self:
        """Go on from what ``state`` gave."""
        restored = cls(len(state["count"]), nodata)
        for name in _SUMS:
            getattr(restored, f"_{name}")[:] = state[name]
        return restored

    def _take(self, count: NDArray[np.int64], mean: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        total = self._count + count
        share = count / np.maximum(total, 1)
        delta = mean - self._mean
        self._squares += squares + delta**2 * self._count * share
        # A band without a valid pixel in this sample has a mean of 0 here, which says nothing.
        self._mean += np.where(count > 0, delta * share, 0)
        self._count = total


_SUMS = ("count", "mean", "squares", "minimum", "maximum")


def measure(
    archive: Archive,
    sensors: Iterable[str] | None = None,
    indices: ArrayLike | None = None,
    description: str = "Measuring statistics",
) -> Mapping[str, tuple[BandStatistics, ...]]:
    """Statistics of every band, in one pass over the samples.

    Args:
        archive: Archive whose samples are read whole, one after the other.
        sensors: Keys of the archive's sensors; all when None.
        indices: Samples to measure, shape ``(n,)``; all when None.
        description: Text beside the progress bar.

    Returns:
        For each sensor one entry a band, in the sensor's order.

    Raises:
        BandError: The archive has no such sensor.
        SampleError: A sample cannot be read.
    """
    keys = list(archive.sensors if sensors is None else sensors)
    for key in keys:
        if key not in archive.sensors:
            raise sensor_error(source_place(archive.source), key, archive.sensors)
    sensors = {key: archive.sensors[key] for key in keys}
    sums = {key: StreamingStatistics(len(sensor.bands), sensor.nodata) for key, sensor in sensors.items()}
    chosen = range(len(archive)) if indices is None else np.asarray(indices).tolist()
    for index in track(chosen, description, total=len(chosen)):
        for key in keys:
            sums[key].update(archive.read(index, key))
    return {key: sums[key].result(archive.sensors[key].names) for key in keys}


def statistics_of(archive: Archive) -> Mapping[str, tuple[BandStatistics, ...]]:
    """The statistics that a packed store brings along, else those of all samples as ``measure`` finds them."""
    return measure(archive) if archive.statistics is None else archive.statistics
