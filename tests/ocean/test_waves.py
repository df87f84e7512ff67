"""Wave spectra, surfaces and their image: moments, dispersion, modulation, velocity bunching."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate

from terrasieve.ocean.bunching import bunch, line_of_sight_spread, smear, tilt, wave_image
from terrasieve.ocean.viewing import INCIDENCE, incidences, range_to_velocity
from terrasieve.ocean.waves import (
    GRAVITY,
    Grid,
    Surface,
    WaveSystem,
    draw_surface,
    significant_height,
    spectrum,
    swell,
    wind_sea,
)

FINE = Grid(256, 12.5)
ALONG_RANGE, ALONG_AZIMUTH = 0.0, math.pi / 2


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def one_wave(wavelength: float, direction: float, amplitude: float = 1.0) -> Surface:
    """A single sinusoid, made by hand."""
    amplitudes = np.zeros((FINE.cells, FINE.cells), dtype=np.complex64)
    waves = round(FINE.cells * FINE.spacing / wavelength)
    row, column = round(waves * math.sin(direction)), round(waves * math.cos(direction))
    amplitudes[row, column] = amplitude
    return Surface(FINE, amplitudes, (0.0, 0.0))


# ------------------------------------------------------------------------ spectra


@pytest.mark.parametrize("gamma", [1.0, 3.3, 7.0])
def test_the_spectrum_peaks_at_its_period_and_gamma_raises_the_peak(gamma: float) -> None:
    system = WaveSystem(2, 10, 0, gamma, 10)
    frequency = np.linspace(0.2, 3, 20_000)
    density = spectrum(system, frequency)
    assert frequency[density.argmax()] == pytest.approx(2 * math.pi / 10, rel=2e-3)
    plain = spectrum(WaveSystem(2, 10, 0, 1.0, 10), np.array([2 * math.pi / 10]))
    assert density.max() / plain[0] == pytest.approx(gamma, rel=1e-3)


def test_without_enhancement_it_is_the_spectrum_of_pierson_and_moskowitz() -> None:
    peak = 0.6
    system = WaveSystem(1, 2 * math.pi / peak, 0, 1.0, 10)
    frequency = np.linspace(0.3, 4, 50)
    expected = (frequency / peak) ** -5 * np.exp(-1.25 * (peak / frequency) ** 4)
    np.testing.assert_allclose(spectrum(system, frequency), expected, rtol=1e-12)


def test_a_fully_developed_sea_is_that_of_the_shore_protection_manual() -> None:
    sea = wind_sea(10, 0.0, 5e6)
    assert sea.height == pytest.approx(0.2433 * 100 / GRAVITY)
    assert sea.period == pytest.approx(8.134 * 10 / GRAVITY)
    assert sea.enhancement == 1
    young = wind_sea(10, 0.0, 50e3)
    assert young.height == pytest.approx(0.0016 * math.sqrt(GRAVITY * 50e3) * 10 / GRAVITY)
    assert young.period < sea.period
    assert young.enhancement > 2


def test_heights_add_as_variances() -> None:
    assert significant_height([swell(3, 12, 0), swell(4, 9, 1)]) == pytest.approx(5)


# ------------------------------------------------------------------------ surfaces


@pytest.mark.parametrize(
    "system", [swell(3, 12, 0.7), wind_sea(16, 2.0, 8e5), wind_sea(6, -1.0, 3e5)], ids=["swell", "storm", "breeze"]
)
def test_a_surface_has_the_variance_of_its_spectrum(system: WaveSystem) -> None:
    """With what the grid cannot resolve, which for waves of a light wind is most of it."""
    drawn = [draw_surface([system], FINE, rng(seed)) for seed in range(30)]
    variance = np.mean([surface.elevation().var() for surface in drawn]) + drawn[0].unresolved[0]
    assert 4 * math.sqrt(variance) == pytest.approx(system.height, rel=0.04)


def test_light_wind_raises_waves_that_the_grid_does_not_resolve() -> None:
    storm, breeze = (draw_surface([wind_sea(wind, 0.0, 1e6)], FINE, rng()) for wind in (16, 4))
    assert storm.unresolved[0] < 0.05 * wind_sea(16, 0.0, 1e6).variance
    assert breeze.unresolved[0] > 0.9 * wind_sea(4, 0.0, 1e6).variance


def test_the_velocity_has_the_second_moment_of_the_spectrum() -> None:
    system = swell(2, 10, ALONG_AZIMUTH)
    density = lambda w: float(spectrum(system, np.array([w]))[0])  # noqa: E731
    mass = integrate.quad(density, 0.3, 5, points=[0.63], limit=200)[0]
    second = integrate.quad(lambda w: w**2 * density(w), 0.3, 5, points=[0.63], limit=200)[0]
    drawn = [draw_surface([system], FINE, rng(seed)) for seed in range(20)]
    # Along azimuth only the vertical motion has a part along the line of sight, but for the spread of directions.
    vertical = np.mean([surface.velocity(0).var() for surface in drawn]) + drawn[0].unresolved[1]
    assert vertical == pytest.approx(system.variance * second / mass, rel=0.08)


@pytest.mark.parametrize("direction", [ALONG_RANGE, ALONG_AZIMUTH])
def test_a_wave_moves_by_the_dispersion_relation_of_deep_water(direction: float) -> None:
    surface = one_wave(200, direction)
    omega = math.sqrt(GRAVITY * 2 * math.pi / 200)
    speed = surface.velocity(30)
    # Vertical and horizontal motion are a quarter period apart; azimuth has no part along the line of sight.
    share = 1.0 if direction == ALONG_RANGE else math.cos(math.radians(30))
    assert speed.max() == pytest.approx(omega * share, rel=0.02)


def test_crests_move_away_from_the_radar_where_waves_do() -> None:
    surface = one_wave(200, ALONG_RANGE)
    assert surface.velocity(89.99).flat[surface.elevation().argmax()] < 0
    assert surface.slope().std() == pytest.approx(2 * math.pi / 200 * surface.elevation().std(), rel=1e-3)


def test_waves_travel_where_they_are_told_to() -> None:
    surface = draw_surface([swell(2, 12, math.radians(60))], FINE, rng(3))
    power = np.abs(surface.amplitudes) ** 2
    axis = np.fft.fftfreq(FINE.cells)
    across, down = (power * axis[None, :]).sum(), (power * axis[:, None]).sum()
    assert math.degrees(math.atan2(down, across)) == pytest.approx(60, abs=5)


# ------------------------------------------------------------------------ imaging


def test_displacement_is_some_hundred_metres_for_a_metre_a_second() -> None:
    near, far = (range_to_velocity(INCIDENCE[beam]) for beam in ("WV1", "WV2"))
    assert 90 < near < far < 130


def test_incidence_changes_across_a_vignette_as_on_a_sphere() -> None:
    across = incidences(23.8, 400, 50.0)
    assert across.mean() == pytest.approx(23.8)
    assert 1.3 < across[-1] - across[0] < 1.8


def test_slopes_that_face_the_radar_are_brighter() -> None:
    slope = np.array([[-0.1, 0.0, 0.1, -1.0]], dtype=np.float32)
    away, flat, facing, hidden = tilt(slope, 23.8)[0]
    assert away < flat == 1 < facing
    assert hidden == 0
    gain = 4 / math.tan(math.radians(23.8)) / (1 + math.sin(math.radians(23.8)) ** 2)
    assert facing == pytest.approx(1 + 0.1 * gain)


def test_bunching_moves_power_and_loses_none() -> None:
    power = rng().random((16, 16), dtype=np.float32)
    np.testing.assert_allclose(bunch(power, np.full_like(power, 3)), np.roll(power, 3, 0), rtol=1e-6)
    np.testing.assert_allclose(
        bunch(power, np.full_like(power, -0.25)), 0.75 * power + 0.25 * np.roll(power, -1, 0), rtol=1e-5
    )
    moved = bunch(power, 5 * rng(1).standard_normal((16, 16), dtype=np.float32))
    assert moved.sum() == pytest.approx(power.sum(), rel=1e-5)
    np.testing.assert_allclose(moved.sum(axis=0), power.sum(axis=0), rtol=1e-5)


def test_waves_along_azimuth_are_seen_by_bunching_alone() -> None:
    """No slope faces the radar, and yet a low swell shows, at its own wavelength."""
    surface = one_wave(400, ALONG_AZIMUTH, amplitude=0.15)
    assert np.abs(surface.slope()).max() < 1e-5
    image = wave_image(surface, 23.8, 4)
    spectral = np.abs(np.fft.rfft(image.mean(axis=1) - 1))
    assert spectral.argmax() == round(FINE.cells * FINE.spacing / 400)
    assert image.std() > 0.05
    # A first-order image: azimuth displacement times wavenumber, for a sinusoid of this amplitude.
    vertical = math.cos(math.radians(23.8)) * 0.15 * math.sqrt(GRAVITY * 2 * math.pi / 400)
    expected = 2 * math.pi / 400 * range_to_velocity(23.8) * vertical / math.sqrt(2)
    assert image.std() == pytest.approx(expected, rel=0.1)


def test_a_smear_is_a_gaussian_of_the_width_that_was_set() -> None:
    point = np.zeros((64, 3), dtype=np.float32)
    point[32] = 1
    spread = smear(point, 2.5)[:, 0]
    rows = np.arange(64) - 32
    assert spread.sum() == pytest.approx(1, rel=1e-5)
    assert math.sqrt((spread * rows**2).sum()) == pytest.approx(2.5, rel=1e-3)
    assert line_of_sight_spread(4.0, 0.0) == pytest.approx(2)
    assert line_of_sight_spread(4.0, 90.0) == pytest.approx(math.sqrt(2))


def test_the_azimuth_cut_off_grows_with_wind() -> None:
    """The width of the image's autocorrelation along azimuth (Kerbaol et al. 1998), against that along range."""
    widths = []
    for wind in (5.0, 9.0, 14.0):
        systems = [wind_sea(wind, 0.8, 1e6), swell(1.0, 10, 0.3)]
        images = [wave_image(draw_surface(systems, FINE, rng(seed)), 23.8, 1) for seed in range(12)]
        widths.append(_correlation_length(images, axis=0))
    assert widths[0] < widths[1] < widths[2]


def _correlation_length(images: list[NDArray[np.float32]], axis: int) -> float:
    """First lag, in cells, at which the mean autocorrelation along an axis falls below exp(-1/2)."""
    spectra = [np.abs(np.fft.fft(image - 1, axis=axis)) ** 2 for image in images]
    power = np.mean(spectra, axis=0).mean(axis=1 - axis)
    correlation = np.fft.ifft(power).real
    relative = correlation / correlation[0]
    below = int(np.flatnonzero(relative < math.exp(-0.5))[0])
    before, after = relative[below - 1], relative[below]
    return below - 1 + (before - math.exp(-0.5)) / (before - after)
