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
from torch import Tensor
from torch.nn import functional

from terrasieve.errors import BandError, nearest
from terrasieve.sensors import BandStatistics, Sensor
from terrasieve.views.arrange import AXIS_ROWS, ITEM_ROWS
from terrasieve.views.band_policy import Channel
from terrasieve.views.stored import StoredBatch, StoredPart, ViewGroup


@torch.no_grad()
def render(batch: StoredBatch, normaliser: Normaliser, part: int = 0) -> list[Tensor]:
    """Render all views of a micro-batch, those of one size together.

    In this order: normalise, crop and resize, flip, quarter turn, blur, free rotation, grey, erase. Bicubic
    weights may overshoot the range of the input, as they do in torch on floating-point images; the result is not
    clipped. Missing pixels enter as 0, the mean of their band. The device that the batch is on renders; nothing crosses
    to it and nothing is read back. Autocast has no effect.

    Args:
        batch: Samples and their plans, from :class:`terrasieve.views.read.BatchReader`.
        normaliser: Turns the units of the product into standardised ones.
        part: The number of the micro-batch, from 0.

    Returns:
        For each view, in the order of the recipe, float32 ``(n, c, size, size)``, contiguous.

    Raises:
        BandError: The normaliser has no statistics of a band.
    """
    layout, device = batch.parts[part], batch.data.device
    views: dict[int, Tensor] = {}
    with torch.autocast(device.type, enabled=False):
        table = batch.table(layout)
        planes = _standard_planes(batch, layout, normaliser)
        for group in layout.groups:
            parameters = _Parameters.of(group, layout.samples, table)
            view = _resample(planes, group, parameters)
            view = _rotate(view, group, parameters)
            if group.grey:
                grey = (parameters.grey > 0)[:, None, None, None]
                view = torch.where(grey, view.mean(dim=1, keepdim=True), view)
            view = _erase(view, group, parameters)
            if group.stacked > 1:
                view = view.view(layout.samples, group.stacked, *view.shape[1:]).transpose(0, 1).flatten(0, 1)
            views |= zip(group.views, torch.split(view.contiguous(), layout.samples), strict=True)
    return [views[i] for i in range(len(views))]


def _standard_planes(batch: StoredBatch, layout: StoredPart, normaliser: Normaliser) -> Tensor:
    """All planes of a micro-batch, standardised, ``(planes, height, width)``."""
    stored = [batch.planes(layout, section) for section in layout.sections]
    counts = [len(section) for section in stored]
    planes = torch.empty((sum(counts), *layout.canvas), device=batch.data.device)
    for place, section in zip(torch.split(planes, counts), stored, strict=True):
        place.copy_(section)
    bands = batch.table(layout)[: len(planes)].view(torch.int32)
    parameters = normaliser.parameters(layout.names, planes.device).index_select(0, bands)[:, :, None, None]
    # Whether a pixel can be missing at all is known without looking at any.
    whole = not any(section.dtype.is_floating_point for section in layout.sections)
    if whole and not normaliser.has_nodata(layout.names):
        return scale_(planes, parameters)
    return standardise_(planes, parameters)


@dataclass(frozen=True)
class _Parameters:
    """What the device needs to know of the items of a group, which :func:`terrasieve.views.arrange.arrange` laid down.

    Attributes:
        origins: ``(2 * items,)`` first row of the crops, then first column, in pixels of the canvas.
        lengths: ``(2 * items,)`` height and width of the crops in pixels.
        reverse: ``(2 * items,)`` 1 where rows, and columns, come out in reverse, else 0.
        middles: ``(2 * items,)`` middle of what is erased, in pixels of the view.
        halves: ``(2 * items,)`` half the height and width of it.
        transposed: ``(items,)`` 1 where rows and columns change places.
        sigmas: ``(items,)`` standard deviation of the blur in pixels.
        angles: ``(items,)`` free rotation in radians.
        grey: ``(items,)`` 1 where all channels show their mean.
        sources: First row of each channel of the items among those of all planes, where they are looked up; int32.
        blurred: Items that are blurred; int32.
        rotated: Items that are rotated freely; int32.
    """

    origins: Tensor
    lengths: Tensor
    reverse: Tensor
    middles: Tensor
    halves: Tensor
    transposed: Tensor
    sigmas: Tensor
    angles: Tensor
    grey: Tensor
    sources: Tensor
    blurred: Tensor
    rotated: Tensor

    @classmethod
    def of(cls, group: ViewGroup, samples: int, table: Tensor) -> _Parameters:
        """Views of the table; nothing is copied."""
        items = samples * len(group.views)
        looked_up = 0 if group.first is not None else items // group.stacked * group.channels
        sizes = [*[2 * items] * AXIS_ROWS, *[items] * ITEM_ROWS, looked_up, group.blurred, group.rotated]
        own = table[group.start : group.start + sum(sizes)]
        *numbers, sources, blurred, rotated = torch.split(own, sizes)
        return cls(*numbers, *(positions.view(torch.int32) for positions in (sources, blurred, rotated)))


