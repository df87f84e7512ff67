"""Spectra of ocean waves on deep water, and random surfaces drawn from them.

Frequency spectra are JONSWAP (Hasselmann et al. 1973, "Measurements of wind-wave growth and swell decay during the
Joint North Sea Wave Project", Dtsch. Hydrogr. Z. A8 12), which without peak enhancement are Pierson-Moskowitz (1964, J.
Geophys. Res. 69(24)). Energy spreads over directions as cos^2s of half the angle (Longuet-Higgins et al. 1963), with s
of Goda and Suzuki 1975.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

GRAVITY = 9.81
"""In m/s2."""

_YOUNG, _SWELL = 3.3, 7.0
"""Peak enhancement of a young wind sea, which is JONSWAP's mean, and of swell."""
_WIND_SPREADING, _SWELL_SPREADING = 10.0, 75.0
"""Goda and Suzuki's s of a wind sea, and of swell of long decay distance."""
_FREQUENCIES = 400
"""Frequencies over which a spectrum's variance is summed."""
_TABLE = 4096
"""Frequencies up to the highest of a grid at which a spectrum is computed once, for all wavenumbers."""
_NEGLIGIBLE = np.float32(1e-7)
"""Share of the highest density below which a wavenumber is left out."""

Field = NDArray[np.float32]


@dataclass(frozen=True)
class WaveSystem:
    """Waves of one origin.

    Attributes:
        height: Significant wave height in m, four times the root of the surface's variance.
        period: Period of the spectrum's peak, in s.
        direction: Direction that the waves travel to, in radians: 0 along increasing columns, a quarter turn along
            increasing rows.
        enhancement: Gamma of JONSWAP, from 1; 1 is Pierson-Moskowitz.
        spreading: Exponent s of the directional distribution, positive; larger is narrower.
    """

    height: float
    period: float
    direction: float
    enhancement: float
    spreading: float

    @property
    def variance(self) -> float:
        """Variance of the surface's elevation, in m2: the zeroth moment m0 of the spectrum."""
        return (self.height / 4) ** 2


# -------------------------------------------------------------------- surfaces


@dataclass(frozen=True)
class Grid:
    """Wavenumbers of a periodic square of sea.

    Attributes:
        cells: Number of rows, and of columns.
        spacing: Length of a cell's sides, in m.
    """

    cells: int
    spacing: float

    @property
    def highest(self) -> float:
        """Angular frequency of the shortest wave that it resolves, of two cells, in rad/s."""
        return math.sqrt(GRAVITY * math.pi / self.spacing)


@dataclass(frozen=True)
class Surface:
    """Complex amplitudes of the waves on a grid at one moment; each of its arrays has the shape ``(cells, cells)``.

    Attributes:
        grid: Size and spacing of the square that the surface repeats itself after.
        amplitudes: Amplitudes of the waves that the grid resolves, in m; rows first, in the order of
            ``numpy.fft.fftfreq``.
        unresolved: What waves that are shorter have together: variance of the elevation in m2, and of the orbital
            velocity's vertical component in m2/s2.
    """

    grid: Grid
    amplitudes: NDArray[np.complex64]
    unresolved: tuple[float, float]

    def elevation(self) -> Field:
        """Height of the surface above its mean, in m."""
        return self._real(self.amplitudes)

    def slope(self) -> Field:
        """Rise of the surface a metre towards increasing columns."""
        return self._real(self.amplitudes * (1j * _wavenumbers(self.grid).across))

    def velocity(self, incidence: float) -> Field:
        """Orbital velocity towards a radar that looks along increasing columns, in m/s.

        Deep-water waves move the surface in circles: by omega times elevation along their direction, and a quarter
        period later upwards (Hasselmann and Hasselmann 1991, J. Geophys. Res. 96(C6)).

        Args:
            incidence: Angle between the line of sight and the vertical, in degrees between 0 and 90.
        """
        waves, angle = _wavenumbers(self.grid), math.radians(incidence)
        towards = -math.sin(angle) * waves.cosine - 1j * math.cos(angle)
        return self._real(self.amplitudes * (waves.frequency * towards).astype(np.complex64))

    def _real(self, amplitudes: NDArray[np.complexfloating]) -> Field:
        cells = self.grid.cells
        # A surface is the plain sum of its waves, where numpy's inverse transform divides by their number.
        field: Field = (fft.ifft2(amplitudes.astype(np.complex64)).real * np.float32(cells**2)).astype(np.float32)
        return field


# ---------------------------------------------------------------- wave systems


def wind_sea(wind_speed: float, direction: float, fetch: float) -> WaveSystem:
    """The waves that a steady wind has raised over a fetch.

    Growth as JONSWAP found it, up to the fully developed sea, in the form of the Shore Protection Manual (CERC 1984,
    equations 3-33 to 3-38) with the wind at 10 m. The peak is the sharper the younger the sea is.

    Args:
        wind_speed: Wind speed at 10 m, in m/s, positive.
        direction: Direction that the wind blows to, in radians; see :class:`WaveSystem`.
        fetch: Length of open water that the wind has blown over, in m, positive.
    """
    scaled = GRAVITY * fetch / wind_speed**2
    # 0.0016 and 0.2857 are the manual's growth of height and period with fetch, 0.2433 and 8.134 their limits in the
    # fully developed sea, all in units of wind speed and gravity.
    age = min(0.0016 * math.sqrt(scaled) / 0.2433, 1.0)
    return WaveSystem(
        height=0.2433 * age * wind_speed**2 / GRAVITY,
        period=min(0.2857 * scaled ** (1 / 3), 8.134) * wind_speed / GRAVITY,
        direction=direction,
        enhancement=1 + (_YOUNG - 1) * (1 - age),
        spreading=_WIND_SPREADING,
    )


