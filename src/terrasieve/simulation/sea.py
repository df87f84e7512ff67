"""The simulated ocean: Sentinel-1 Wave Mode vignettes with known class, wave height and wind.

Nothing in it was measured. Waves are drawn from spectra and imaged as a synthetic aperture radar would image them
(:mod:`terrasieve.ocean`), on a sea whose brightness follows CMOD5.N; the classes are simple pictures of the ten
phenomena of TenGeoP-SARwv (:mod:`terrasieve.simulation.scenery`), which differ in form and not in statistics
(:mod:`terrasieve.simulation.equal_statistics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from terrasieve.archive.layout import DataSet
from terrasieve.console import track
from terrasieve.ocean.bunching import wave_image
from terrasieve.ocean.cmod5n import REFERENCE_DIRECTION, REFERENCE_WIND, cmod5n, detrend
from terrasieve.ocean.viewing import incidences
from terrasieve.ocean.waves import Grid, Surface, draw_surface
from terrasieve.sensors import SENSORS, Sensor
from terrasieve.simulation.conditions import PHENOMENA, Conditions, draw_conditions, outline
from terrasieve.simulation.equal_statistics import draw_target, match
from terrasieve.simulation.imaging import speckle
from terrasieve.simulation.scenery import draw_scenery
from terrasieve.simulation.simulated import Simulation, SimulationSpec, drawn_split
from terrasieve.streams import Stream, generator

SENSOR_KEY = "s1"
PIXEL = 50.0
"""Side of a pixel in m."""

CELLS = 4
"""Cells of the simulated surface along each side of a pixel."""

FLOOR = 1e-5
"""Lowest value of a pixel: below what the radar can tell from noise, and a number whose logarithm exists."""

_GENERATOR = 4
"""Raised whenever the same settings give other pixels than before."""
_CACHED = 32
"""Vignettes that stay in memory."""
_SHOW_PROGRESS_FROM = 20_000
_WAVES_SHOWN = np.float32(0.6)
"""Share of the waves' decibels that a vignette shows, so that they do not drown what is seen among them."""
_LEVEL_KEPT = 0.15
"""Share of the wind's decibels that the calibration of each vignette leaves: level alone does not give the wind."""
_GAIN_SIGMA = 0.6
"""Standard deviation of a vignette's gain, in dB."""
_CONTRAST, _CONTRAST_KEPT, _CONTRAST_SIGMA, _CONTRASTS = 2.2, 0.3, 0.2, (1.2, 4.0)
"""Contrast in dB where that of the waves alone is 1 dB, the power of theirs that it follows, the spread of its
logarithm, and its bounds in dB."""
_SLOPES = (1.8, 2.2)
"""Slope of the power spectral density, see :func:`terrasieve.simulation.equal_statistics.match`."""
_GRAIN = np.float32(0.3)
"""Standard deviation in dB."""


class SimulatedOceanSpec(SimulationSpec):
    """What to simulate. Sample ``i`` depends on the settings and ``i`` only, not on ``samples``.

    Attributes:
        seed: Seed of every draw, 0 or more.
        samples: Number of vignettes, 1 or more.
        size: Rows (azimuth) and columns (range) of a vignette, at 50 m; 400 is the 20 km of a real one.
        zipf: The phenomenon of rank k has a frequency proportional to ``k ** -zipf``; 0 is balanced.
        looks: Equivalent number of looks of a pixel; a square of 50 m holds about 10 by 10 resolution cells.
        nesz: Sigma0 in dB of the instrument's noise, at most -22 by specification (Torres et al. 2012); its mean is
            taken out again, as processing does, its fluctuation stays.
    """

    layout: Literal["simulated-ocean"] = "simulated-ocean"
    size: int = Field(default=64, ge=32, le=400)
    zipf: float = Field(default=1.0, ge=0)
    looks: float = Field(default=100.0, gt=0)
    nesz: float = Field(default=-26.0, ge=-100, le=0)

    data_set = DataSet(
        title="simulated ocean",
        sensors="Wave Mode",
        labels="class; wave height, wind",
        split="drawn",
        page="../how-to/ocean.md",
    )

    def open(self) -> SimulatedOceanArchive:
        """The archive; see :class:`SimulatedOceanArchive`."""
        return SimulatedOceanArchive(self)