def _resample(planes: Tensor, group: ViewGroup, parameters: _Parameters) -> Tensor:
    """Crop, resize, flip, quarter turn and blur: ``(items, channels, size, size)`` of ``(planes, height, width)``."""
    height, width = group.rows, planes.shape[2]
    canvas, size, channels, stacked = max(height, width), group.size, group.channels, group.stacked
    items = len(parameters.grey)
    # One call makes the weights of both axes, on a canvas as long as the longer of them.
    weights = resize_weights(
        parameters.origins, parameters.lengths, parameters.reverse, group.longest, size, canvas
    ).view(2, items, size, canvas)
    _blur(weights, group, parameters)
    # Both axes were made on one canvas; each takes its own length of it.
    down, across = weights[0, :, :, :height], weights[1, :, :, :width]
    if group.first is None:
        rows = parameters.sources[:, None] + _numbers(height, planes.device)
        planes = planes.view(-1, width).index_select(0, rows.flatten())
    elif (count := items // stacked * channels) < len(planes):
        planes = planes[group.first : group.first + count]
    planes = planes.view(-1, channels, height, width)
    # Items that show the same planes are one product, as many times as high.
    view = down.reshape(-1, 1, stacked * size, height) @ planes
    if stacked > 1:
        view = view.view(-1, channels, stacked, size, width).transpose(1, 2)
    view = torch.bmm(view.reshape(items, channels * size, width), across.mT).view(items, channels, size, size)
    # Decided by the host, which knows the plan: asking the device would wait for it.
    if group.turned:
        view = torch.where((parameters.transposed == 0)[:, None, None, None], view, view.mT)
    return view


def _blur(weights: Tensor, group: ViewGroup, parameters: _Parameters) -> None:
    """Let the blur follow the resampling, in place, for the items that have one."""
    if group.blurred:
        chosen = parameters.blurred
        blur = blur_weights(parameters.sigmas.index_select(0, chosen), group.kernel, group.size)
        weights.index_copy_(1, chosen.long(), blur @ weights.index_select(1, chosen))


def _rotate(view: Tensor, group: ViewGroup, parameters: _Parameters) -> Tensor:
    """Rotate about the centre by bicubic interpolation; what lies outside is reflected in."""
    if group.rotated:
        chosen = parameters.rotated
        angles = parameters.angles.index_select(0, chosen)
        cosine, sine = angles.cos(), angles.sin()
        zero = torch.zeros_like(sine)
        # From a place in the result to its source, x to the right and y down.
        affine = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
        picked = view.index_select(0, chosen)
        grid = functional.affine_grid(affine, list(picked.shape), align_corners=False)
        turned = functional.grid_sample(picked, grid, "bicubic", "reflection", align_corners=False)
        view = view.index_copy(0, chosen.long(), turned)
    return view


def _erase(view: Tensor, group: ViewGroup, parameters: _Parameters) -> Tensor:
    if not group.erased:
        return view
    away = (_centres(group.size, view.device) - parameters.middles[:, None]).abs_()
    # Nothing is less than 0 away: where nothing is erased, half its length is 0. In place, truth is 1 and not a bool,
    # and what is erased is taken from itself: a processor does that several times as fast as it fills by a mask.
    rows, columns = away.lt_(parameters.halves[:, None]).chunk(2)
    return view.addcmul_(view, (rows[:, :, None] * columns[:, None, :])[:, None], value=-1)


# ------------------------------------------------------- resampling as matrices


def resize_weights(origins: Tensor, lengths: Tensor, reverse: Tensor, longest: int, size: int, canvas: int) -> Tensor:
    """Antialiased bicubic resampling of a part of an axis, as Pillow and torch do it.

    The kernel is widened by the scale where the axis shrinks, cut at the ends of the crop and scaled to sum 1.

    Args:
        origins: ``(n,)`` first pixel of the axis that is resampled; float32, as all of these.
        lengths: ``(n,)`` pixels of the axis that are resampled.
        reverse: ``(n,)`` 1 where the result comes out in reverse, else 0.
        longest: The largest of ``lengths``, known without asking the device.
        size: Pixels of the axis after resampling.
        canvas: Pixels of the axis; those that are not resampled get weight 0.

    Returns:
        ``(n, size, canvas)`` float32; each row sums to 1.
    """
    origins, lengths, reverse = origins[:, None], lengths[:, None], reverse[:, None]
    scale = lengths / size
    stretch = scale.clamp(min=1.0)
    centres = torch.addcmul(_centres(size, lengths.device), reverse, _reversal(size, lengths.device)).mul_(scale)
    # Only the taps within reach of the kernel are computed; they are put in their places last.
    taps = min(math.ceil(4 * max(longest / size, 1.0)), canvas)
    numbers = _centres(taps, lengths.device)
    first = torch.sub(centres, stretch, alpha=2).round_().add_(origins).clamp_(0, canvas - taps)
    from_origin = first - origins
    weights = ((from_origin - centres)[..., None] + numbers).div_(stretch[..., None])
    weights = _cubic(weights)
    # A tap is in the crop where its middle is less than half the length from the middle of the crop.
    away = torch.sub(from_origin, lengths, alpha=0.5)[..., None].add(numbers).abs_()
    weights = weights.mul_(away.lt_(lengths[..., None] / 2))
    weights = weights.div_(weights.sum(dim=-1, keepdim=True))
    positions = first.long()[..., None] + _numbers(taps, lengths.device)
    matrix = torch.zeros((len(lengths), size, canvas), device=lengths.device)
    return matrix.scatter_(-1, positions, weights)


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
    """Cubic convolution kernel (Keys 1981, equation 4, with -0.5), which changes ``x``; zero from a distance of 2.

    Its two pieces are ``t**2 (t - 1) / 2`` with ``t = 2 - |x|``, and within a distance of 1 ``u**2 (1 - 2u)`` more,
    with ``u = 1 - |x|``.
    """
    t = (2 - x.abs_()).clamp_(min=0)
    rest = t - 1
    u = rest.clamp(min=0)
    far = (t * t).mul_(rest)
    near = (u * u).mul_(torch.rsub(u, 1, alpha=2))
    return near.add_(far, alpha=0.5)


@functools.lru_cache(maxsize=64)
def _numbers(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)


@functools.lru_cache(maxsize=64)
def _centres(count: int, device: torch.device) -> Tensor:
    """Middles of so many pixels of an axis."""
    return _numbers(count, device) + 0.5


@functools.lru_cache(maxsize=64)
def _reversal(count: int, device: torch.device) -> Tensor:
    """What the middle of each of so many pixels moves by where the axis is reversed."""
    return _centres(count, device).flip(0) - _centres(count, device)


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
        self._tables: dict[tuple[tuple[Channel, ...], torch.device], Tensor] = {}

    def __call__(self, pixels: Tensor, channels: Sequence[Channel]) -> Tensor:
        """Standardised pixels.

        Args:
            pixels: ``(n, c, height, width)`` in the units of the product; left as it is.
            channels: Sensor key and band name of each channel.

        Returns:
            float32 ``(n, c, height, width)`` on the device of ``pixels``.

        Raises:
            BandError: There are no statistics of a band, or it is not a band of the sensor.
        """
        parameters = self.parameters(tuple(channels), pixels.device)
        return standardise_(pixels.to(torch.float32, copy=True), parameters[:, :, None, None])

    def parameters(self, channels: tuple[Channel, ...], device: torch.device) -> Tensor:
        """What :func:`standardise_` needs of some bands, float32 ``(c, 5)``; kept on the device from the first call on.

        Args:
            channels: Sensor key and band name of each.
            device: Where they are wanted.

        Raises:
            BandError: There are no statistics of a band, or it is not a band of the sensor.
        """
        if (channels, device) not in self._tables:
            rows = np.array([self._row(*channel) for channel in channels], dtype=np.float32)
            self._tables[channels, device] = torch.from_numpy(rows).to(device)
        return self._tables[channels, device]

    def has_nodata(self, channels: Sequence[Channel]) -> bool:
        """Whether a sensor of some bands marks missing pixels by a value of its own.

        Args:
            channels: Sensor key and band name of each.
        """
        return any(self.sensors[key].nodata is not None for key in {key for key, _ in channels})

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


def standardise_(pixels: Tensor, parameters: Tensor) -> Tensor:
    """``(clip(x, low, high) - mean) * gain``, and 0 where nothing was measured, in place.

    Args:
        pixels: float32 in the units of the product, ``(..., height, width)``.
        parameters: Mean, gain, lowest and highest valid value and nodata, ``(..., 5, 1, 1)``.

    Returns:
        The pixels.
    """
    # NaN fails both comparisons. No copy of the pixels is made: new memory takes longer than the arithmetic.
    measured = (pixels > -torch.inf).logical_and_(pixels < torch.inf)
    measured.logical_and_(pixels != parameters.select(-3, -1))
    return scale_(pixels, parameters).masked_fill_(measured.logical_not_(), 0.0)


def scale_(pixels: Tensor, parameters: Tensor) -> Tensor:
    """``(clip(x, low, high) - mean) * gain`` in place, of pixels that were all measured; as :func:`standardise_`."""
    mean, gain, low, high, _ = parameters.unbind(-3)
    # One limit after the other: a clamp by both is not vectorised where they are tensors.
    return pixels.clamp_min_(low).clamp_max_(high).sub_(mean).mul_(gain)
