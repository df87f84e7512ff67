"""From a plan to the pixels it needs, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.archive.protocol import Archive, Window
from terrasieve.errors import SampleError
from terrasieve.views.band_policy import Channel
from terrasieve.views.plan import ViewPlan


@dataclass(frozen=True)
class RawView:
    """Pixels of one view of ``n`` samples as read, and how to render them.

    Attributes:
        pixels: float32 ``(n, c, height, width)`` in the units of the product; each sample's window lies at the
            top left, the rest is 0.
        plan: How to render the samples, ``n`` of them.
        channels: Every band that the view may show; ``plan.channels`` holds positions in it.
    """

    pixels: Tensor
    plan: ViewPlan
    channels: tuple[Channel, ...]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.plan)

    def __getitem__(self, samples: slice) -> RawView:
        """The view of some of the samples; shares the pixels."""
        return RawView(self.pixels[samples], self.plan[samples], self.channels)


def read_view(
    archive: Archive, indices: Sequence[int] | NDArray[np.int64], plan: ViewPlan, channels: Sequence[Channel]
) -> RawView:
    """Read the bands and windows of one view; one read per sample and sensor.

    Args:
        archive: The archive that pixels are read from.
        indices: Archive indices ``(n,)`` of the samples that the plan is for, in its order.
        plan: The plan of this view, ``n`` samples.
        channels: Every band that the view may show, which the plan's ``channels`` are positions in.

    Raises:
        SampleError: A sample cannot be read, or is not of the shape that was planned for; the message names its id.
    """
    assert len(indices) == len(plan), "a plan is for as many samples as are read"
    height, width = plan.windows[:, 2:].max(axis=0)
    pixels = np.zeros((*plan.channels.shape, height, width), dtype=np.float32)
    rows = zip(pixels, indices, plan.channels.tolist(), plan.windows.tolist(), plan.shapes.tolist(), strict=True)
    for canvas, index, picks, window, shape in rows:
        # Windows differ in size, so each lies at the top left of a canvas of the largest.
        for sensor, places, bands in _reads([channels[pick] for pick in picks]):
            found = _read_sensor(archive, int(index), sensor, bands, Window(*window), tuple(shape))
            canvas[places, : window[2], : window[3]] = found
    return RawView(torch.from_numpy(pixels), plan, tuple(channels))


def _reads(wanted: Sequence[Channel]) -> list[tuple[str, list[int], list[str]]]:
    """Sensor, channels of the view and their bands, once for each sensor."""
    return [
        (
            sensor,
            [place for place, (key, _) in enumerate(wanted) if key == sensor],
            [band for key, band in wanted if key == sensor],
        )
        for sensor in dict.fromkeys(sensor for sensor, _ in wanted)
    ]


def _read_sensor(
    archive: Archive, index: int, sensor: str, bands: list[str], window: Window, shape: tuple[int, ...]
) -> NDArray[np.generic]:
    found = archive.shape(index, sensor)
    if found != shape:
        raise SampleError(
            f"Sample {archive.ids[index]!s} has {found[0]}x{found[1]} pixels of sensor {sensor}, but its views are "
            f"planned for {shape[0]}x{shape[1]}. Resample all sensors and times of a place onto one grid."
        )
    # Copies that ``fill`` asked for are made after the read, which takes each band once.
    once = list(dict.fromkeys(bands))
    try:
        pixels = archive.read(index, sensor, once, window)
    except SampleError as error:
        raise SampleError(f"Sample {archive.ids[index]!s}, sensor {sensor}: {error}") from error
    return pixels if len(once) == len(bands) else pixels[[once.index(band) for band in bands]]
