"""From raw pixels to what a method sees, for a whole batch on the device.

Resized crop, flip and Gaussian blur are linear and act on rows and columns apart. For one sample each is a matrix along
y and one along x, and for a batch two batched matrix products, whatever the number of channels and wherever they run:
``view = (B_y W_y) X (B_x W_x)^T``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from terrasieve.errors import BandError, nearest
from terrasieve.sensors import BandStatistics, Sensor
from terrasieve.views.band_policy import Channel
from terrasieve.views.dihedral import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE, dihedral_codes
from terrasieve.views.plan import ViewPlan
from terrasieve.views.read import RawView


@torch.no_grad()
def render(raw: RawView, normaliser: Normaliser, device: torch.device | str = "cpu") -> Tensor:
    """Render one view of a batch.

    In this order: normalise, crop and resize, flip, quarter turn, blur, free rotation, grey, erase. Bicubic
    weights may overshoot the range of the input, as they do in torch on floating-point images; the result is not
    clipped. Missing pixels enter as 0, the mean of their band. Pixels and parameters go to the device, and nothing
    is read back from it. Autocast has no effect.

    Args:
        raw: Pixels of ``n`` samples and their plan, from :func:`terrasieve.views.read.read_view`.
        normaliser: Turns the units of the product into standardised ones.
        device: The device that renders, and that the view is on.

    Returns:
        float32 ``(n, c, size, size)``, contiguous.

    Raises:
        BandError: The normaliser has no statistics of a band.
    """
    device, plan = torch.device(device), raw.plan
    parameters = _Parameters.of(plan, device)
    with torch.autocast(device.type, enabled=False):
        pixels = normaliser(raw.pixels.to(device), raw.channels, plan.channels)
        view = _resample(pixels, plan, parameters)
        view = _rotate(view, plan, parameters)
        if plan.grey.any():
            view = torch.where(parameters.grey[:, None, None, None], view.mean(dim=1, keepdim=True), view)
        return _erase(view, plan, parameters).contiguous()


@dataclass(frozen=True)
class _Parameters:
    """What the device needs to know of a plan; the last axis is the sample.

    Attributes:
        lengths: ``(2, n)`` height and width of the crops in pixels.
        reversed: ``(2, n)`` whether rows, and columns, come out in reverse.
        transposed: ``(n,)`` whether rows and columns then change places.
        sigmas: ``(n,)`` standard deviation of the blur in pixels.
        angles: ``(n,)`` free rotation in radians.
        grey: ``(n,)`` whether all channels show their mean.
        boxes: ``(4, n)`` top, left, height and width of what is erased.
    """

    lengths: Tensor
    reversed: Tensor
    transposed: Tensor
    sigmas: Tensor
    angles: Tensor
    grey: Tensor
    boxes: Tensor

    @classmethod
    def of(cls, plan: ViewPlan, device: torch.device) -> _Parameters:
        """Move a plan to the device in one transfer."""
        ways = dihedral_codes(plan.flips, plan.turns)
        rows = (
            *plan.windows[:, 2:].T,
            ways & FLIP_ROWS,
            ways & FLIP_COLUMNS,
            ways & TRANSPOSE,
            plan.sigmas,
            np.radians(plan.angles),
            plan.grey,
            *plan.boxes.T,
        )
        table = torch.from_numpy(np.stack(rows).astype(np.float32)).to(device)
        return cls(table[:2], table[2:4] > 0, table[4] > 0, table[5], table[6], table[7] > 0, table[8:])


def _resample(pixels: Tensor, plan: ViewPlan, parameters: _Parameters) -> Tensor:
    samples, channels, height, width = pixels.shape
    # One call makes the weights of both axes, on a canvas as long as the longer of them.
    longest, canvas = int(plan.windows[:, 2:].max()), max(height, width)
    lengths, reverse = parameters.lengths.flatten(), parameters.reversed.flatten()
    weights = resize_weights(lengths, reverse, longest, plan.size, canvas).view(2, samples, plan.size, canvas)
    _blur(weights, plan, parameters)
    # Both axes were made on one canvas; each takes its own length of it.
    down, across = weights[0, :, :, :height], weights[1, :, :, :width]
    view = torch.bmm(pixels.reshape(samples, channels * height, width), across.mT)
    view = down[:, None] @ view.view(samples, channels, height, plan.size)
    # Decided on the host, which knows the plan: asking the device would wait for it.
    if (plan.turns % 2).any():
        view = torch.where(parameters.transposed[:, None, None, None], view.mT, view)
    return view


def _blur(weights: Tensor, plan: ViewPlan, parameters: _Parameters) -> None:
    """Let the blur follow the resampling, in place, for the samples that have one."""
    chosen = _where(plan.sigmas > 0, weights.device)
    if len(chosen):
        blur = blur_weights(parameters.sigmas[chosen], plan.kernel, plan.size)
        weights[:, chosen] = blur @ weights[:, chosen]


def _rotate(view: Tensor, plan: ViewPlan, parameters: _Parameters) -> Tensor:
    """Rotate about the centre by bicubic interpolation; what lies outside is reflected in."""
    chosen = _where(plan.angles != 0, view.device)
    if len(chosen):
        cosine, sine = parameters.angles[chosen].cos(), parameters.angles[chosen].sin()
        zero = torch.zeros_like(sine)
        # From a place in the result to its source, x to the right and y down.
        affine = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
        picked = view[chosen]
        grid = functional.affine_grid(affine, list(picked.shape), align_corners=False)
        view[chosen] = functional.grid_sample(picked, grid, "bicubic", "reflection", align_corners=False)
    return view


def _erase(view: Tensor, plan: ViewPlan, parameters: _Parameters) -> Tensor:
    if not plan.boxes.any():
        return view
    places = torch.arange(plan.size, device=view.device)
    top, left, height, width = parameters.boxes[..., None]
    rows = (places >= top) & (places < top + height)
    columns = (places >= left) & (places < left + width)
    return view.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


def _where(chosen: NDArray[np.bool_], device: torch.device) -> Tensor:
    """Positions that are true, found on the host so that the device is not waited for."""
    return torch.from_numpy(np.flatnonzero(chosen)).to(device)


# ------------------------------------------------------- resampling as matrices

_CUBIC = -0.5
"""Free parameter of the cubic convolution kernel (Keys 1981); Pillow and torch take this one when antialiasing."""


def resize_weights(lengths: Tensor, reversed_: Tensor, longest: int, size: int, canvas: int) -> Tensor:
    """Antialiased bicubic resampling of the first ``length`` pixels of an axis, as Pillow and torch do it.

    The kernel is widened by the scale where the axis shrinks, cut at the ends of the crop and scaled to sum 1.

    Args:
        lengths: ``(n,)`` pixels of the axis that are resampled.
        reversed_: ``(n,)`` whether the result comes out in reverse.
        longest: The largest of ``lengths``, known without asking the device.
        size: Pixels of the axis after resampling.
        canvas: Pixels of the axis; those beyond ``length`` get weight 0.

    Returns:
        ``(n, size, canvas)`` float32; each row sums to 1.
    """
    scale = lengths.float()[:, None] / size
    stretch = scale.clamp(min=1.0)
    places = torch.arange(size, device=lengths.device)
    places = torch.where(reversed_[:, None], size - 1 - places, places)
    centres = scale * (places + 0.5)
    # Only the taps within reach of the kernel are computed; they are put in their places last.
    taps = min(math.ceil(4 * max(longest / size, 1.0)), canvas)
    first = (centres - 2 * stretch + 0.5).floor().clamp(min=0).clamp(max=canvas - taps)
    positions = first[..., None] + torch.arange(taps, device=lengths.device)
    weights = _cubic((positions + 0.5 - centres[..., None]) / stretch[..., None])
    weights = weights * (positions < lengths[:, None, None])
    weights = weights / weights.sum(dim=-1, keepdim=True)
    matrix = torch.zeros((len(lengths), size, canvas), device=lengths.device)
    return matrix.scatter_(-1, positions.long(), weights)


def blur_weights(sigmas: Tensor, kernel: int, size: int) -> Tensor:
    """Gaussian blur of an axis, its ends continued by reflection.

    Args:
        sigmas: ``(n,)`` standard deviations in pixels; 0 leaves the axis as it is.
        kernel: Width of the Gaussian in pixels; odd, and less than ``2 * size``.
        size: Pixels of the axis that is blurred.

    Returns:
        ``(n, size, size)`` float32; each row sums to 1.
    """
    offsets = torch.arange(-(kernel // 2), kernel // 2 + 1, device=sigmas.device)
    # At 0 only the middle tap is left, without a division by 0.
    sigma = sigmas.float().clamp(min=1e-6)[:, None]
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    taps = taps / taps.sum(dim=-1, keepdim=True)
    return (taps @ _reflection(kernel, size, sigmas.device)).view(-1, size, size)


def _cubic(x: Tensor) -> Tensor:
    """Cubic convolution kernel (Keys 1981, equation 4); zero from a distance of 2."""
    x = x.abs()
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC
    return torch.where(x < 1, near, far) * (x < 2)


@functools.lru_cache(maxsize=16)
def _reflection(kernel: int, size: int, device: torch.device) -> Tensor:
    """``(kernel, size * size)``: 1 where a tap of the kernel, centred on a row, falls on a column."""
    radius = kernel // 2
    reached = (torch.arange(size)[None, :] + torch.arange(-radius, radius + 1)[:, None]).abs()
    # Mirrored at the first and the last pixel, which are not repeated.
    reached = torch.where(reached < size, reached, 2 * (size - 1) - reached)
    return functional.one_hot(reached, size).float().flatten(1).to(device)


# --------------------------------------------------------------- normalisation


class Normaliser:
    """Brings bands from product units to mean 0 and variance 1: ``(clip(x, valid_range) - mean) / std``.

    NaN, infinity and the sensor's nodata value become 0, that is the mean of the band. A band that does not vary
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
