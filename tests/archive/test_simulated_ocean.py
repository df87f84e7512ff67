"""The simulated ocean: reproducible, of the physics that it states, and with classes that can be told apart."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import QualityLimits, check
from terrasieve.errors import BandError, ConfigError, SampleError
from terrasieve.ocean.cmod5n import cmod5n
from terrasieve.ocean.viewing import INCIDENCE, incidences
from terrasieve.simulation.conditions import PHENOMENA, WINDS, draw_conditions, outline, phenomenon_shares
from terrasieve.simulation.scenery import draw_scenery
from terrasieve.simulation.sea import (
    PIXEL,
    SimulatedOceanArchive,
    SimulatedOceanSpec,
    calibrated,
    sea_surface,
    sigma0,
)
from terrasieve.streams import Stream, generator

NAMES = [phenomenon.name for phenomenon in PHENOMENA]


def _spec(**settings: float) -> SimulatedOceanSpec:
    return SimulatedOceanSpec(**{"size": 32, "samples": 400, **settings})


def _archive(**settings: float) -> SimulatedOceanArchive:
    return SimulatedOceanArchive(_spec(**settings))


def _of(archive: SimulatedOceanArchive, label: str) -> list[int]:
    return [index for index, name in enumerate(archive.table()["label"].to_pylist()) if name == label]


# ------------------------------------------------------------------------ an archive


def test_a_sample_depends_on_settings_and_index_only() -> None:
    one, other, more = _archive(seed=4), _archive(seed=4), _archive(seed=4, samples=900)
    forwards = [one.read(i, "s1") for i in range(12)]
    for i in reversed(range(12)):
        np.testing.assert_array_equal(other.read(i, "s1"), forwards[i])
        np.testing.assert_array_equal(more.read(i, "s1"), forwards[i])
    assert one.table().equals(more.table().slice(0, 400))


def test_seeds_and_indices_differ() -> None:
    assert len({_archive(seed=seed).read(i, "s1").tobytes() for seed in (0, 1) for i in (0, 1)}) == 4


def test_pickle_and_caller_cannot_change_it() -> None:
    archive = _archive()
    before = archive.read(3, "s1")
    archive.read(3, "s1")[:] = 0
    archive.read(3, "s1", window=Window(0, 0, 4, 4))[:] = 0
    np.testing.assert_array_equal(archive.read(3, "s1"), before)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(archive)).read(3, "s1"), before)


def test_shape_type_window_and_mistakes() -> None:
    archive = _archive()
    whole = archive.read(2, "s1")
    assert (whole.shape, whole.dtype, archive.shape(2, "s1")) == ((1, 32, 32), np.float32, (32, 32))
    np.testing.assert_array_equal(archive.read(2, "s1", ("VV",), Window(3, 4, 5, 6)), whole[:, 3:8, 4:10])
    with pytest.raises(SampleError, match="leaves sample 2"):
        archive.read(2, "s1", None, Window(30, 0, 3, 3))
    with pytest.raises(BandError, match="no sensor 's2'"):
        archive.read(0, "s2")
    with pytest.raises(BandError, match="no band 'VH'"):
        archive.read(0, "s1", ("VH",))
    with pytest.raises(IndexError):
        archive.read(400, "s1")


@pytest.mark.parametrize(
    ("name", "seed", "samples"),
    [("simulated-ocean", 0, 4096), ("simulated-ocean:7", 7, 4096), ("simulated-ocean:7:12", 7, 12)],
)
def test_it_opens_by_name_and_says_that_it_is_simulated(name: str, seed: int, samples: int) -> None:
    archive = open_archive(name)
    assert isinstance(archive, SimulatedOceanArchive)
    assert (len(archive), archive.source["simulated"], archive.source["options"]["seed"]) == (samples, True, seed)
    assert archive.sensors["s1"].name == "s1-wv"


def test_settings_and_land_have_fingerprints_of_their_own() -> None:
    prints = {
        open_archive(name).source["fingerprint"] for name in ("simulated-ocean:1:9", "simulated-ocean:2:9", "simulated")
    }
    assert len(prints | {_archive(looks=4).source["fingerprint"]}) == 4
    with pytest.raises(ConfigError, match="samples"):
        open_archive("simulated-ocean:1:0")


def test_every_sample_passes_the_quality_check() -> None:
    archive = _archive(zipf=0)
    for index in range(60):
        pixels = archive.read(index, "s1")
        check(pixels, archive.sensors["s1"], QualityLimits(max_nodata=0))
        assert pixels.min() > 0
        assert pixels.max() < 1000


# ------------------------------------------------------------------------ its table


def test_the_table_tells_what_was_drawn() -> None:
    archive = _archive(zipf=0)
    table = archive.table().to_pandas()
    ice = table["label"] == "sea ice"
    assert table.loc[ice, ["swh", "wind_speed"]].isna().all(axis=None)
    assert table.loc[~ice, ["swh", "wind_speed"]].notna().all(axis=None)
    assert table["swh"].dropna().between(0.02, 14).all()
    assert table.loc[~ice, "wind_speed"].between(*WINDS).all()
    assert set(table["split"]) == {"train", "val", "test"}
    assert table["id"].is_unique
    assert table["time"].between("2016-01-01", "2021-01-02").all()


def test_beams_have_their_incidence() -> None:
    table = _archive().table().to_pandas()
    for beam, incidence in INCIDENCE.items():
        seen = table.loc[table["mode"] == beam, "incidence"]
        assert 0.4 < len(seen) / len(table) < 0.6
        assert (seen - incidence).abs().max() <= 0.3
    assert set(table["mode"]) == {"WV1", "WV2"}


@pytest.mark.parametrize("zipf", [0.0, 1.0])
def test_classes_follow_zipf_and_every_one_appears(zipf: float) -> None:
    drawn = [draw_conditions(np.random.default_rng(i), zipf).phenomenon.name for i in range(3000)]
    found = [drawn.count(name) for name in NAMES]
    assert min(found) > 50
    assert stats.chisquare(found, phenomenon_shares(zipf) * 3000).pvalue > 1e-3


def test_outlines_are_squares_of_the_vignettes_size() -> None:
    side = 32 * PIXEL
    for row in _archive().table().to_pylist()[:20]:
        square = shapely.from_wkb(row["geometry"])
        metres = math.cos(math.radians(square.centroid.y))
        assert square.area * metres * 111_320**2 == pytest.approx(side**2, rel=0.01)
        assert abs(square.centroid.x) < 179
    tilted = shapely.from_wkb(outline(10, 0, 90, 111_320.0))
    assert tilted.bounds == pytest.approx((9.5, -0.5, 10.5, 0.5), abs=1e-9)


def test_satellites_pass_at_dawn_and_dusk() -> None:
    for row in _archive().table().to_pylist()[:40]:
        longitude = shapely.from_wkb(row["geometry"]).centroid.x
        local = (row["time"].hour + row["time"].minute / 60 + longitude / 15) % 24
        assert min(abs(local - 6), abs(local - 18)) < 0.6


# ------------------------------------------------------------------------ its physics


@pytest.mark.slow
def test_swh_is_four_standard_deviations_of_the_surface() -> None:
    spec = _spec(size=128, zipf=3.0)
    known = SimulatedOceanArchive(spec).table()["swh"].to_pylist()
    ratios = []
    for index in [index for index in range(60) if known[index] is not None][:40]:
        surface = sea_surface(spec, index)
        assert surface.grid.cells * surface.grid.spacing == pytest.approx(128 * PIXEL)
        variance = surface.elevation().var() + surface.unresolved[0]
        ratios.append(16 * variance / known[index] ** 2)
    # A vignette of 6.4 km holds few independent groups of a narrow swell.
    assert np.mean(ratios) == pytest.approx(1, abs=0.08)
    assert 0.4 < min(ratios) <= max(ratios) < 2


def test_mean_sigma0_follows_cmod5n() -> None:
    spec = _spec(size=64, zipf=3.0)
    archive = SimulatedOceanArchive(spec)
    rows = archive.table().to_pylist()
    for index in _of(archive, "pure ocean waves")[:20]:
        row = rows[index]
        expected = cmod5n(row["wind_speed"], row["wind_direction"], incidences(row["incidence"], 64, PIXEL)).mean()
        assert sigma0(spec, index).mean() == pytest.approx(expected, rel=0.02)


def test_pixels_are_what_was_calibrated() -> None:
    quiet = {"looks": 1e8, "nesz": -100.0, "zipf": 0.0}
    archive = _archive(**quiet)
    for index in range(8):
        np.testing.assert_allclose(archive.read(index, "s1")[0], calibrated(archive.spec, index), rtol=1e-3)


def test_calibration_keeps_order_of_wind_and_sea_state_within_its_errors() -> None:
    spec = _spec(zipf=0, samples=300)
    table = SimulatedOceanArchive(spec).table().to_pydict()
    decibels = np.array([10 * np.log10(calibrated(spec, index)) for index in range(300)])
    for target, statistic, least in (("wind_speed", decibels.mean((1, 2)), 0.3), ("swh", decibels.std((1, 2)), 0.2)):
        values = np.array(table[target], dtype=float)
        known = np.isfinite(values)
        assert least < stats.spearmanr(values[known], statistic[known]).statistic < 0.85


@pytest.mark.parametrize("looks", [4.0, 100.0])
def test_speckle_has_the_looks_that_were_set(looks: float) -> None:
    noisy, clean = _archive(looks=looks, nesz=-100.0), _archive(looks=1e8, nesz=-100.0)
    ratio = np.concatenate([(noisy.read(i, "s1") / clean.read(i, "s1")).ravel() for i in range(12)])
    assert ratio.mean() == pytest.approx(1, rel=0.02)
    assert 1 / ratio.var() == pytest.approx(looks, rel=0.06)


def test_noise_fluctuates_without_a_mean() -> None:
    loud, clean = _archive(looks=10.0, nesz=-12.0), _archive(looks=10.0, nesz=-100.0)
    beams = loud.table()["mode"].to_pylist()
    bright = [i for i in _of(loud, "pure ocean waves") if beams[i] == "WV1"][:10]
    means = np.array([[archive.read(i, "s1").mean() for i in bright] for archive in (loud, clean)])
    spreads = np.array([[archive.read(i, "s1").std() for i in bright] for archive in (loud, clean)])
    np.testing.assert_allclose(means[0], means[1], rtol=0.06)
    assert (spreads[0] > spreads[1]).all()


def test_sea_ice_shows_no_wind_and_no_waves() -> None:
    spec = _spec(zipf=0)
    for index in _of(SimulatedOceanArchive(spec), "sea ice")[:3]:
        ice = draw_scenery("sea ice", spec.size, 0.0, generator(Stream.SEA_SCENERY, spec.seed, index)).cover
        np.testing.assert_array_equal(sigma0(spec, index), ice)


@pytest.mark.parametrize("name", NAMES)
def test_scenery_keeps_the_mean_wind_and_is_the_generators(name: str) -> None:
    one, same, other = (draw_scenery(name, 48, 0.7, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.wind.mean() == pytest.approx(1, abs=1e-4)
    assert one.wind.min() > 0
    assert (one.gain > 0).all()
    assert (one.cover >= 0).all()
    for field in ("wind", "gain", "cover"):
        assert getattr(one, field).shape == (48, 48)
        assert getattr(one, field).dtype == np.float32
        np.testing.assert_array_equal(getattr(one, field), getattr(same, field))
    assert any(not np.array_equal(getattr(one, field), getattr(other, field)) for field in ("wind", "gain", "cover"))


@pytest.mark.parametrize("heading", [0.0, 0.9, 2.0])
def test_streaks_lie_along_the_wind(heading: float) -> None:
    tensors = []
    for seed in range(20):
        down, across = np.gradient(draw_scenery("wind streaks", 64, heading, np.random.default_rng(seed)).wind)
        tensors.append([(across**2).mean(), (down**2).mean(), (across * down).mean()])
    xx, yy, xy = np.mean(tensors, axis=0)
    steepest = 0.5 * math.atan2(2 * xy, xx - yy)
    off = (steepest - heading) % math.pi - math.pi / 2
    assert abs(math.degrees(off)) < 8


def test_a_low_wind_area_is_dark_and_an_iceberg_bright() -> None:
    spec = _spec(zipf=0, size=64)
    archive = SimulatedOceanArchive(spec)
    contrast = {
        name: np.median([_range(sigma0(spec, i)) for i in _of(archive, name)[:8]])
        for name in ("low wind area", "pure ocean waves")
    }
    assert contrast["low wind area"] > 3 * contrast["pure ocean waves"]
    peaks = [sigma0(spec, i).max() / np.median(sigma0(spec, i)) for i in _of(archive, "iceberg")[:8]]
    assert np.median(peaks) > 3
    # Spots stay the brightest after calibration.
    for index in _of(archive, "iceberg")[:8]:
        brightest = np.argsort(sigma0(spec, index), axis=None)[-5:]
        assert np.median(stats.rankdata(calibrated(spec, index))[brightest]) > 0.98 * 64**2


def _range(pixels: NDArray[np.float32]) -> float:
    low, high = np.percentile(pixels, (10, 90))
    return float(high / low)


# ------------------------------------------------------------------------ what can be learnt of it


@pytest.mark.slow
def test_simple_statistics_tell_waves_and_wind_better_than_chance_but_hardly_classes() -> None:
    archive = _archive(zipf=0, samples=500, size=48)
    table = archive.table()
    described = np.stack([_describe(archive.read(i, "s1")[0], table["incidence"][i].as_py()) for i in range(500)])
    labels = np.array(table["label"].to_pylist())
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500)).fit(described[:350], labels[:350])
    assert 0.1 < probe.score(described[350:], labels[350:]) < 0.6
    for target, least in (("swh", 0.15), ("wind_speed", 0.15)):
        values = np.array(table[target].to_pylist(), dtype=float)
        known = np.flatnonzero(np.isfinite(values))
        train, test = known[known < 350], known[known >= 350]
        line = make_pipeline(StandardScaler(), Ridge(3.0)).fit(described[train], values[train])
        assert line.score(described[test], values[test]) > least


def _describe(image: NDArray[np.float32], incidence: float) -> list[float]:
    """Moments, percentiles and spectral energies of the logarithm."""
    decibels = 10 * np.log10(image)
    energy = np.abs(np.fft.rfft2(decibels - decibels.mean())) ** 2
    rows, columns = np.abs(np.fft.fftfreq(len(image)))[:, None], np.fft.rfftfreq(len(image))[None, :]
    rings = ((0.02, 0.06), (0.06, 0.12), (0.12, 0.25), (0.25, 0.5))
    spectral = [
        math.log(float(energy[(low <= axis) & (axis < high)].mean()))
        for axis in np.broadcast_arrays(rows, columns)
        for low, high in rings
    ]
    return [*np.percentile(decibels, (1, 10, 50, 90, 99)), decibels.std(), incidence, *spectral]
