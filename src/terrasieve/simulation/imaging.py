"""What Sentinel-2 and Sentinel-1 would see of a simulated landscape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrasieve.sensors import SENSORS
from terrasieve.simulation.fields import Field, random_field
from terrasieve.simulation.landscape import Landscape
from terrasieve.simulation.signatures import CLOUD, COVERS, spectra

_BANDS = SENSORS["s2-l2a"].bands
_WAVELENGTHS = np.array([band.wavelength_um for band in _BANDS], dtype=np.float32)
# Reflectance of each cover at state 0 and 1, shape ``(bands, covers)``, and other properties by cover.
_LOW, _HIGH = (np.ascontiguousarray(each.T) for each in spectra())
_SEASONS = np.array([c.season for c in COVERS], dtype=np.float32)
_SIGMA0_LOW = np.array([[c.vv[0] for c in COVERS], [c.vh[0] for c in COVERS]], dtype=np.float32)
_SIGMA0_HIGH = np.array([[c.vv[1] for c in COVERS], [c.vh[1] for c in COVERS]], dtype=np.float32)
_INCIDENCE = np.array([c.incidence for c in COVERS], dtype=np.float32)
_WEATHER = np.array([c.weather for c in COVERS])
_BLUR = 0.55
"""Standard deviation of the point spread function, in pixels of the band: a fifth is left at its Nyquist frequency."""
OPTICAL_BLUR = tuple(_BLUR * band.gsd / 10 for band in _BANDS)
"""The same of each band of ``s2-l2a``, in pixels of 10 m."""
RADAR_BLUR = _BLUR
"""The same of Sentinel-1."""
_DIFFUSE = 0.2
"""Share of the light that comes from the sky and reaches every slope alike."""
_REFERENCE = 0.1
"""Reflectance that signal-to-noise ratios are stated at."""
_NOISE_FLOOR = np.float32(10 ** (-25.0 / 10))
_MIDDLE_INCIDENCE = 38.0
"""Incidence in degrees that the covers' sigma0 is stated at."""


@dataclass(frozen=True)
class OpticalSettings:
    """Circumstances of one Sentinel-2 acquisition.

    Attributes:
        day: Day of the year, 0 to 365.
        snr: Signal-to-noise ratio at a reflectance of 0.1.
        cloud_cover: Share of the pixels under cloud, 0 to 1.
    """

    day: float
    snr: float
    cloud_cover: float


def green(day: float) -> float:
    """How far the growing season is, 0 in mid-January to 1 in mid-July."""
    return 0.5 - 0.5 * math.cos(2 * math.pi * (day - 15) / 365)


@dataclass(frozen=True)
class Sun:
    """Where the sun stands, in radians.

    Attributes:
        height: Over the horizon.
        azimuth: Clockwise from north.
    """

    height: float
    azimuth: float


def draw_sun(day: float, rng: np.random.Generator) -> Sun:
    """The sun in mid-morning, as high as the season lets it rise."""
    return Sun(math.radians(22 + 38 * green(day) + rng.uniform(-3, 3)), math.radians(rng.uniform(145, 170)))


def light_up(ground: Landscape, day: float, sun: Sun) -> Field:
    """Reflectance of a landscape as it is lit: that of its covers in their season, times texture and illumination.

    Returns:
        Shape ``(12, size, size)`` in the band order of ``s2-l2a``, above 0.
    """
    state = _seasonal_state(ground, day)
    surface = _LOW[:, ground.cover] + state * (_HIGH - _LOW)[:, ground.cover]
    # ``brightness`` is a logarithm, so that texture never makes reflectance negative.
    lit: Field = surface * np.exp(ground.brightness) * _illumination(ground, sun)
    return lit


