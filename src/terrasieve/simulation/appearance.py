"""The colours, brightness and contrast of a simulated scene, drawn from one distribution for all covers.

Real scenes of one class differ more in illumination, season, soil and haze than the means of two classes do. Here the
class has no say in them at all, so that a scene's statistics do not tell it; its form does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrasieve.simulation.equal_statistics import PictureStatistics, draw_target, match
from terrasieve.simulation.fields import Field
from terrasieve.simulation.imaging import OPTICAL_BLUR, RADAR_BLUR
from terrasieve.simulation.signatures import spectra

_CONTRAST, _RADAR_CONTRAST = (0.365, 0.405), (3.35, 3.65)
"""Least and greatest standard deviation of the logarithm of reflectance, and of sigma0 in dB."""
_BAND_SIGMA = 0.03
"""Standard deviation by which the logarithms of brightness and of contrast differ from band to band."""
_COLOUR = 0.08
"""Share of the logarithm of a colour's distance from the mean of all covers that is kept."""
_VV, _CROSS = (-11.0, -10.0), (6.2, 6.8)
"""Sigma0 of a scene in VV, and how far below it VH is, in dB."""
_SLOPES = (1.3, 1.7)
"""Slope of the power spectral density, see :func:`terrasieve.simulation.equal_statistics.match`."""


@dataclass(frozen=True)
class Appearance:
    """How a scene looks, whatever it shows.

    Attributes:
        reflectance: Middle of each band of ``s2-l2a``, shape ``(12,)``.
        contrast: Standard deviation of the logarithm of reflectance, shape ``(12,)``.
        sigma0: Mean in VV and VH, in dB, shape ``(2,)``.
        radar_contrast: Standard deviation of sigma0 in dB, shape ``(2,)``.
        optical_targets: Spectrum and distribution of values of each band of ``s2-l2a``; they differ as bands show
            different things.
        radar_targets: The same of VV and VH.
    """

    reflectance: Field
    contrast: Field
    sigma0: Field
    radar_contrast: Field
    optical_targets: tuple[PictureStatistics, ...]
    radar_targets: tuple[PictureStatistics, ...]

    def optical(self, lit: Field) -> Field:
        """Reflectance with the form of ``lit``, shape ``(12, size, size)``, in the colours of this scene."""
        form = np.stack([match(band, target) for band, target in zip(np.log(lit), self.optical_targets, strict=True)])
        seen: Field = self.reflectance[:, None, None] * np.exp(self.contrast[:, None, None] * form)
        return seen

    def radar(self, decibels: Field) -> Field:
        """Sigma0 in dB with the form of ``decibels``, shape ``(2, size, size)``."""
        form = np.stack([match(band, target) for band, target in zip(decibels, self.radar_targets, strict=True)])
        return self.sigma0[:, None, None] + self.radar_contrast[:, None, None] * form


def draw_appearance(rng: np.random.Generator) -> Appearance:
    """Colours of two covers at random, each in a state at random, mixed; contrast, slope and backscatter at random."""
    low, high = spectra()
    covers, states = rng.integers(len(low), size=2), rng.random((2, 1), dtype=np.float32)
    mixed = (low[covers] + states * (high - low)[covers]).mean(axis=0)
    middle = np.concatenate([low, high]).mean(axis=0)
    mixed = middle * (mixed / middle) ** _COLOUR
    vv = rng.uniform(*_VV)
    return Appearance(
        reflectance=_varied(rng, mixed),
        contrast=_varied(rng, np.full(mixed.shape, rng.uniform(*_CONTRAST))),
        sigma0=np.array([vv, vv - rng.uniform(*_CROSS)], dtype=np.float32),
        radar_contrast=_varied(rng, np.full(2, rng.uniform(*_RADAR_CONTRAST))),
        optical_targets=tuple(draw_target(rng, _SLOPES, blur) for blur in OPTICAL_BLUR),
        radar_targets=tuple(draw_target(rng, _SLOPES, RADAR_BLUR) for _ in range(2)),
    )


def _varied(rng: np.random.Generator, values: NDArray[np.floating]) -> Field:
    return np.asarray(values * rng.lognormal(0, _BAND_SIGMA, values.shape), dtype=np.float32)