class SimulatedOceanArchive(Simulation[SimulatedOceanSpec]):
    """Vignettes that are computed when they are read: ``s1`` (s1-wv), sigma0 divided by that of a moderate wind.

    What is divided by is CMOD5.N at the local incidence; see :func:`terrasieve.ocean.cmod5n.detrend`. Then each
    vignette is calibrated on its own; see :func:`calibrated`. The latest vignettes read stay in memory.

    Args:
        spec: Seed, number and size of the vignettes, and what the radar adds.
    """

    name: ClassVar[str] = "ocean"
    known_sensors: ClassVar[Mapping[str, Sensor]] = {SENSOR_KEY: SENSORS["s1-wv"]}
    classes: ClassVar[tuple[str, ...]] = tuple(phenomenon.name for phenomenon in PHENOMENA)

    def generator_version(self) -> tuple[str, ...]:
        """Layout and version."""
        return (self.spec.layout, str(_GENERATOR))

    def render(self, index: int, sensor: str) -> NDArray[Any]:
        """Shape ``(1, size, size)``."""
        return _render(self.spec, index)

    def table(self) -> pa.Table:
        """See ``Archive.table``.

        With ``swh`` (significant wave height, m) and ``wind_speed`` (m/s, mean over the vignette), null under sea ice;
        ``incidence`` (degrees, in the middle), ``mode`` (WV1 or WV2) and ``wind_direction`` (degrees that the wind
        comes from, relative to the antenna's look).
        """
        known, side = self._conditions, self.spec.size * PIXEL
        splits = [drawn_split(generator(Stream.SEA_SPLIT, self.spec.seed, index)) for index in range(len(self))]
        outlines = [outline(each.longitude, each.latitude, each.heading, side) for each in known]
        return pa.table(
            {
                "id": pa.array(self.ids.tolist(), pa.string()),
                "geometry": pa.array(outlines, pa.binary()),
                "time": pa.array([each.time for each in known], pa.timestamp("us", tz="UTC")),
                "label": pa.array([each.phenomenon.name for each in known], pa.string()),
                "split": pa.array(splits, pa.string()),
                "crs": pa.nulls(len(self), pa.string()),
                "transform": pa.nulls(len(self), pa.list_(pa.float64())),
                **{f"asset:{key}": pa.nulls(len(self), pa.string()) for key in self.known_sensors},
                "swh": pa.array([each.swh for each in known], pa.float64()),
                "wind_speed": pa.array([each.known_wind for each in known], pa.float64()),
                "wind_direction": pa.array([each.wind_direction for each in known], pa.float64()),
                "incidence": pa.array([each.incidence for each in known], pa.float64()),
                "mode": pa.array([each.mode for each in known], pa.string()),
            }
        )

    @cached_property
    def _conditions(self) -> list[Conditions]:
        indices = range(len(self))
        shown = track(indices, "Simulating the catalogue") if len(self) > _SHOW_PROGRESS_FROM else indices
        return [_conditions_of(self.spec, index) for index in shown]


def sea_surface(spec: SimulatedOceanSpec, index: int) -> Surface:
    """The waves of a vignette on a grid of 12.5 m, at the moment that it was seen.

    Args:
        spec: Settings of the archive.
        index: Position of the vignette in it, from 0.
    """
    grid = Grid(spec.size * CELLS, PIXEL / CELLS)
    return draw_surface(_conditions_of(spec, index).waves, grid, generator(Stream.SEA_WAVES, spec.seed, index))


