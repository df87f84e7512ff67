"""What changes the backscatter of the sea from place to place: simple pictures of the ten phenomena.

Real phenomena are often larger than a vignette of a few kilometres; here their size goes with the vignette's, so that
each shows. Every field is periodic or smooth, and drawn from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrasieve.simulation.fields import Field, nearest_sites, random_field

Values = NDArray[np.floating]


@dataclass(frozen=True)
class Scenery:
    """A phenomenon; each array has the shape ``(size, size)``, rows along azimuth, columns along range.

    Attributes:
        wind: Factor on the wind speed, of mean 1.
        gain: Factor on the sea's sigma0.
        cover: Sigma0 of what is not water, 0 where there is water.
    """

    wind: Field
    gain: Field
    cover: Field


def draw_scenery(name: str, size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """A picture of a phenomenon.

    Args:
        name: Name of one of :data:`terrasieve.simulation.conditions.PHENOMENA`.
        size: Number of rows, and of columns, in pixels.
        heading: That the wind blows to, in radians from increasing columns towards increasing rows.
        rng: Generator that the picture is drawn from.
    """
    return _DRAWN[name](size, heading, rng)


def _scenery(
    size: int, *, wind: Values | None = None, gain: Values | None = None, cover: Values | None = None
) -> Scenery:
    # A wind of 0 would leave no sea to see; the mean stays that of the vignette.
    even = np.ones((size, size), dtype=np.float32)
    blown = even if wind is None else np.maximum(wind, np.float32(0.02))
    return Scenery(
        wind=(blown / blown.mean()).astype(np.float32),
        gain=even if gain is None else gain.astype(np.float32),
        cover=0 * even if cover is None else cover.astype(np.float32),
    )


def _from_decibels(values: Values) -> Field:
    return np.asarray(10 ** (values / 10), dtype=np.float32)


def _sigmoid(values: Values) -> Field:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))), dtype=np.float32)


def _waves(size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """Steady wind: the waves themselves are the picture."""
    return _scenery(size, wind=1 + 0.01 * random_field(rng, size, size / 6))


def _cells(size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """Convection: a net of gusty walls around calmer cells, all of about one size."""
    _, first, second = nearest_sites(rng, size, int(rng.integers(5, 8)), jitter=0.25)
    walls = np.exp(-(((second - first) / float(rng.uniform(1.6, 2.4))) ** 2))
    return _scenery(size, wind=1 + float(rng.uniform(0.6, 1.0)) * walls)


def _streaks(size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """Boundary-layer rolls: stripes of stronger wind, within some degrees of its direction, a fixed distance apart."""
    along = heading + math.radians(rng.uniform(-15, 15))
    down, across = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    lengthwise = across * math.cos(along) + down * math.sin(along)
    crosswise = np.abs(down * math.cos(along) - across * math.sin(along))
    spacing = float(rng.uniform(size / 9, size / 5))
    # Wavelengths near the spacing across the stripes, and hardly a change along them.
    response = np.exp(-(((crosswise * spacing - 1) / 0.25) ** 2) - 0.5 * (2 * np.pi * lengthwise * size / 4) ** 2)
    stripes = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * response, s=(size, size))
    stripes /= max(float(stripes.std()), 1e-9)
    return _scenery(size, wind=(1 + float(rng.uniform(0.2, 0.3)) * stripes).astype(np.float32))


def _calm(size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """Patches where the wind does not reach what ripples need."""
    field = random_field(rng, size, size / 9)
    edge = float(np.quantile(field, rng.uniform(0.35, 0.65)))
    return _scenery(size, wind=0.12 + 0.88 * _sigmoid((field - edge) / 0.08))


def _rain(size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """Downdraughts: a disc of gusts with a sharp edge, and a core that rain brightens or damps."""
    wind, core = np.ones((size, size), dtype=np.float32), np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):
        radius = float(rng.uniform(size / 8, size / 5))
        distance = _distance(size, rng.uniform(0.2, 0.8, 2) * size)
        # Air that falls in the middle runs outwards: it is calm there and gusty at the edge.
        wind += float(rng.uniform(0.6, 1.0)) * np.exp(-(((distance - radius) / (0.12 * radius)) ** 2))
        core += float(rng.choice([-5.0, 4.0])) * _sigmoid((0.45 * radius - distance) / 0.7)
    return _scenery(size, wind=wind, gain=_from_decibels(core))


def _slicks(size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """Films drawn out into threads by currents: dark where a field is near one of a few levels."""
    field = random_field(rng, size, size / 9) + 0.25 * random_field(rng, size, size / 20)
    steepness = np.hypot(*np.gradient(field)) + 0.02
    damping = np.zeros((size, size), dtype=np.float32)
    for level in rng.uniform(-1.2, 1.2, int(rng.integers(3, 6))):
        # A distance in pixels, so that threads are of one width.
        damping += np.exp(-(((field - level) / steepness / 1.1) ** 2))
    return _scenery(size, gain=_from_decibels(-float(rng.uniform(6, 10)) * np.minimum(damping, 1)))


def _air_front(size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """A step of the wind along a gently curved line, gustiest at the line."""
    distance = _line(size, size / 24, rng)
    step = float(rng.uniform(0.4, 0.6)) * np.tanh(distance / 1.5)
    return _scenery(size, wind=1 + step)


def _sea_front(size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """A meandering, thin, bright or dark line where currents meet, hardly a step across it."""
    distance = _line(size, size / 8, rng)
    line = float(rng.choice([-1, 1])) * float(rng.uniform(5, 8)) * np.exp(-((distance / 1.4) ** 2))
    return _scenery(size, gain=_from_decibels(line))


def _ice(size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """Floes of several brightnesses, parted by leads of dark, calm water or thin ice."""
    nearest, first, second = nearest_sites(rng, size, int(rng.integers(4, 7)), jitter=1.0)
    floes = 2.5 * rng.standard_normal(nearest.max() + 1).astype(np.float32)[nearest]
    leads = np.exp(-(((second - first) / 1.2) ** 2))
    return _scenery(size, cover=_from_decibels(-12 + floes - 6 * leads))


def _bergs(size: int, heading: float, rng: np.random.Generator) -> Scenery:
    """A few spots of 50 to some 250 m, brighter than the sea."""
    brightness = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(3, 9))):
        distance = _distance(size, rng.uniform(0.08, 0.92, 2) * size)
        brightness = np.where(distance <= rng.uniform(1.2, 2.6), np.float32(rng.uniform(9, 13)), brightness)
    return _scenery(size, gain=_from_decibels(brightness))


def _distance(size: int, centre: NDArray[np.float64]) -> Field:
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    distance: Field = np.hypot(rows - np.float32(centre[0]), columns - np.float32(centre[1]))
    return distance


def _line(size: int, bend: float, rng: np.random.Generator) -> Field:
    """Distance in pixels, with its sign, from a winding line through the middle part of the picture."""
    angle, offset = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(-0.2, 0.2)) * size
    rows, columns = np.mgrid[:size, :size].astype(np.float32) - np.float32(size / 2)
    line: Field = rows * math.cos(angle) + columns * math.sin(angle) - offset + bend * random_field(rng, size, size / 5)
    return line


_DRAWN: dict[str, Callable[[int, float, np.random.Generator], Scenery]] = {
    "pure ocean waves": _waves,
    "micro convective cells": _cells,
    "wind streaks": _streaks,
    "low wind area": _calm,
    "rain cells": _rain,
    "biological slicks": _slicks,
    "atmospheric front": _air_front,
    "sea ice": _ice,
    "iceberg": _bergs,
    "oceanic front": _sea_front,
}