def swell(height: float, period: float, direction: float) -> WaveSystem:
    """Waves that have left the wind that raised them: a narrow spectrum (Goda 1983, Rep. Port Harbour Res. Inst. 22).

    Args:
        height: Significant wave height, in m.
        period: Period of the spectrum's peak, in s.
        direction: Direction that the waves travel to, in radians; see :class:`WaveSystem`.
    """
    return WaveSystem(height, period, direction, _SWELL, _SWELL_SPREADING)


def significant_height(systems: Sequence[WaveSystem]) -> float:
    """Significant height of all waves together, in m: four times the root of the sum of their variances."""
    return 4 * math.sqrt(sum(system.variance for system in systems))


# --------------------------------------------------------------------- drawing


def draw_surface(systems: Sequence[WaveSystem], grid: Grid, rng: np.random.Generator) -> Surface:
    """A random surface: independent complex Gaussian amplitudes whose expected variance is the spectrum.

    Args:
        systems: The systems of waves that lie over one another; with none the sea is flat.
        grid: Size and spacing of the square of sea.
        rng: Source of amplitudes and phases: two normal numbers for each cell.
    """
    shape = (grid.cells, grid.cells)
    variance = np.zeros(shape, dtype=np.float32)
    elevation = velocity = 0.0
    for system in systems:
        resolved, rest, motion = _shares(system, grid.highest)
        variance += _distributed(system, grid) * np.float32(resolved)
        elevation, velocity = elevation + rest, velocity + motion
    # The real and the imaginary part have variance 1 each; taking the surface's real part halves their sum again.
    noise = rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    return Surface(grid, noise * np.sqrt(variance), (elevation, velocity))


def spectrum(system: WaveSystem, frequency: NDArray[np.floating]) -> NDArray[np.float64]:
    """Shape of a wave system's spectrum over angular frequency, not scaled.

    Args:
        system: Waves of one origin; their height and direction do not matter here.
        frequency: Angular frequency in rad/s, positive, any shape.

    Returns:
        Density over frequency, in the shape of ``frequency``.
    """
    relative = np.asarray(frequency, dtype=np.float64) * system.period / (2 * math.pi)
    width = np.where(relative > 1, 0.09, 0.07)  # JONSWAP's sigma above and below the peak
    peak = np.exp(-0.5 * ((relative - 1) / width) ** 2)
    shape: NDArray[np.float64] = relative**-5.0 * np.exp(-1.25 * relative**-4.0) * system.enhancement**peak
    return shape


@dataclass(frozen=True)
class _Wavenumbers:
    """The waves that a grid resolves; each array has its shape.

    Attributes:
        across: Component of the wavenumber along increasing columns, in rad/m.
        cosine: Cosine of the wave's direction, -1 to 1; 0 for the mean, which has none.
        sine: Sine of the wave's direction, likewise.
        frequency: Angular frequency by the dispersion of deep water, in rad/s.
        place: Position of the frequency in a table up to the highest that the grid resolves; one past its end where it
            is above, as in the corners of the square of wavenumbers.
    """

    across: Field
    cosine: Field
    sine: Field
    frequency: Field
    place: NDArray[np.int32]


@lru_cache(maxsize=4)
def _wavenumbers(grid: Grid) -> _Wavenumbers:
    axis = (2 * math.pi * np.fft.fftfreq(grid.cells, grid.spacing)).astype(np.float32)
    across, down = np.broadcast_arrays(axis[None, :], axis[:, None])
    size: Field = np.hypot(across, down)
    safe: Field = np.where(size > 0, size, np.float32(1))
    frequency = np.sqrt(GRAVITY * size, dtype=np.float32)
    place = np.minimum(frequency * (_TABLE / grid.highest), _TABLE).astype(np.int32)
    cosine, sine = np.divide(across, safe, dtype=np.float32), np.divide(down, safe, dtype=np.float32)
    return _Wavenumbers(across, cosine, sine, frequency, place)


def _distributed(system: WaveSystem, grid: Grid) -> Field:
    """Share of the resolved variance that each wavenumber carries; they sum to 1."""
    waves = _wavenumbers(grid)
    frequency = (np.arange(_TABLE) + 0.5) * (grid.highest / _TABLE)
    # From frequency to the plane of wavenumbers: dw/dk = g / 2w, over the length of the circle, k = w^2 / g.
    by_frequency = np.append(spectrum(system, frequency) / frequency**3, 0.0).astype(np.float32)
    density: Field = by_frequency[waves.place]
    carried = density > _NEGLIGIBLE * by_frequency.max()
    along = waves.cosine[carried] * math.cos(system.direction) + waves.sine[carried] * math.sin(system.direction)
    # Rounding may leave the square of the cosine of half an angle below 0 by a hair.
    spread = np.maximum(0.5 + 0.5 * along, np.float32(0)) ** np.float32(system.spreading)
    shares = np.zeros_like(density)
    shares[carried] = density[carried] * spread
    total = float(shares.sum())
    return shares / np.float32(total) if total > 0 else shares


def _shares(system: WaveSystem, highest: float) -> tuple[float, float, float]:
    """Variance below a frequency, variance above it, and variance of the vertical velocity above it."""
    peak = 2 * math.pi / system.period
    # Spectra fall off slowly above the peak, and the velocity more slowly than the elevation; below it hardly anything
    # is left at 0.4 of the peak's frequency.
    frequency = np.geomspace(0.4 * peak, max(30 * peak, 3 * highest), _FREQUENCIES)
    density = spectrum(system, frequency) * frequency  # per logarithm of frequency
    density *= system.variance / density.sum()
    above = frequency > highest
    return float(density[~above].sum()), float(density[above].sum()), float((density * frequency**2)[above].sum())
