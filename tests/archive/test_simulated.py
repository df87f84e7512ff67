"""The simulated archive: reproducible, and in the relations that real imagery shows."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import QualityLimits, check
from terrasieve.errors import BandError, SampleError
from terrasieve.sensors import SENSORS
from terrasieve.simulation.fields import random_field
from terrasieve.simulation.imaging import OpticalSettings, draw_sun, light_up, scatter_back, see_optical, speckle
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec
from terrasieve.simulation.land_forms import draw_form
from terrasieve.simulation.landscape import Landscape, cover_shares, make_landscape
from terrasieve.simulation.signatures import COVERS, MATERIALS
from terrasieve.streams import Owner, Stream, generator

NAMES = [cover.name for cover in COVERS]
SMALL = {"size": 32, "samples": 300}


def _archive(**settings: float) -> SimulatedArchive:
    return SimulatedArchive(SimulatedSpec(**{**SMALL, **settings}))


def _flat(cover: str, state: float = 0.5, size: int = 64) -> Landscape:
    """Level ground under one cover, without texture."""
    empty = np.zeros((size, size), dtype=np.float32)
    return Landscape(
        cover=np.full((size, size), NAMES.index(cover), dtype=np.uint8),
        state=np.full((size, size), state, dtype=np.float32),
        brightness=empty,
        roughness=empty,
        slope_y=empty,
        slope_x=empty,
    )


def _seen(ground: Landscape, settings: OpticalSettings, seed: int) -> NDArray[np.uint16]:
    """The ground in its own colours."""
    rng = np.random.default_rng(seed)
    sun = draw_sun(settings.day, rng)
    return see_optical(light_up(ground, settings.day, sun), settings, sun, rng)


def _bands(pixels: NDArray[np.uint16], *names: str) -> list[float]:
    return [float(pixels[i].mean()) for i in SENSORS["s2-l2a"].indices(names)]


# ------------------------------------------------------------------------ reproducible


def test_a_sample_depends_on_seed_and_index_only() -> None:
    one, other, more = _archive(seed=4), _archive(seed=4), _archive(seed=4, samples=1000)
    forwards = {(i, key): one.read(i, key) for i in range(8) for key in one.sensors}
    for i, key in reversed(list(forwards)):
        np.testing.assert_array_equal(other.read(i, key), forwards[i, key])
        np.testing.assert_array_equal(more.read(i, key), forwards[i, key])
    assert one.table().equals(more.table().slice(0, 300))


def test_seeds_and_indices_differ() -> None:
    seen = [_archive(seed=seed, redundancy=0).read(i, "s2") for seed in (0, 1) for i in (0, 1)]
    assert len({pixels.tobytes() for pixels in seen}) == 4


def test_what_is_drawn_for_one_purpose_tells_nothing_of_another() -> None:
    """Whether a sample is cloudy, a copy or a test sample must not depend on its season or ground."""
    purposes = [stream for stream in Stream if stream.value.owner is Owner.LAND]
    assert len(purposes) == 9
    drawn = np.array([[generator(purpose, 0, i).random() for purpose in purposes] for i in range(400)])
    off_diagonal = np.corrcoef(drawn.T)[~np.eye(9, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.25
    assert len(np.unique(drawn)) == drawn.size


def test_pickle_and_caller_cannot_change_it() -> None:
    archive = _archive()
    before = archive.read(3, "s1")
    archive.read(3, "s1")[:] = 0
    archive.read(3, "s1", window=Window(0, 0, 4, 4))[:] = 0
    np.testing.assert_array_equal(archive.read(3, "s1"), before)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(archive)).read(3, "s1"), before)


def test_bands_and_window() -> None:
    archive = _archive()
    whole = archive.read(2, "s2")
    np.testing.assert_array_equal(archive.read(2, "s2", ("B04", "B02"), Window(3, 4, 5, 6)), whole[[3, 1], 3:8, 4:10])
    with pytest.raises(SampleError, match="leaves sample 2"):
        archive.read(2, "s2", None, Window(30, 0, 3, 3))
    with pytest.raises(BandError, match="no sensor"):
        archive.read(0, "s3")
    with pytest.raises(IndexError):
        archive.read(300, "s2")


def test_it_says_that_it_is_simulated_and_opens_by_name() -> None:
    archive = open_archive("simulated:7:12")
    assert (len(archive), archive.source["simulated"], archive.source["options"]["seed"]) == (12, True, 7)
    assert archive.source["fingerprint"] != open_archive("simulated:8:12").source["fingerprint"]


def test_every_sample_passes_the_quality_check() -> None:
    archive = _archive(cloudy=0.5)
    for index in range(30):
        for key, sensor in archive.sensors.items():
            pixels = archive.read(index, key)
            check(pixels, sensor, QualityLimits(max_nodata=0))
            low, high = sensor.bands[0].valid_range
            assert low <= pixels.min() <= pixels.max() <= high


# ------------------------------------------------------------------------ distribution


@pytest.mark.parametrize("size", [32, 64])
def test_the_label_covers_more_than_half(size: int) -> None:
    archive = _archive(size=size)
    labels = archive.table()["label"].to_pylist()
    for index in range(60):
        shares = np.bincount(archive.read(index, "land_cover").ravel(), minlength=len(COVERS)) / size**2
        assert NAMES[int(shares.argmax())] == labels[index]
        assert shares.max() > 0.5


@pytest.mark.parametrize("zipf", [0.0, 1.0, 1.8])
def test_labels_follow_zipf(zipf: float) -> None:
    archive = _archive(samples=3000, zipf=zipf, redundancy=0)
    labels = archive.table()["label"].to_pylist()
    found = [labels.count(name) for name in NAMES]
    ranks = np.arange(1, len(NAMES) + 1)
    expected = ranks**-zipf / np.sum(ranks**-zipf)
    assert stats.chisquare(found, expected * 3000).pvalue > 1e-3
    np.testing.assert_allclose(cover_shares(zipf), expected)


@pytest.mark.slow
@pytest.mark.parametrize("redundancy", [0.0, 0.5])
def test_copies_are_as_frequent_as_set_and_share_label_and_split(redundancy: float) -> None:
    table = _archive(samples=2000, redundancy=redundancy).table().to_pandas()
    copies = (table["scene"] != table["id"]).mean()
    assert copies == pytest.approx(redundancy, abs=0.05)
    assert (table.groupby("scene")[["label", "split"]].nunique() == 1).all(axis=None)
    assert (table.groupby("scene")["time"].agg(np.ptp).dt.days <= 10).all()


def test_a_copy_shows_the_overlap_with_its_scene_pixel_by_pixel() -> None:
    archive = _archive(redundancy=0.5)
    rows = archive.table().to_pylist()
    position = {row["id"]: index for index, row in enumerate(rows)}
    checked = 0
    for index, row in enumerate(rows[:40]):
        scene = position[row["scene"]]
        right = round((row["transform"][2] - rows[scene]["transform"][2]) / 10)
        down = round((rows[scene]["transform"][5] - row["transform"][5]) / 10)
        if scene == index or max(abs(right), abs(down)) >= 32:
            continue
        first, second = archive.read(scene, "land_cover")[0], archive.read(index, "land_cover")[0]
        top, left = max(0, down), max(0, right)
        height, width = 32 - abs(down), 32 - abs(right)
        shown = second[top - down : top - down + height, left - right : left - right + width]
        np.testing.assert_array_equal(first[top : top + height, left : left + width], shown)
        assert not np.array_equal(archive.read(scene, "s1"), archive.read(index, "s1"))
        checked += 1
    assert checked > 5


def test_outlines_lie_where_the_transform_says() -> None:
    table = _archive(samples=5, redundancy=0).table()
    for row in table.to_pylist():
        outline = shapely.from_wkb(row["geometry"])
        assert 5 < outline.centroid.x < 13
        assert 48 < outline.centroid.y < 52
        side = 32 * 10 / 111_320
        assert outline.bounds[3] - outline.bounds[1] == pytest.approx(side, rel=0.1)


# ------------------------------------------------------------------------ physics


@pytest.mark.parametrize("looks", [1.0, 4.4, 12.0])
def test_speckle_has_the_looks_that_were_set(looks: float) -> None:
    intensity = speckle(np.full((400, 400), 0.05, dtype=np.float32), looks, np.random.default_rng(1))
    assert intensity.mean() == pytest.approx(0.05, rel=0.02)
    assert intensity.mean() ** 2 / intensity.var() == pytest.approx(looks, rel=0.05)
    reference = stats.gamma(looks, scale=0.05 / looks).cdf
    assert stats.kstest(intensity.ravel()[:4000].astype(float), reference).pvalue > 1e-3


@pytest.mark.parametrize("looks", [2.0, 8.0])
def test_archive_has_the_looks_that_were_set_where_the_ground_is_even(looks: float) -> None:
    """The ratio of two acquisitions of one ground cancels the ground; its spread tells the looks."""
    archive = _archive(looks=looks, samples=40, size=64)
    varied = _archive(looks=1e6, samples=40, size=64)
    logs = np.concatenate([(archive.read(i, "s1") - varied.read(i, "s1")).ravel() for i in range(12)])
    # Variance of the logarithm of a gamma variate of shape L is trigamma(L).
    expected = (10 / np.log(10)) ** 2 * float(stats.loggamma(looks).var())
    assert logs.var() == pytest.approx(expected, rel=0.05)


def test_materials_keep_the_known_relations() -> None:
    bands = SENSORS["s2-l2a"].names
    spectrum = {name: dict(zip(bands, values, strict=True)) for name, values in MATERIALS.items()}
    for name in ("broad leaves", "needles", "grass", "crop"):
        assert _ndvi(spectrum[name]) > 0.6
        assert spectrum[name]["B03"] > spectrum[name]["B04"]
    for name in ("bright soil", "dark soil", "asphalt", "concrete"):
        assert 0 < _ndvi(spectrum[name]) < 0.3
    for name in ("clear water", "turbid water"):
        assert spectrum[name]["B08"] < spectrum[name]["B04"] < spectrum[name]["B03"]
    assert spectrum["snow"]["B11"] < 0.2 < spectrum["snow"]["B03"]
    for cover in COVERS:
        assert sum(cover.low.values()) == pytest.approx(1)
        assert sum(cover.high.values()) == pytest.approx(1)


def _ndvi(spectrum: dict[str, float]) -> float:
    return (spectrum["B08"] - spectrum["B04"]) / (spectrum["B08"] + spectrum["B04"])


def test_images_keep_them_too() -> None:
    summer = OpticalSettings(day=195, snr=100, cloud_cover=0)
    seen = {name: _seen(_flat(name), summer, 2) for name in NAMES}
    ndvi = {}
    for name, pixels in seen.items():
        red, nir = _bands(pixels, "B04", "B08")
        ndvi[name] = (nir - red) / (nir + red)
    assert min(ndvi[n] for n in ("broadleaved forest", "coniferous forest", "grassland")) > ndvi["bare soil"] + 0.2
    assert ndvi["water"] < 0
    winter = OpticalSettings(day=15, snr=100, cloud_cover=0)
    red, nir = _bands(_seen(_flat("cropland", 1.0), winter, 2), "B04", "B08")
    assert (nir - red) / (nir + red) < ndvi["cropland"]


@pytest.mark.parametrize("snr", [20.0, 200.0])
def test_noise_has_the_ratio_that_was_set(snr: float) -> None:
    pixels = _seen(_flat("bare soil"), OpticalSettings(day=195, snr=snr, cloud_cover=0), 3)
    for band in pixels.astype(np.float64):
        reflectance = band.mean() / 10_000
        expected = 10_000 * np.sqrt(reflectance * 0.1) / snr
        assert band.std() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("cover", [0.1, 0.4])
def test_clouds_hide_the_share_that_was_set(cover: float) -> None:
    ground = _flat("water")
    clear, cloudy = (_seen(ground, OpticalSettings(195, 1e6, c), 4).astype(int) for c in (0, cover))
    blue = SENSORS["s2-l2a"].indices(("B02",))[0]
    assert (cloudy[blue] > 1.3 * clear[blue].mean() + 300).mean() == pytest.approx(cover, abs=0.06)


def test_clouds_cast_shadows() -> None:
    nir = SENSORS["s2-l2a"].indices(("B08",))[0]
    clear, cloudy = (_seen(_flat("bare soil"), OpticalSettings(195, 1e6, c), 4)[nir].astype(int) for c in (0, 0.3))
    assert 0.02 < (cloudy < 0.6 * clear.mean()).mean() < 0.31


def test_slopes_towards_the_sun_are_brighter() -> None:
    flat = _flat("bare soil")
    settings = OpticalSettings(day=60, snr=1e6, cloud_cover=0)
    south, north = (
        _seen(Landscape(**{**vars(flat), "slope_y": flat.slope_y + rise}), settings, 5) for rise in (-0.2, 0.2)
    )
    assert south.mean() > 1.1 * north.mean()


def test_covers_differ_in_radar_as_they_should() -> None:
    power: dict[int, list[float]] = {}
    for seed in range(100):
        ground = make_landscape(np.random.default_rng(seed), 32, 0.0)
        decibels = scatter_back(ground, 195, np.random.default_rng(seed))
        main = int(np.bincount(ground.cover.ravel()).argmax())
        power.setdefault(main, []).append(float(np.median(decibels[0][ground.cover == main])))
        assert (decibels[0] > decibels[1]).all()
    mean = {NAMES[number]: float(np.mean(values)) for number, values in power.items()}
    assert mean["water"] < mean["bare soil"] < mean["broadleaved forest"] < mean["urban"]


@given(seed=st.integers(0, 2**32), length=st.floats(0.5, 6))
@settings(deadline=None, max_examples=15)
def test_random_fields_are_standard_and_correlated_as_said(seed: int, length: float) -> None:
    field = random_field(np.random.default_rng(seed), 64, length)
    assert (field.mean(), field.std()) == pytest.approx((0, 1), abs=1e-3)


def test_correlation_of_random_fields_falls_as_said() -> None:
    rng = np.random.default_rng(0)
    for length in (2, 4):
        products = [np.mean(f * np.roll(f, length, 0)) for f in (random_field(rng, 128, length) for _ in range(30))]
        assert np.mean(products) == pytest.approx(np.exp(-1 / 4), abs=0.05)


@pytest.mark.parametrize("cover", NAMES)
def test_forms_are_standard_periodic_and_the_generators(cover: str) -> None:
    cells = np.arange(64)[:, None] // 16 * 4 + np.arange(64)[None, :] // 16
    one, same, other = (draw_form(cover, np.random.default_rng(seed), cells) for seed in (1, 1, 2))
    assert (one.mean(), one.std()) == pytest.approx((0, 1), abs=1e-3)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    forms = [draw_form(cover, np.random.default_rng(seed), cells) for seed in range(12)]
    # Where the edges meet, a form changes no more than anywhere else.
    seam = np.mean([np.abs(form[0] - form[-1]).mean() for form in forms])
    inside = np.mean([np.abs(form[48] - form[47]).mean() for form in forms])
    assert seam < 1.5 * inside
