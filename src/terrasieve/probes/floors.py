"""What a trained encoder has to beat: statistics of the image itself, and its own backbone untrained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PERCENTILES = (5, 25, 50, 75, 95)
SPECTRAL_RINGS = ((1 / 16, 1 / 8), (1 / 8, 1 / 4), (1 / 4, 1 / 2))
"""Octaves of spatial frequency, in cycles per pixel."""

STATISTICS = (
    "mean",
    "std",
    "minimum",
    *(f"percentile_{p}" for p in PERCENTILES),
    "maximum",
    "gradient_mean",
    "gradient_std",
    *(f"log_energy_{low:g}_{high:g}" for low, high in SPECTRAL_RINGS),
)
"""What is measured of each band, in order."""


class ImageStatistics(nn.Module):
    """Statistics of the standardised pixels of each band, in place of an encoder.

    Of each band: mean, standard deviation, minimum, five percentiles, maximum, mean and standard
    deviation of the gradient's magnitude (central differences), and log(1 + e) of the mean spectral energy e
    in three octaves of spatial frequency (of the band less its mean).
    """

    def forward(self, pixels: Tensor) -> Tensor:
        """Statistics ``(n, channels * len(STATISTICS))`` of pixels ``(n, channels, height, width)``."""
        pixels = pixels.float()
        return torch.cat([_distribution(pixels), _gradients(pixels), _spectrum(pixels)], dim=-1).flatten(1)


def _distribution(pixels: Tensor) -> Tensor:
    flat = pixels.flatten(2)
    # Nearest-rank percentiles from one sort: torch.quantile refuses more than 2**24 values.
    ordered = flat.sort(dim=-1).values
    ranks = [round(p / 100 * (ordered.shape[-1] - 1)) for p in (0, *PERCENTILES, 100)]
    std, mean = torch.std_mean(flat, dim=-1, correction=0)
    return torch.cat([torch.stack([mean, std], dim=-1), ordered[..., ranks]], dim=-1)


def _gradients(pixels: Tensor) -> Tensor:
    down, right = torch.gradient(pixels, dim=(2, 3))
    std, mean = torch.std_mean(torch.hypot(down, right).flatten(2), dim=-1, correction=0)
    return torch.stack([mean, std], dim=-1)


def _spectrum(pixels: Tensor) -> Tensor:
    height, width = pixels.shape[-2:]
    centred = pixels - pixels.mean(dim=(-2, -1), keepdim=True)
    energy = torch.fft.rfft2(centred, norm="ortho").abs().square()
    rows = torch.fft.fftfreq(height, device=pixels.device)[:, None]
    radius = torch.hypot(rows, torch.fft.rfftfreq(width, device=pixels.device)[None, :])
    rings = [((low <= radius) & (radius < high)).float() for low, high in SPECTRAL_RINGS]
    return torch.stack([((energy * ring).sum((-2, -1)) / ring.sum().clamp(min=1)).log1p() for ring in rings], dim=-1)
