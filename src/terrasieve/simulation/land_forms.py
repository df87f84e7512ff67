"""What the covers of the simulated land look like from above: fields, crowns, streets, dunes, meanders, cracks.

The form of a cover is what tells it from others; colour and brightness do not (see
:mod:`terrasieve.simulation.appearance`). Every form is periodic, as the landscape is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from terrasieve.simulation.fields import Field, nearest_sites, random_field

Cells = NDArray[np.int64]


def draw_form(cover: str, rng: np.random.Generator, cells: Cells) -> Field:
    """The form of a cover.

    Args:
        cover: Name of one of :data:`terrasieve.simulation.signatures.COVERS`.
        rng: Generator that the form is drawn from.
        cells: Number of the parcel of each pixel, shape ``(size, size)``.

    Returns:
        Shape ``(size, size)``, mean 0 and standard deviation 1.
    """
    form = _DRAWN[cover](rng, cells)
    standard: Field = ((form - form.mean()) / max(float(form.std()), 1e-6)).astype(np.float32)
    return standard


def _fields(rng: np.random.Generator, cells: Cells) -> Field:
    """Parcels, each of one tone and with the stripes of sowing in a direction of its own, 4 to 8 pixels apart."""
    size, count = len(cells), cells.max() + 1
    angle, period = rng.uniform(0, np.pi, count), rng.uniform(4, 8, count)
    # Whole waves across the scene, so that stripes meet at its edges.
    waves_y, waves_x = np.round(size / period * np.stack([np.sin(angle), np.cos(angle)])).astype(np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    stripes = np.sin(2 * np.pi * (waves_y[cells] * y + waves_x[cells] * x))
    return np.asarray(stripes + 0.5 * rng.standard_normal(count, dtype=np.float32)[cells])


def _pastures(rng: np.random.Generator, cells: Cells) -> Field:
    """Parcels, each of one tone, with dark hedges between them."""
    hedges = (cells != np.roll(cells, 1, 0)) | (cells != np.roll(cells, 1, 1))
    tones = rng.standard_normal(cells.max() + 1, dtype=np.float32)[cells]
    return np.asarray(tones - 2.5 * hedges, dtype=np.float32)


def _crowns(rng: np.random.Generator, cells: Cells) -> Field:
    """Round crowns side by side, brightest in their middles, with dark gaps between them."""
    size = len(cells)
    _, first, second = nearest_sites(rng, size, max(3, round(size / rng.uniform(7, 10))), jitter=0.8)
    domes: Field = np.minimum(second - first, 3) - 0.3 * first
    return domes


def _plantation(rng: np.random.Generator, cells: Cells) -> Field:
    """Points on a square lattice, as trees are planted."""
    across, down = _square_lattice(rng, len(cells), rng.uniform(6, 8))
    points: Field = np.exp(1.2 * (np.cos(2 * np.pi * across) + np.cos(2 * np.pi * down)))
    return points


def _streets(rng: np.random.Generator, cells: Cells) -> Field:
    """Blocks of houses between streets that cross at right angles."""
    across, down = _square_lattice(rng, len(cells), rng.uniform(11, 16))
    # Every street is a line where one of the coordinates is whole; a tenth of a block wide or more.
    nearest = np.minimum(np.abs(across - np.rint(across)), np.abs(down - np.rint(down)))
    houses = random_field(rng, len(cells), 0.7)
    return np.where(nearest < 0.1, np.float32(-2.5), 0.7 * houses)


def _dunes(rng: np.random.Generator, cells: Cells) -> Field:
    """Winding ridges, gentle on one side and steep on the other."""
    size = len(cells)
    waves_y, waves_x = _whole_waves(rng, size, rng.uniform(8, 12))
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    phase = waves_y * y + waves_x * x + 0.35 * random_field(rng, size, size / 10)
    return np.asarray(phase - np.floor(phase), dtype=np.float32)


def _shoals(rng: np.random.Generator, cells: Cells) -> Field:
    """Broad nested bands about shallows, as depth and currents draw them."""
    size = len(cells)
    bands: Field = np.sin(2 * np.pi * float(rng.uniform(0.9, 1.3)) * random_field(rng, size, size / 8))
    return bands


def _bushes(rng: np.random.Generator, cells: Cells) -> Field:
    """Dark, round bushes scattered over even ground, far from each other."""
    size = len(cells)
    nearest, first, _ = nearest_sites(rng, size, max(3, round(size / rng.uniform(9, 12))), jitter=1.0)
    radius = rng.uniform(1.2, 2.6, nearest.max() + 1).astype(np.float32)
    # Some places stay empty.
    radius[rng.random(len(radius)) < 0.3] = 0
    return np.asarray(0.1 * random_field(rng, size, 1.0) - (first < radius[nearest]), dtype=np.float32)


def _channels(rng: np.random.Generator, cells: Cells) -> Field:
    """Thin, winding channels: where a field is near one of a few levels."""
    size = len(cells)
    field = random_field(rng, size, size / 9)
    steepness = np.hypot(*np.gradient(field)) + 0.02
    channels = np.zeros_like(field)
    for level in rng.uniform(-1.2, 1.2, 4):
        # A distance in pixels, so that all are about as wide.
        channels += np.exp(-(((field - level) / steepness / 1.1) ** 2))
    return -np.minimum(channels, 1)


def _cracks(rng: np.random.Generator, cells: Cells) -> Field:
    """Long, straight crevasses in any direction, across plain ice."""
    size = len(cells)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    cracks = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(3, 6))):
        # Whole slopes, so that a line that leaves one edge comes in at the other and meets itself.
        down, across = rng.choice([-1, 1], 2) * rng.permutation([1, int(rng.integers(0, 3))])
        cycles = (down * y + across * x) / size + rng.random()
        distance = np.abs(cycles - np.rint(cycles)) * size / np.hypot(down, across)
        cracks = np.maximum(cracks, np.exp(-((distance / 1.2) ** 2)))
    return np.asarray(-cracks + 0.1 * random_field(rng, size, 2.0), dtype=np.float32)


def _whole_waves(rng: np.random.Generator, size: int, period: float) -> tuple[int, int]:
    """Waves down and across a scene, whole numbers, of about one period in pixels in a direction at random."""
    angle = rng.uniform(0, np.pi)
    return round(size / period * np.sin(angle)), round(size / period * np.cos(angle))


def _square_lattice(rng: np.random.Generator, size: int, period: float) -> tuple[Field, Field]:
    """Coordinates of each pixel in a square lattice at random, whole on its lines; whole waves fit the scene."""
    waves_y, waves_x = _whole_waves(rng, size, period)
    offset = rng.random(2).astype(np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    return waves_y * y + waves_x * x + offset[0], waves_x * y - waves_y * x + offset[1]


_DRAWN: dict[str, Callable[[np.random.Generator, Cells], Field]] = {
    "cropland": _fields,
    "broadleaved forest": _crowns,
    "grassland": _pastures,
    "coniferous forest": _plantation,
    "bare soil": _dunes,
    "water": _shoals,
    "urban": _streets,
    "shrubland": _bushes,
    "wetland": _channels,
    "snow and ice": _cracks,
}
