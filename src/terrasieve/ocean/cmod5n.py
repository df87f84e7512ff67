"""CMOD5.N: how bright the sea is to a C-band radar in VV, from wind and incidence.

The form is that of CMOD5 (Hersbach, Stoffelen and de Haan 2007, "An improved C-band scatterometer ocean geophysical
model function: CMOD5", J. Geophys. Res. 112, C03006, doi:10.1029/2006JC003743, appendix A). The coefficients are those
for equivalent neutral wind (Hersbach 2008, "CMOD5.N: A C-band geophysical model function for equivalent neutral wind",
ECMWF Technical Memorandum 554; Hersbach 2010, J. Atmos. Oceanic Technol. 27, 721-736, doi:10.1175/2009JTECHO698.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

COEFFICIENTS = (
    *(-0.6878, -0.7957, 0.3380, -0.1728),  # c1-c4: a0
    *(0.0000, 0.0040),  # c5, c6: a1
    *(0.1103, 0.0159),  # c7, c8: a2
    *(6.7329, 2.7713, -2.2885),  # c9-c11: gamma
    *(0.4971, -0.7250),  # c12, c13: s0
    *(0.0450, 0.0066, 0.3222, 0.0120, 22.7000),  # c14-c18: b1
    *(2.0813, 3.0000),  # c19, c20: y0 and n of b2
    *(8.3659, -3.3428, 1.3236),  # c21-c23: v0
    *(6.2437, 2.3893, 0.3249),  # c24-c26: d1
    *(4.1590, 1.6930),  # c27, c28: d2
)
"""c1 to c28, at positions 0 to 27."""

WIND_RANGE = (0.2, 50.0)
"""Wind speeds in m/s that the published tables of the function cover."""

INCIDENCE_RANGE = (18.0, 58.0)
"""Incidences in degrees of the scatterometers (ERS) that CMOD5 was fitted to; beyond them it extrapolates."""

REFERENCE_WIND = 10.0
"""Wind speed in m/s that Wave Mode vignettes are detrended with."""

REFERENCE_DIRECTION = 45.0
"""Direction in degrees, relative to the antenna's look, of that wind."""

# Incidences of 15 to 65 degrees are scaled to -1 to 1; the sum of harmonics is raised to a power of 1.6.
_MIDDLE, _HALF_RANGE, _POWER = 40.0, 25.0, 1.6


def cmod5n(wind_speed: ArrayLike, direction: ArrayLike, incidence: ArrayLike) -> NDArray[np.float64]:
    """Normalised radar cross section sigma0 of the sea in VV at C band.

    Valid for :data:`INCIDENCE_RANGE` and :data:`WIND_RANGE`; the function was fitted to winds of up to some 25 m/s
    and grows ever more slowly beyond them. Values outside are computed as the formula gives them.

    Args:
        wind_speed: Equivalent neutral wind at 10 m in m/s, not negative.
        direction: Angle between the direction that the wind comes from and the azimuth that the antenna looks to, in
            degrees: 0 is upwind (the wind blows towards the antenna), 90 crosswind, 180 downwind.
        incidence: Angle between the line of sight and the vertical at the surface, in degrees.

    Returns:
        Linear power ratio, in the shape that the three broadcast to; NaN where one of them is.

    Raises:
        ValueError: A wind speed is negative.
    """
    speed = np.asarray(wind_speed, dtype=np.float64)
    if np.any(speed < 0):
        raise ValueError(f"wind speed {np.nanmin(speed):g} m/s is negative; give its size, and its direction apart")
    x = (np.asarray(incidence, dtype=np.float64) - _MIDDLE) / _HALF_RANGE
    cosine = np.cos(np.radians(np.asarray(direction, dtype=np.float64)))
    # The second harmonic, cos 2 phi, is 2 cos^2 phi - 1.
    harmonics = 1.0 + _upwind_downwind(speed, x) * cosine + _upwind_crosswind(speed, x) * (2 * cosine**2 - 1)
    sigma0: NDArray[np.float64] = _isotropic(speed, x) * harmonics**_POWER
    return sigma0


def detrend(sigma0: ArrayLike, incidence: ArrayLike) -> NDArray[Any]:
    """Sigma0 in units of what the sea gives at 10 m/s and 45 degrees, at the same incidence.

    This takes the fall of sigma0 with incidence out of a vignette, and the step between WV1 and WV2 (the sea surface
    roughness of Wang et al. 2019, "A labelled ocean SAR imagery dataset of ten geophysical phenomena from Sentinel-1
    wave mode", Geosci. Data J. 6, 105-115, doi:10.1002/gdj3.73). Divided by its mean over a vignette, the divisor is
    that of Ifremer's xsarsea.

    Args:
        sigma0: Normalised radar cross section as a linear power ratio, any shape.
        incidence: Local incidence in degrees; any shape that broadcasts with ``sigma0``.

    Returns:
        Linear, about 1 at moderate wind; float32 where ``sigma0`` is float32, else float64.
    """
    power = np.asarray(sigma0)
    kept = np.float32 if power.dtype == np.float32 else np.float64
    return np.asarray(power / cmod5n(REFERENCE_WIND, REFERENCE_DIRECTION, incidence), dtype=kept)


def _isotropic(speed: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """B0, the mean over directions."""
    c = COEFFICIENTS
    a0 = c[0] + c[1] * x + c[2] * x**2 + c[3] * x**3
    a1 = c[4] + c[5] * x
    a2 = c[6] + c[7] * x
    gamma = c[8] + c[9] * x + c[10] * x**2
    s0 = c[11] + c[12] * x
    s = a2 * speed
    logistic = 1 / (1 + np.exp(-np.maximum(s, s0)))
    # Below s0 a power law goes on from the logistic curve with its value and slope.
    low = s < s0
    share = np.divide(s, s0, out=np.ones_like(s0 + s), where=low)
    level = logistic * share ** np.where(low, s0 * (1 - logistic), 0.0)
    mean: NDArray[np.float64] = level**gamma * 10 ** (a0 + a1 * speed)
    return mean


def _upwind_downwind(speed: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """B1, the first harmonic."""
    c = COEFFICIENTS
    bend = c[14] * speed * (0.5 + x - np.tanh(4 * (x + c[15] + c[16] * speed)))
    harmonic: NDArray[np.float64] = (c[13] * (1 + x) - bend) / (np.exp(0.34 * (speed - c[17])) + 1)
    return harmonic


def _upwind_crosswind(speed: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """B2, the second harmonic."""
    c = COEFFICIENTS
    y0, n = c[18], c[19]
    v0 = c[20] + c[21] * x + c[22] * x**2
    d1 = c[23] + c[24] * x + c[25] * x**2
    d2 = c[26] + c[27] * x
    y = speed / v0 + 1
    floor, gain = y0 - (y0 - 1) / n, 1 / (n * (y0 - 1) ** (n - 1))
    v2 = np.where(y < y0, floor + gain * (y - 1) ** n, y)
    harmonic: NDArray[np.float64] = (d2 * v2 - d1) * np.exp(-v2)
    return harmonic
