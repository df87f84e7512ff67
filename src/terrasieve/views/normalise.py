"""From product units to zero mean and unit variance per band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.errors import BandError, nearest
from terrasieve.sensors import BandStatistics, Sensor
from terrasieve.views.recipe import Channel


class Normaliser:
    """Standardises bands by measured statistics: ``(clip(x, valid_range) - mean) / std``.

    NaN, infinity and the sensor's nodata value become 0, that is the mean of the band. A band without spread
    (``std`` 0) is centred only.

    Args:
        sensors: Sensors by their key in the archive, for valid ranges and nodata values.
        statistics: Mean and standard deviation in units of the product, by sensor key; one entry a band, found by its
            name, so that their order does not matter.

    Attributes:
        sensors: The sensors, by key.
        statistics: The statistics, by key.
    """

    def __init__(self, sensors: Mapping[str, Sensor], statistics: Mapping[str, tuple[BandStatistics, ...]]) -> None:
        self.sensors = sensors
        self.statistics = statistics
        self._tables: dict[tuple[Channel, ...], NDArray[np.float32]] = {}

    def __call__(self, pixels: Tensor, channels: Sequence[Channel], drawn: NDArray[np.int64] | None = None) -> Tensor:
        """Standardised pixels.

        Args:
            pixels: ``(n, c, height, width)`` in the units of the product; left as it is.
            channels: Sensor key and band name; of channel ``i`` of every sample, unless ``drawn`` says otherwise.
            drawn: ``(n, c)`` positions in ``channels``, where samples show different bands.

        Returns:
            float32 ``(n, c, height, width)`` on the device of ``pixels``.

        Raises:
            BandError: There are no statistics of a band, or it is not a band of the sensor.
        """
        wanted = tuple(channels)
        if wanted not in self._tables:
            self._tables[wanted] = np.array([self._row(*channel) for channel in wanted], dtype=np.float32)
        positions = np.arange(len(channels))[None] if drawn is None else drawn
        parameters = torch.from_numpy(self._tables[wanted][positions]).to(pixels.device)
        mean, gain, low, high, nodata = parameters[..., None, None].unbind(2)
        pixels = pixels.float()
        # NaN and infinity both fail the comparison.
        measured = (pixels.abs() < torch.inf).logical_and_(pixels != nodata)
        return torch.where(measured, pixels.clamp(low, high).sub_(mean).mul_(gain), 0.0)

    def _row(self, key: str, name: str) -> tuple[float, float, float, float, float]:
        """Of one channel: mean, one over standard deviation, lowest and highest valid value, nodata."""
        if key not in self.sensors:
            raise BandError(f"There is no sensor {key!r} to normalise.{nearest(key, self.sensors)}")
        sensor = self.sensors[key]
        low, high = sensor.bands[sensor.indices([name])[0]].valid_range
        found = next((entry for entry in self.statistics.get(key, ()) if entry.band == name), None)
        if found is None:
            raise BandError(
                f"There are no statistics of band {name!r} of sensor {key!r}, so it cannot be normalised. Measure "
                "them on the training samples (terrasieve.archive.statistics.measure), or pack the archive."
            )
        nodata = np.nan if sensor.nodata is None else sensor.nodata
        return found.mean, 1 / (found.std or 1.0), low, high, nodata