def sigma0(spec: SimulatedOceanSpec, index: int) -> NDArray[np.float32]:
    """Backscatter of a vignette without noise and speckle, linear, not detrended; shape ``(size, size)``.

    Args:
        spec: Settings of the archive.
        index: Position of the vignette in it, from 0.
    """
    known = _conditions_of(spec, index)
    scenery = draw_scenery(
        known.phenomenon.name, spec.size, known.blows_to, generator(Stream.SEA_SCENERY, spec.seed, index)
    )
    local = incidences(known.incidence, spec.size, PIXEL)
    sea = cmod5n(known.wind_speed * scenery.wind, known.wind_direction, local) * scenery.gain
    # Waves tilt and bunch the surface: their image has mean 1 and changes brightness, not its level.
    sea *= _wave_image(spec, index)
    return np.where(scenery.cover > 0, scenery.cover, sea).astype(np.float32)


def calibrated(spec: SimulatedOceanSpec, index: int) -> NDArray[np.float32]:
    """Detrended backscatter of a vignette as it is shown: matched, without noise and speckle; shape ``(size, size)``.

    Whatever the phenomenon, its level follows that of an even sea in the mean wind, and its contrast that of its waves
    alone, both weakly and within an error of calibration; the slope of its spectrum is drawn. So these tell a little of
    wind and waves, and nothing of the phenomenon.

    Args:
        spec: Settings of the archive.
        index: Position of the vignette in it, from 0.

    Returns:
        Linear, about 1 at moderate wind, positive.
    """
    known, rng = _conditions_of(spec, index), generator(Stream.SEA_CALIBRATION, spec.seed, index)
    local = incidences(known.incidence, spec.size, PIXEL)
    even = _decibels(detrend(cmod5n(known.wind_speed, known.wind_direction, local), local)).mean()
    level = _LEVEL_KEPT * even + rng.normal(0, _GAIN_SIGMA)
    waves = _decibels(_wave_image(spec, index)).std()
    contrast = np.clip(_CONTRAST * waves**_CONTRAST_KEPT * rng.lognormal(0, _CONTRAST_SIGMA), *_CONTRASTS)
    decibels = _decibels(detrend(sigma0(spec, index), local))
    # What a phenomenon leaves even gets a grain, as ranks and rings need something to work on.
    decibels += _GRAIN * rng.standard_normal(decibels.shape, dtype=np.float32)
    shown = level + contrast * match(decibels, draw_target(rng, _SLOPES))
    return np.asarray(10 ** (shown / 10), dtype=np.float32)


def _decibels(power: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(10 * np.log10(np.maximum(power, FLOOR)), dtype=np.float32)


@lru_cache(maxsize=_CACHED)
def _wave_image(spec: SimulatedOceanSpec, index: int) -> NDArray[np.float32]:
    shown = wave_image(sea_surface(spec, index), _conditions_of(spec, index).incidence, CELLS) ** _WAVES_SHOWN
    return np.asarray(shown / shown.mean(), dtype=np.float32)


def _conditions_of(spec: SimulatedOceanSpec, index: int) -> Conditions:
    return draw_conditions(generator(Stream.SEA_CONDITIONS, spec.seed, index), spec.zipf)


@lru_cache(maxsize=_CACHED)
def _render(spec: SimulatedOceanSpec, index: int) -> NDArray[np.float32]:
    local = incidences(_conditions_of(spec, index).incidence, spec.size, PIXEL)
    noise = np.float32(10 ** (spec.nesz / 10))
    shown = calibrated(spec, index) * cmod5n(REFERENCE_WIND, REFERENCE_DIRECTION, local)
    # Noise is speckled with the signal; its mean is then taken out again, as processing does.
    received = speckle((shown + noise).astype(np.float32), spec.looks, generator(Stream.SEA_SPECKLE, spec.seed, index))
    seen: NDArray[np.float32] = np.maximum(detrend(received - noise, local), FLOOR).astype(np.float32)
    return seen[None]