def see_optical(lit: Field, settings: OpticalSettings, sun: Sun, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Bottom-of-atmosphere reflectance, times 10,000, of a landscape in the light.

    Clouds and their shadows; the gain and the haze that an imperfect atmospheric correction leaves; shot noise.

    Args:
        lit: Reflectance as lit and as sharp as each band sees it, shape ``(12, size, size)``.
        settings: Circumstances of the acquisition.
        sun: Where shadows of clouds fall from.
        rng: Generator of everything that an acquisition adds.

    Returns:
        Shape ``(12, size, size)`` in the band order of ``s2-l2a``, 1 to 20,000: never 0, the nodata value.
    """
    if settings.cloud_cover > 0:
        lit = _add_clouds(lit, settings.cloud_cover, sun, rng)
    gain = math.exp(rng.normal(0, 0.06))
    # Path reflectance of aerosol falls with wavelength to the power -1.3 (Angstrom's exponent).
    haze = float(rng.uniform(0, 0.012)) * (_WAVELENGTHS / np.float32(0.49)) ** np.float32(-1.3)
    seen = lit * gain + haze.astype(np.float32)[:, None, None]
    # Photons are counted, so the noise's variance grows with the signal.
    noise = np.sqrt(np.maximum(seen, 0) * _REFERENCE) / settings.snr
    noisy = seen + noise * rng.standard_normal(seen.shape, dtype=np.float32)
    counts: NDArray[np.uint16] = np.clip(np.rint(noisy * 10_000), 1, 20_000).astype(np.uint16)
    return counts


def scatter_back(ground: Landscape, day: float, rng: np.random.Generator) -> Field:
    """Backscatter sigma0 in dB of a landscape: that of its covers and their state, changed by incidence and weather.

    Returns:
        Shape ``(2, size, size)``: VV, VH.
    """
    # The radar looks towards increasing columns: ground that rises that way faces it, under a smaller incidence.
    tilt = float(rng.uniform(30, 45)) - _MIDDLE_INCIDENCE - np.rad2deg(np.arctan(ground.slope_x))
    weather = rng.normal(0, _WEATHER).astype(np.float32)
    state = _seasonal_state(ground, day)
    decibels: Field = _SIGMA0_LOW[:, ground.cover] + state * (_SIGMA0_HIGH - _SIGMA0_LOW)[:, ground.cover]
    decibels += weather[ground.cover] + ground.roughness + _INCIDENCE[ground.cover] * tilt
    return decibels


def see_radar(decibels: Field, looks: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """What the instrument makes of backscatter: its noise is added, and both are speckled.

    Args:
        decibels: Sigma0 as sharp as it is seen, shape ``(2, size, size)``.
        looks: Equivalent number of looks.
        rng: Generator of the speckle, of each polarisation on its own.

    Returns:
        Sigma0 in dB, shape ``(2, size, size)``.
    """
    # Decibels vary; what adds up with the noise is power.
    power: Field = np.exp(decibels * np.float32(math.log(10) / 10)) + _NOISE_FLOOR
    return 10 * np.log10(np.maximum(speckle(power, looks, rng), 1e-4))


def speckle(intensity: Field, looks: float, rng: np.random.Generator) -> Field:
    """Multiply an intensity image by fully developed speckle.

    The mean of L independent looks follows a gamma distribution of shape L and mean 1 (Goodman 1976, "Some
    fundamental properties of speckle", JOSA 66(11)), so on a homogeneous area mean squared over variance is L.

    Args:
        intensity: Linear power, any shape.
        looks: L, the equivalent number of looks.
        rng: Generator that the speckle is drawn from, one number a pixel.
    """
    return intensity * (rng.standard_gamma(looks, intensity.shape, dtype=np.float32) / np.float32(looks))


def _seasonal_state(ground: Landscape, day: float) -> Field:
    return ground.state * (1 - _SEASONS[ground.cover] * np.float32(1 - green(day)))


def _illumination(ground: Landscape, sun: Sun) -> Field:
    """Light on a slope relative to flat ground: Lambert's cosine law for the direct part, the rest diffuse.

    Azimuth is counted clockwise from north; rows run south and columns east.
    """
    east, south = math.sin(sun.azimuth), -math.cos(sun.azimuth)
    normal = np.sqrt(1 + ground.slope_x**2 + ground.slope_y**2)
    towards = math.sin(sun.height) - math.cos(sun.height) * (east * ground.slope_x + south * ground.slope_y)
    direct = np.maximum(towards / normal, 0) / math.sin(sun.height)
    light: Field = (1 - _DIFFUSE) * direct + _DIFFUSE
    return light


def _add_clouds(lit: Field, cover: float, sun: Sun, rng: np.random.Generator) -> Field:
    """Clouds over exactly a share ``cover`` of the pixels, thicker inwards, and their shadows away from the sun."""
    size = lit.shape[-1]
    field = random_field(rng, size, size / 14) + 0.15 * random_field(rng, size, 1.5)
    edge = float(np.quantile(field, 1 - cover))
    opacity = (0.95 * np.clip((field - edge) / 0.5, 0, 1)).astype(np.float32)
    # A cloud 300 to 1,500 m high throws its shadow so many pixels away, and round the edge: the landscape is periodic.
    reach = min(rng.uniform(300, 1500) / math.tan(sun.height) / 10, size / 3)
    shift = (round(reach * math.cos(sun.azimuth)), round(-reach * math.sin(sun.azimuth)))
    shaded: Field = lit * (1 - np.float32(0.7) * np.roll(opacity, shift, (0, 1)))
    bright = np.array(CLOUD, dtype=np.float32)[:, None, None] * (1 + np.float32(0.1) * field)
    return shaded * (1 - opacity) + bright * opacity
