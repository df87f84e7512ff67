"""The ground of the simulated archive: which cover is where, in which state, on which slope.

Every field is periodic, so that a shifted view of a scene is a roll: it has the same shares of covers, shows
the overlap pixel by pixel, and new ground at the edges that meets the old without a seam.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from terrasieve.simulation.fields import Field, random_field
from terrasieve.simulation.land_forms import draw_form
from terrasieve.simulation.signatures import COVERS

_MAIN_SHARE = (0.8, 0.98)
"""Share of a scene that its main cover is laid on; roads and rivers take a little of it again."""
_PARCEL_PIXELS = (7.0, 20.0)
_NAMES = [cover.name for cover in COVERS]
_ROAD, _RIVER = _NAMES.index("urban"), _NAMES.index("water")


@dataclass(frozen=True)
class Landscape:
    """One scene's ground; every array has the shape ``(size, size)``.

    Attributes:
        cover: Positions in ``COVERS``, uint8.
        state: State of the cover, 0 to 1, in midsummer.
        brightness: Logarithm of the factor on reflectance that the covers' forms make.
        roughness: Deviation of sigma0 from place to place, dB.
        slope_y: Rise of the ground a metre towards increasing rows.
        slope_x: Rise of the ground a metre towards increasing columns.
    """

    cover: NDArray[np.uint8]
    state: Field
    brightness: Field
    roughness: Field
    slope_y: Field
    slope_x: Field

    def roll(self, rows: int, columns: int) -> Self:
        """The scene as seen from a place that lies so many pixels further down and right."""
        return type(self)(**{f.name: np.roll(getattr(self, f.name), (-rows, -columns), (0, 1)) for f in fields(self)})


def cover_shares(zipf: float) -> NDArray[np.float64]:
    """How frequent each cover is as the main cover of a scene: proportional to rank to the power ``-zipf``."""
    weights = np.array([rank**-zipf for rank in range(1, len(COVERS) + 1)])
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def main_cover(rng: np.random.Generator, zipf: float) -> int:
    """The cover of most of a scene; the first thing drawn from a scene's generator."""
    return int(rng.choice(len(COVERS), p=cover_shares(zipf)))


def make_landscape(rng: np.random.Generator, size: int, zipf: float) -> Landscape:
    """A scene whose main cover takes more than half of it.

    Args:
        rng: The scene's own generator, untouched.
        size: Number of rows, and of columns, in pixels of 10 m.
        zipf: Exponent of the covers' frequencies.
    """
    main = main_cover(rng, zipf)
    cells = _voronoi(rng, size)
    cover = _lay_lines(rng, _lay_covers(rng, main, cells, zipf), main)
    form = np.zeros((size, size), dtype=np.float32)
    for number in np.unique(cover):
        form += np.where(cover == number, draw_form(COVERS[number].name, rng, cells), 0)
    height = random_field(rng, size, size / 6) * float(rng.gamma(1.5, 4.0))
    # States go with the form, about a middle that changes slowly from place to place.
    middle = 0.5 * random_field(rng, size, size / 8) + float(rng.normal())
    return Landscape(
        cover=cover,
        state=(1 / (1 + np.exp(-(0.8 * form + middle)))).astype(np.float32),
        brightness=_by_cover([c.texture for c in COVERS])[cover] * form,
        roughness=_by_cover([c.roughness for c in COVERS])[cover] * form,
        slope_y=_slope(height, 0),
        slope_x=_slope(height, 1),
    )


def _slope(height: Field, axis: int) -> Field:
    """Central differences of heights in metres, 10 m apart."""
    return (np.roll(height, -1, axis) - np.roll(height, 1, axis)) / np.float32(20)


def _voronoi(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Number of the nearest of some random sites, on a torus; a metric of random shape stretches the parcels."""
    count = max(4, round((size / rng.uniform(*_PARCEL_PIXELS)) ** 2))
    sites = rng.uniform(0, size, (count, 2)).astype(np.float32)
    stretch = float(rng.uniform(0.5, 2.0))
    along = np.arange(size, dtype=np.float32)
    gaps = [np.abs(along[:, None] - sites[None, :, axis]) for axis in (0, 1)]
    # On a torus the way round the edge may be the shorter one.
    squares = [np.minimum(gap, size - gap) ** 2 for gap in gaps]
    nearest: NDArray[np.int64] = np.argmin(squares[0][:, None] * stretch + squares[1][None] / stretch, axis=2)
    return nearest


def _lay_covers(rng: np.random.Generator, main: int, cells: NDArray[np.int64], zipf: float) -> NDArray[np.uint8]:
    """The main cover, and others where a random field is highest, parcel by parcel or with smooth shores."""
    size = len(cells)
    shares = cover_shares(zipf)
    shares[main] = 0
    others = rng.choice(len(COVERS), size=3, p=shares / shares.sum())
    per_cell = rng.integers(len(others), size=cells.max() + 1)
    field = random_field(rng, size, size / 12)
    if COVERS[main].pattern == "parcel":
        field = _cell_means(field, cells)[cells]
    # A quantile leaves the main cover the same share whatever the field looks like.
    elsewhere = field > np.quantile(field, rng.uniform(*_MAIN_SHARE))
    return np.where(elsewhere, others[per_cell][cells], main).astype(np.uint8)


def _lay_lines(rng: np.random.Generator, cover: NDArray[np.uint8], main: int) -> NDArray[np.uint8]:
    """A straight road and a winding river, each in some of the scenes."""
    size = len(cover)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    road, river = rng.random(2) < (0.4, 0.25)
    offset, phase, bend = rng.uniform(0, (size, size, size / 8)).tolist()
    if road and main != _ROAD:
        across = y + int(rng.integers(-1, 2)) * x - offset
        cover = np.where(_wrapped(across, size) < size / 64, _ROAD, cover)
    if river and main != _RIVER:
        across = y - phase - bend * np.sin(2 * np.pi * (x - offset) / size)
        cover = np.where(_wrapped(across, size) < rng.uniform(size / 64, size / 24), _RIVER, cover)
    return cover.astype(np.uint8)


def _wrapped(distance: Field, size: int) -> Field:
    """Distances to the nearest of the lines that repeat every ``size`` pixels, 0 or more."""
    wrapped: Field = np.abs((distance + size / 2) % size - size / 2)
    return wrapped


def _cell_means(field: Field, cells: NDArray[np.int64]) -> Field:
    count = np.bincount(cells.ravel())
    sums = np.bincount(cells.ravel(), weights=field.ravel())
    means: Field = (sums / np.maximum(count, 1)).astype(np.float32)
    return means


def _by_cover(values: list[float]) -> Field:
    return np.array(values, dtype=np.float32)
