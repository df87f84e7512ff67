"""From raw pixels to what a method sees, for a whole batch on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from terrasieve.views.dihedral import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE, dihedral_codes
from terrasieve.views.normalise import Normaliser
from terrasieve.views.plan import ViewPlan
from terrasieve.views.read import RawView
from terrasieve.views.resample import blur_weights, resize_weights


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
    down, across = weights[0, :, :, :height], weights[1, :, :, :width]
    view = torch.bmm(pixels.reshape(samples, channels * height, width), across.mT)
    view = down[:, None] @ view.view(samples, channels, height, plan.size)
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
