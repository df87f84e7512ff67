"""CMOD5.N beside a second writing of it, number by number, and beside what is known of the sea's backscatter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrasieve.ocean.cmod5n import COEFFICIENTS, REFERENCE_DIRECTION, REFERENCE_WIND, cmod5n, detrend

# The table of the coefficients as it is printed, one line a term of the function.
PRINTED = """
c1 -0.6878  c2 -0.7957  c3  0.3380  c4 -0.1728
c5  0.0000  c6  0.0040  c7  0.1103  c8  0.0159
c9  6.7329  c10 2.7713  c11 -2.2885 c12 0.4971  c13 -0.7250
c14 0.0450  c15 0.0066  c16 0.3222  c17 0.0120  c18 22.7000
c19 2.0813  c20 3.0000
c21 8.3659  c22 -3.3428 c23 1.3236  c24 6.2437  c25 2.3893  c26 0.3249  c27 4.1590  c28 1.6930
"""
C = {name: float(value) for name, value in zip(PRINTED.split()[::2], PRINTED.split()[1::2], strict=True)}

UPWIND, CROSSWIND, DOWNWIND = 0.0, 90.0, 180.0


def by_hand(v: float, phi: float, theta: float) -> float:
    """One number from the formula of Hersbach et al. 2007, appendix A, branch by branch."""
    x = (theta - 40) / 25
    a0 = C["c1"] + C["c2"] * x + C["c3"] * x**2 + C["c4"] * x**3
    a1 = C["c5"] + C["c6"] * x
    a2 = C["c7"] + C["c8"] * x
    gamma = C["c9"] + C["c10"] * x + C["c11"] * x**2
    s0 = C["c12"] + C["c13"] * x
    f = _below(a2 * v, s0) if a2 * v < s0 else _logistic(a2 * v)
    b0 = 10 ** (a0 + a1 * v) * f**gamma
    b1 = C["c14"] * (1 + x) - C["c15"] * v * (0.5 + x - math.tanh(4 * (x + C["c16"] + C["c17"] * v)))
    b1 /= 1 + math.exp(0.34 * (v - C["c18"]))
    v0 = C["c21"] + C["c22"] * x + C["c23"] * x**2
    d1 = C["c24"] + C["c25"] * x + C["c26"] * x**2
    d2 = C["c27"] + C["c28"] * x
    y0, n = C["c19"], C["c20"]
    y = (v + v0) / v0
    v2 = y if y >= y0 else y0 - (y0 - 1) / n + (y - 1) ** n / (n * (y0 - 1) ** (n - 1))
    b2 = (-d1 + d2 * v2) * math.exp(-v2)
    return b0 * (1 + b1 * math.cos(math.radians(phi)) + b2 * math.cos(2 * math.radians(phi))) ** 1.6


def _logistic(s: float) -> float:
    return 1 / (1 + math.exp(-s))


def _below(s: float, s0: float) -> float:
    return (s / s0) ** (s0 * (1 - _logistic(s0))) * _logistic(s0)


# ------------------------------------------------------------------------ values


def test_the_coefficients_are_the_printed_ones() -> None:
    assert list(COEFFICIENTS) == [C[f"c{number}"] for number in range(1, 29)]


@given(v=st.floats(0, 50), phi=st.floats(-360, 360), theta=st.floats(18, 65))
def test_it_equals_the_formula_written_by_hand(v: float, phi: float, theta: float) -> None:
    assert float(cmod5n(v, phi, theta)) == pytest.approx(by_hand(v, phi, theta), rel=1e-9, abs=1e-300)


def test_the_two_branches_at_low_wind_meet_with_one_value_and_one_slope() -> None:
    x = (30 - 40) / 25
    joint = (C["c12"] + C["c13"] * x) / (C["c7"] + C["c8"] * x)
    below, at, above = (float(cmod5n(joint + step, 45, 30)) for step in (-1e-4, 0, 1e-4))
    assert at - below == pytest.approx(above - at, rel=1e-3)


def test_arrays_broadcast_and_missing_values_stay_missing() -> None:
    winds, directions = np.array([3.0, 8.0, np.nan])[:, None, None], np.array([0.0, 45.0])[None, :, None]
    found = cmod5n(winds, directions, np.linspace(20, 40, 5))
    assert found.shape == (3, 2, 5)
    assert found.dtype == np.float64
    assert np.isnan(found[2]).all()
    assert found[1, 1, 3] == pytest.approx(by_hand(8, 45, 35), rel=1e-12)


def test_a_negative_wind_is_refused() -> None:
    with pytest.raises(ValueError, match="-3 m/s is negative"):
        cmod5n([4.0, -3.0], 0, 30)


# ------------------------------------------------------------------------ what is known of the sea


@pytest.mark.parametrize("incidence", [20.0, 23.8, 36.8, 45.0])
@pytest.mark.parametrize("direction", [UPWIND, 45.0, CROSSWIND, DOWNWIND])
def test_more_wind_is_brighter_up_to_20_metres_a_second(incidence: float, direction: float) -> None:
    assert (np.diff(cmod5n(np.linspace(0.5, 20, 40), direction, incidence)) > 0).all()


@pytest.mark.parametrize("incidence", [23.8, 36.8])
@pytest.mark.parametrize("wind", [5.0, 10.0, 15.0])
def test_the_sea_is_brighter_along_the_wind_than_across_it(wind: float, incidence: float) -> None:
    up, across, down = cmod5n(wind, [UPWIND, CROSSWIND, DOWNWIND], incidence)
    assert min(up, down) > 1.1 * across


def test_upwind_is_brighter_than_downwind_away_from_steep_incidence() -> None:
    up, down = cmod5n(10, UPWIND, np.arange(35, 56)), cmod5n(10, DOWNWIND, np.arange(35, 56))
    assert (up > down).all()


@given(direction=st.floats(0, 180), wind=st.floats(0.5, 30), incidence=st.floats(18, 58))
def test_left_and_right_of_the_wind_are_alike(direction: float, wind: float, incidence: float) -> None:
    assert cmod5n(wind, direction, incidence) == pytest.approx(float(cmod5n(wind, -direction, incidence)))


@pytest.mark.parametrize("direction", [UPWIND, 45.0, CROSSWIND])
def test_the_sea_darkens_with_incidence(direction: float) -> None:
    assert (np.diff(cmod5n(10, direction, np.linspace(18, 58, 41))) < 0).all()


def test_moderate_wind_lies_where_scatterometers_see_it() -> None:
    """Some -4 to -8 dB at WV1 and -10 to -16 dB at WV2."""
    steep, slant = 10 * np.log10(cmod5n(10, 45, [23.8, 36.8]))
    assert -8 < steep < -3
    assert -16 < slant < -10


# ------------------------------------------------------------------------ detrending


def test_detrending_divides_by_the_reference_wind_at_the_local_incidence() -> None:
    incidence = np.linspace(23, 24.5, 64)
    flat = np.tile(cmod5n(REFERENCE_WIND, REFERENCE_DIRECTION, incidence), (8, 1))
    assert (REFERENCE_WIND, REFERENCE_DIRECTION) == (10, 45)
    np.testing.assert_allclose(detrend(flat, incidence), 1, rtol=1e-12)
    np.testing.assert_allclose(detrend(3 * flat, np.tile(incidence, (8, 1))), 3, rtol=1e-12)


def test_detrending_keeps_the_type_of_single_precision() -> None:
    assert detrend(np.ones((2, 3), dtype=np.float32), 30.0).dtype == np.float32
    assert detrend(np.ones((2, 3), dtype=np.uint16), 30.0).dtype == np.float64
