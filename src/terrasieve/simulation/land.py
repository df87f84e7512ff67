"""The simulated archive: co-registered Sentinel-2, Sentinel-1 and land cover for people who have none at hand.

Nothing in it was measured. It is made to have what curation and pre-training have to cope with: a long-tailed
distribution of covers, near-copies, seasons, clouds, noise and speckle. Its classes differ in form and share their
colours, as those of real archives do.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from terrasieve.archive.footprints import corners, outlines
from terrasieve.archive.layout import DataSet
from terrasieve.console import track
from terrasieve.sensors import SENSORS, Sensor
from terrasieve.simulation.appearance import Appearance, draw_appearance
from terrasieve.simulation.imaging import OpticalSettings, draw_sun, light_up, scatter_back, see_optical, see_radar
from terrasieve.simulation.landscape import Landscape, main_cover, make_landscape
from terrasieve.simulation.signatures import COVERS
from terrasieve.simulation.simulated import Simulation, SimulationSpec, drawn_split
from terrasieve.streams import Stream, generator

_SENSORS = {"s2": SENSORS["s2-l2a"], "s1": SENSORS["s1"], "land_cover": SENSORS["land-cover"]}
_GENERATOR = 3
"""Raised whenever the same settings give other pixels than before."""
_CACHED = 32
"""Scenes and images that stay in memory: views of one sample are read soon after each other."""
_SHOW_PROGRESS_FROM = 5000
_CRS = "EPSG:32632"
# North-west corner of a made-up grid of scenes and its width, in m.
_WEST, _NORTH, _ACROSS = 250_000.0, 5_600_000.0, 500_000.0
_YEAR = datetime(2021, 1, 1, 10, 20, tzinfo=UTC)


class SimulatedSpec(SimulationSpec):
    """What to simulate. Sample ``i`` depends on the settings and ``i`` only, not on ``samples``.

    Attributes:
        seed: Seed of every draw, 0 or more.
        samples: Number of samples, 1 or more.
        size: Rows and columns of a sample, at 10 m.
        zipf: The cover of rank k is the label with a frequency proportional to ``k ** -zipf``; 0 is balanced.
        redundancy: Chance that a sample shows the scene of an earlier one again, shifted by up to a quarter
            of its size and a few days earlier or later.
        looks: Equivalent number of looks of Sentinel-1; 4.4 is that of IW ground range products.
        snr: Signal-to-noise ratio of Sentinel-2 at a reflectance of 0.1.
        cloudy: Share of the samples that have clouds.
        cloud_cover: Share of the pixels of such a sample that clouds hide.
    """

    layout: Literal["simulated"] = "simulated"
    size: int = Field(default=64, ge=32, le=1024)
    zipf: float = Field(default=1.0, ge=0)
    redundancy: float = Field(default=0.3, ge=0, lt=1)
    looks: float = Field(default=4.4, gt=0)
    snr: float = Field(default=100.0, gt=0)
    cloudy: float = Field(default=0.1, ge=0, le=1)
    cloud_cover: float = Field(default=0.3, gt=0, le=1)

    data_set = DataSet(title="simulated land", sensors="Sentinel-1 and -2, land cover", labels="class", split="drawn")

    def open(self) -> SimulatedArchive:
        """The archive; see :class:`SimulatedArchive`."""
        return SimulatedArchive(self)


class _View(NamedTuple):
    """Which scene a sample shows, and from where: pixels down and right of the scene's own corner."""

    scene: int
    rows: int
    columns: int


class _Facts(NamedTuple):
    """What is known of a sample without its pixels."""

    view: _View
    day: float
    label: str
    split: str


