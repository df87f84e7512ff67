"""Resized crop, flip and Gaussian blur as matrices, a batch at a time.

Each of these is linear and acts on rows and columns apart, so that for one sample it is a matrix along y and one
along x, and for a batch two batched matrix products, whatever the number of channels and wherever they run:
``view = (B_y W_y) X (B_x W_x)^T``.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

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
    spread = sigmas.float().clamp(min=1e-6)[:, None]
    taps = torch.exp(-0.5 * (offsets / spread) ** 2)
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
    reached = torch.where(reached < size, reached, 2 * (size - 1) - reached)
    return functional.one_hot(reached, size).float().flatten(1).to(device)
