"""What keeps statistics from telling classes apart: spectra and values of one family, whatever a picture shows.

Simulated classes that differ in brightness, contrast or graininess can be told by numbers that know nothing of form. So
the pictures of all classes are brought to one family of power over octaves and to one of distributions of values, and
which member of them a picture gets is drawn without a look at its class. What is left is where things are: orientation,
edges, cells, lines, points and their arrangement, which a spectrum holds in its phases, in its dependence on direction
and in its peaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from terrasieve.simulation.fields import Field

_OCTAVES = 6
"""Places in the spectrum at which a power is drawn: 1, 2, 4, ... cycles a picture, and on to the highest."""
_OCTAVE_SIGMA = 0.2
"""Standard deviation by which the logarithm of the power at each of these leaves the power law."""
_SKEW_SIGMA, _TAIL_SIGMA = 0.2, 0.12
_FLOOR = 1e-3
"""Energy that an octave is taken to have at least, as a share of the mean of all."""


@dataclass(frozen=True)
class PictureStatistics:
    """Statistics that a picture is to have.

    Attributes:
        slope: Of the power spectral density over the logarithm of spatial frequency, with its sign changed.
        octaves: What the logarithm of power is off this power law at 1, 2, 4, ... cycles a picture.
        skew: Skewness of the sinh-arcsinh distribution (Jones and Pewsey 2009, Biometrika 96); 0 is symmetric.
        tail: Weight of its tails; 1 is that of the normal distribution.
        blur: Standard deviation in pixels of the point spread function that the power law is seen through.
    """

    slope: float
    octaves: tuple[float, ...]
    skew: float
    tail: float
    blur: float = 0.0


def draw_target(rng: np.random.Generator, slopes: tuple[float, float], blur: float = 0.0) -> PictureStatistics:
    """Statistics at random.

    Args:
        rng: Generator that they are drawn from.
        slopes: Least and greatest slope.
        blur: See :class:`PictureStatistics`.
    """
    octaves = rng.normal(0, _OCTAVE_SIGMA, _OCTAVES)
    return PictureStatistics(
        slope=float(rng.uniform(*slopes)),
        octaves=tuple(octaves.tolist()),
        skew=float(rng.normal(0, _SKEW_SIGMA)),
        tail=float(rng.lognormal(0, _TAIL_SIGMA)),
        blur=blur,
    )


def match(picture: Field, target: PictureStatistics) -> Field:
    """A picture with the same form, and statistics that say nothing of it.

    Values become normal, in their order; then each octave of spatial frequency takes the power wanted and the values,
    again in their order, the distribution wanted, twice in turn. Phases, and how the power of an octave is spread over
    frequencies and directions, stay nearly as they were.

    Args:
        picture: Shape ``(size, size)``; not constant.
        target: The statistics wanted.

    Returns:
        The same shape, of mean 0 and standard deviation 1.
    """
    normal = _values(picture.size)
    values = np.sinh((np.arcsinh(normal) + target.skew) * target.tail)
    values = (values - values.mean()) / values.std()
    matched = distribute(picture, normal)
    # Each of the two takes a little of what the other gave.
    for _ in range(2):
        matched = distribute(shape_spectrum(matched, target), values)
    return matched


def distribute(picture: Field, values: Field) -> Field:
    """Give the pixels of a picture these values, ascending, in the order of its own."""
    low = picture.min()
    # Sixteen bits tell pixels apart well enough, and are sorted in a fifth of the time. Equal ones go by their place.
    levels = ((picture - low) * (65535 / max(float(picture.max() - low), 1e-9))).astype(np.uint16)
    given = np.empty_like(values)
    given[np.argsort(levels, axis=None, kind="stable")] = values
    return given.reshape(picture.shape)


def shape_spectrum(picture: Field, target: PictureStatistics) -> Field:
    """Give each octave of the spectrum the power wanted, whatever it had, and leave its peaks inside; the mean goes.

    Octaves are those of spatial frequency, centred on 1, 2, 4, ... cycles a picture. Between two of them the gain goes
    over smoothly, so that a lattice keeps the one frequency that makes it a lattice.
    """
    rings = _rings(len(picture))
    count = np.bincount(rings.ravel())
    spectrum = np.fft.rfft2(picture)
    energy = np.bincount(rings.ravel(), (np.abs(spectrum) ** 2).ravel())
    frequency = np.arange(len(count))
    logs = np.log2(np.maximum(frequency, 1))
    wanted = count * np.exp(np.interp(logs, range(_OCTAVES), target.octaves) - target.slope * np.log(2) * logs)
    energy[0] = wanted[0] = 0
    octave = np.rint(logs).astype(np.int64)
    held, due = np.bincount(octave, energy), np.bincount(octave, wanted)
    # The floor: what is not there is not made of rounding.
    octave_gains = 0.5 * np.log(due / np.maximum(held, _FLOOR * held.mean()))
    gain = np.exp(np.interp(logs, range(len(held)), octave_gains))
    gain[0] = 0
    # The values come last: blurred after it, a distribution would tell again how fine a picture is.
    gain *= np.exp(-2 * (np.pi * target.blur * frequency / len(picture)) ** 2)
    return np.fft.irfft2(spectrum * gain[rings], s=picture.shape).astype(np.float32)


@lru_cache(maxsize=8)
def _rings(size: int) -> NDArray[np.int64]:
    """Rounded distance of each entry of ``rfft2`` from the constant term, in cycles a picture."""
    distance = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]) * size
    rings: NDArray[np.int64] = np.rint(distance).astype(np.int64)
    return rings


@lru_cache(maxsize=8)
def _values(count: int) -> Field:
    """As many values of a standard normal distribution, ascending, as evenly as can be."""
    return np.asarray(special.ndtri((np.arange(count) + 0.5) / count), dtype=np.float32)