class SimulatedArchive(Simulation[SimulatedSpec]):
    """Samples that are computed when they are read: ``s2`` (s2-l2a), ``s1`` (dB) and ``land_cover``.

    A sample's label is the cover of more than half of its pixels. Near-copies share the split of their scene,
    so that no test sample is a copy of a training sample. The latest samples read stay in memory.

    Args:
        spec: Seed, number and size of the samples, and what occurs in them how often.
    """

    name: ClassVar[str] = "simulated"
    known_sensors: ClassVar[Mapping[str, Sensor]] = _SENSORS
    classes: ClassVar[tuple[str, ...]] = tuple(cover.name for cover in COVERS)

    def generator_version(self) -> tuple[str, ...]:
        """The version alone."""
        return (str(_GENERATOR),)

    def render(self, index: int, sensor: str) -> NDArray[Any]:
        """Shape ``(bands, size, size)``."""
        return _render(self.spec, index, sensor)

    def table(self) -> pa.Table:
        """See ``Archive.table``; with ``scene``, the sample that first showed this scene."""
        side, transforms = self.spec.size * 10.0, []
        for fact in self._facts:
            # Scenes lie side by side; a near-copy lies where it overlaps its original.
            row, column = divmod(fact.view.scene, int(_ACROSS // side))
            west, north = _WEST + column * side + 10 * fact.view.columns, _NORTH - row * side - 10 * fact.view.rows
            transforms.append([10.0, 0.0, west, 0.0, -10.0, north])
        box = np.array([[0, 0, self.spec.size, self.spec.size]])
        shapes = outlines(np.concatenate([corners(t, box) for t in transforms]), _CRS)
        times = [_YEAR + timedelta(days=fact.day) for fact in self._facts]
        assets = {f"asset:{key}": pa.nulls(len(self), pa.string()) for key in _SENSORS}
        return pa.table(
            {
                "id": pa.array(self.ids.tolist(), pa.string()),
                "geometry": pa.array(shapes, pa.binary()),
                "time": pa.array(times, pa.timestamp("us", tz="UTC")),
                "label": pa.array([fact.label for fact in self._facts], pa.string()),
                "split": pa.array([fact.split for fact in self._facts], pa.string()),
                "crs": pa.array([_CRS] * len(self), pa.string()),
                "transform": pa.array(transforms, pa.list_(pa.float64())),
                **assets,
                "scene": pa.array([str(self.ids[fact.view.scene]) for fact in self._facts], pa.string()),
            }
        )

    @cached_property
    def _facts(self) -> list[_Facts]:
        indices = range(len(self))
        shown = track(indices, "Simulating the catalogue") if len(self) > _SHOW_PROGRESS_FROM else indices
        return [_facts(self.spec, index) for index in shown]


def _view(spec: SimulatedSpec, index: int) -> _View:
    """Follow a copy to its original, and that to its own, until a scene of its own is found."""
    rows = columns = 0
    reach = spec.size // 4
    while index > 0:
        rng = generator(Stream.LAND_COPY, spec.seed, index)
        if rng.random() >= spec.redundancy:
            break
        down, right = rng.integers(-reach, reach + 1, 2).tolist()
        rows, columns = rows + down, columns + right
        # Only earlier samples are copied, so that this ends and no sample depends on how many there are.
        index = int(rng.integers(index))
    return _View(index, rows, columns)


def _facts(spec: SimulatedSpec, index: int) -> _Facts:
    view = _view(spec, index)
    split = drawn_split(generator(Stream.LAND_SPLIT, spec.seed, view.scene))
    # The main cover is the first thing that a scene's generator draws, so that its ground need not be made.
    label = COVERS[main_cover(generator(Stream.LAND_SCENE, spec.seed, view.scene), spec.zipf)].name
    return _Facts(view, _day(spec, index, view.scene), label, split)


def _day(spec: SimulatedSpec, index: int, scene: int) -> float:
    """Day of the year: that of the scene, give or take five days for each acquisition."""
    day = generator(Stream.LAND_DAY, spec.seed, scene).uniform(5, 360)
    return float(day + generator(Stream.LAND_JITTER, spec.seed, index).uniform(-5, 5))


@lru_cache(maxsize=_CACHED)
def _ground(spec: SimulatedSpec, scene: int) -> Landscape:
    return make_landscape(generator(Stream.LAND_SCENE, spec.seed, scene), spec.size, spec.zipf)


@lru_cache(maxsize=_CACHED)
def _appearance(spec: SimulatedSpec, scene: int) -> Appearance:
    return draw_appearance(generator(Stream.LAND_APPEARANCE, spec.seed, scene))


@lru_cache(maxsize=_CACHED)
def _render(spec: SimulatedSpec, index: int, sensor: str) -> NDArray[Any]:
    view = _view(spec, index)
    ground = _ground(spec, view.scene).roll(view.rows, view.columns)
    if sensor == "land_cover":
        return ground.cover[None]
    day, appearance = _day(spec, index, view.scene), _appearance(spec, view.scene)
    if sensor == "s1":
        rng = generator(Stream.LAND_RADAR, spec.seed, index)
        return see_radar(appearance.radar(scatter_back(ground, day, rng)), spec.looks, rng)
    clouds = spec.cloud_cover if generator(Stream.LAND_CLOUDS, spec.seed, index).random() < spec.cloudy else 0.0
    rng = generator(Stream.LAND_OPTICAL, spec.seed, index)
    sun = draw_sun(day, rng)
    lit = appearance.optical(light_up(ground, day, sun))
    return see_optical(lit, OpticalSettings(day, spec.snr, clouds), sun, rng)
