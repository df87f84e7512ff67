from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from numpy.typing import NDArray

from terrasieve.archive.catalogue import index_archive, read_catalogue
from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.quality.audit import Finding, SuspicionCollector, inspect_sample, suspicions_of
from terrasieve.archive.quality.checks import PixelSummary
from terrasieve.archive.quality.limits import QualityLimits, check
from terrasieve.archive.quality.offset import OffsetVerdict, judge, remove, settle
from terrasieve.archive.quality.suspicion import Kind, Suspicion
from terrasieve.archive.scenes.tiled import ScenesArchive
from terrasieve.sensors import SENSORS, Sensor
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

L1C, L2A, S1 = SENSORS["s2-l1c"], SENSORS["s2-l2a"], SENSORS["s1"]
MS = L1C.select(*(name for name in L1C.names if name != "B8A"), "B8A")
"""The order of files with B8A last."""

# Typical reflectance times 10,000 at the ground, B01 to B12 without B10: USGS spectral library and the literature.
GROUND: Mapping[str, Mapping[str, int]] = {
    "water": dict(zip(L2A.names, (350, 400, 350, 200, 150, 120, 120, 100, 90, 90, 30, 20), strict=True)),
    "forest": dict(zip(L2A.names, (150, 200, 400, 220, 700, 2000, 2500, 2700, 2900, 2900, 1300, 600), strict=True)),
    "desert": dict(
        zip(L2A.names, (1100, 1400, 2100, 2900, 3200, 3400, 3600, 3700, 3900, 3900, 5000, 4500), strict=True)
    ),
    "snow": dict(zip(L2A.names, (9000, 9100, 9000, 8900, 8700, 8500, 8300, 8000, 7500, 6000, 700, 600), strict=True)),
    "cloud": dict(
        zip(L2A.names, (6000, 6000, 5800, 5700, 5700, 5800, 5900, 5900, 5900, 5500, 3500, 2500), strict=True)
    ),
}
CIRRUS = {"water": 15, "forest": 15, "desert": 20, "snow": 120, "cloud": 2500}


def scene(ground: str, sensor: Sensor, offset: int = 0, size: int = 48, seed: int = 0) -> NDArray[np.uint16]:
    """A patch of one ground: all bands but B10 share a pattern, as brightness does."""
    rng = np.random.default_rng(seed)
    pattern = np.clip(rng.normal(1, 0.12, (size, size)), 0.7, 1.4)
    levels = {**GROUND[ground], "B10": CIRRUS[ground]}
    bands = [
        levels[name] * (pattern if name != "B10" else np.ones_like(pattern)) + rng.normal(0, 5, (size, size))
        for name in sensor.names
    ]
    return (np.clip(np.stack(bands), 1, None) + offset).astype(np.uint16)


def kinds(pixels: NDArray[Any], sensor: Sensor) -> list[str]:
    return [kind for kind, *_ in inspect_sample({"x": pixels}, {"x": sensor}).flags]


# ------------------------------------------------------------------------------ offset


@pytest.mark.parametrize("ground", GROUND)
@pytest.mark.parametrize("sensor", [L1C, L2A, MS], ids=["l1c", "l2a", "b8a-last"])
def test_no_ground_without_the_offset_is_said_to_carry_it(ground: str, sensor: Sensor) -> None:
    assert judge(PixelSummary(scene(ground, sensor), sensor)) is not OffsetVerdict.CARRIES


@pytest.mark.parametrize("ground", ["water", "forest", "desert", "snow"])
def test_clear_air_shows_the_offset_in_b10(ground: str) -> None:
    assert judge(PixelSummary(scene(ground, L1C, 1000), L1C)) is OffsetVerdict.CARRIES
    assert judge(PixelSummary(scene(ground, L1C), L1C)) is OffsetVerdict.FREE


@pytest.mark.parametrize("ground", ["water", "forest"])
def test_dark_ground_shows_the_offset_without_b10(ground: str) -> None:
    assert judge(PixelSummary(scene(ground, L2A, 1000), L2A)) is OffsetVerdict.CARRIES
    assert judge(PixelSummary(scene(ground, L2A), L2A)) is OffsetVerdict.FREE


@pytest.mark.parametrize("ground", ["desert", "snow", "cloud"])
def test_bright_ground_without_b10_is_not_guessed(ground: str) -> None:
    assert judge(PixelSummary(scene(ground, L2A, 1000), L2A)) is OffsetVerdict.UNSURE


def test_a_sample_of_almost_nothing_does_not_carry_it() -> None:
    assert judge(PixelSummary(np.full((13, 8, 8), 3, np.uint16), L1C)) is OffsetVerdict.FREE
    with_border = scene("forest", L1C, 1000)
    with_border[:, :4] = 0
    assert judge(PixelSummary(with_border, L1C)) is OffsetVerdict.CARRIES, "nodata is not dark"


def test_an_unsure_sample_follows_its_file_and_no_other() -> None:
    unsure, free, carries = (int(v) for v in (OffsetVerdict.UNSURE, OffsetVerdict.FREE, OffsetVerdict.CARRIES))
    verdicts = np.array([carries, unsure, unsure, free, unsure, unsure, free, carries, unsure], np.int8)
    assets = pa.chunked_array([["a", "a", "b", "b"], ["c", None, None, "d", "a"]])
    assert settle(verdicts, assets).tolist() == [carries, carries, free, free, unsure, unsure, free, carries, carries]


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
def test_removing_keeps_type_nodata_and_what_was_measured(dtype: Any) -> None:
    pixels = np.array([[[0, 400, 1000, 1001, 3000]], [[0, 400, 1000, 1001, 3000]]], dtype)
    lowered = remove(pixels, np.array([True, False]), 0)
    assert lowered.dtype == dtype
    assert lowered[0, 0].tolist() == [0, 1, 1, 1, 2000], "0 is nodata: a measured pixel does not become it"
    assert lowered[1, 0].tolist() == pixels[1, 0].tolist()
    assert remove(pixels, np.array([True, False]), None)[0, 0].tolist() == [0, 0, 0, 1, 2000]


def test_removing_leaves_nan_and_infinities() -> None:
    pixels = np.array([[[np.nan, -np.inf, 2000]]], np.float32)
    np.testing.assert_array_equal(remove(pixels, np.array([True]), 0), [[[np.nan, -np.inf, 1000]]])


# --------------------------------------------------------------------------- one sample


@pytest.mark.parametrize("ground", GROUND)
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("sensor", [L1C, L2A, MS], ids=["l1c", "l2a", "b8a-last"])
def test_sound_pixels_raise_no_suspicion(ground: str, offset: int, sensor: Sensor) -> None:
    assert kinds(scene(ground, sensor, offset), sensor) == []


@pytest.mark.parametrize("ground", ["forest", "desert"])
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize(("said", "true"), [(L1C, MS), (MS, L1C)], ids=["b8a last", "b8a after b08"])
def test_the_other_order_shows_over_land(ground: str, offset: int, said: Sensor, true: Sensor) -> None:
    assert Kind.ORDER in kinds(scene(ground, true, offset), said)


def test_the_other_order_shows_without_b10() -> None:
    rng = np.random.default_rng(1)
    last = L2A.select(*(name for name in L2A.names if name != "B8A"), "B8A")
    pixels = scene("forest", last)
    for name in ("B09", "B11", "B12"):  # coarse bands follow B08 less
        band = pixels[last.names.index(name)]
        band += (rng.normal(0, 0.3, band.shape) * band).clip(0).astype(np.uint16)
    assert Kind.ORDER in kinds(pixels, L2A)
    assert kinds(pixels, last) == []


@pytest.mark.parametrize(
    ("pixels", "sensor", "seen"),
    [
        (np.round(np.random.default_rng(0).normal(-12, 3, (2, 32, 32))).astype(np.float32), S1, "no value of 1,024"),
        (np.random.default_rng(0).normal(0, 1, (2, 32, 32)).astype(np.float32), S1, "brighter than a city"),
        (np.random.default_rng(0).integers(0, 255, (2, 32, 32), np.uint8), SENSORS["s1-linear"], "type is uint8"),
        (np.random.default_rng(0).gamma(4, 60, (2, 32, 32)).astype(np.float32), SENSORS["s1-linear"], "uncalibrated"),
        (np.random.default_rng(0).integers(1, 255, (12, 32, 32), np.uint8), L2A, "picture stretched to 8 bits"),
        (np.random.default_rng(0).uniform(3, 40, (12, 32, 32)).astype(np.float32), L2A, "per cent"),
        (scene("forest", L2A).astype(np.int16) - 1000, L2A, "once too often"),
    ],
)
def test_doubtful_units_pass_the_check_and_are_named(pixels: NDArray[Any], sensor: Sensor, seen: str) -> None:
    check(pixels, sensor, QualityLimits())
    found = [words for kind, _, words in inspect_sample({"x": pixels}, {"x": sensor}).flags if kind == Kind.UNIT]
    assert len(found) == 1
    assert seen in found[0]


def radar(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(-12, 3, (2, 32, 32)).astype(np.float32)


def exchange(pixels: NDArray[Any], sensor: Sensor) -> NDArray[Any]:
    order = list(range(len(sensor.names)))
    blue, red = sensor.names.index("B02"), sensor.names.index("B04")
    order[blue], order[red] = red, blue
    return pixels[order]


@pytest.mark.parametrize("ground", GROUND)
@pytest.mark.parametrize("sensor", [L1C, L2A, MS], ids=["l1c", "l2a", "b8a-last"])
def test_blue_and_red_exchanged_are_seen_but_over_plants(ground: str, sensor: Sensor) -> None:
    pixels = scene(ground, sensor)
    assert Kind.ORDER not in kinds(pixels, sensor)
    assert (Kind.ORDER in kinds(exchange(pixels, sensor), sensor)) == (ground != "forest")


@pytest.mark.parametrize("ground", GROUND)
@pytest.mark.parametrize("factor", [10, 100])
def test_land_as_dark_as_water_is_of_another_scale(ground: str, factor: int) -> None:
    pixels = scene(ground, L2A)
    assert Kind.UNIT not in kinds(pixels, L2A)
    assert (Kind.UNIT in kinds((pixels // factor).astype(pixels.dtype), L2A)) == (ground in ("forest", "desert"))


def test_a_forgotten_nodata_value_is_out_of_range() -> None:
    pixels = radar()
    assert kinds(pixels, S1) == []
    pixels[1, :4] = -9999
    ((kind, _, seen),) = inspect_sample({"x": pixels}, {"x": S1}).flags
    assert (kind, "12.5% of VH" in seen, "-9999" in seen) == (Kind.RANGE, True, True)


def test_missing_pixels_within_the_limit_are_named() -> None:
    pixels = radar()
    pixels[0, 0, 0] = np.nan
    assert kinds(pixels, S1) == [Kind.NODATA]
    optical = scene("forest", L2A)
    optical[0, 0, 0] = 0
    assert kinds(optical, L2A) == [], "a single 0 can be dark ground"
    optical[0, :2] = 0
    assert kinds(optical, L2A) == [Kind.NODATA]


def test_constant_bands_are_named_but_not_in_maps() -> None:
    pixels = radar()
    pixels[1] = -20.5
    assert kinds(pixels, S1) == [Kind.CONSTANT]
    assert kinds(np.full((1, 32, 32), 4, np.uint8), SENSORS["land-cover"]) == []


# -------------------------------------------------------------------------- an archive


def conclude(samples: list[Mapping[str, NDArray[Any]]], sensors: Mapping[str, Sensor]) -> tuple[Suspicion, ...]:
    collector = SuspicionCollector(sensors)
    for position, pixels in enumerate(samples):
        stored = json.loads(json.dumps(inspect_sample(pixels, sensors).record()))
        collector.add(position, Finding.parse(stored))
    names = [f"n{i}" for i in range(len(samples))]
    assets = {f"asset:{key}": [f"{key}/{name}.tif" for name in names] for key in sensors}
    return collector.conclude(pa.table({"id": names, **assets}))


def test_a_mixture_lists_exactly_the_samples_that_carry_the_offset() -> None:
    samples = [{"s2": scene("forest", L1C, 1000 * (i in (1, 4)), seed=i)} for i in range(6)]
    (one,) = conclude(samples, {"s2": L1C})
    assert (one.kind, one.sensor, one.samples, one.total) == (Kind.MIXED_OFFSET, "s2", 2, 6)
    assert (one.ids, one.example, one.asset) == (("n1", "n4"), "n1", "s2/n1.tif")
    assert "B10 has the median 1,01" in one.seen
    assert "4 samples do not carry it" in one.seen
    assert "--harmonise" in one.mend
    assert Suspicion.parse(json.loads(json.dumps(one.summary()))).line() == one.line()


def test_an_archive_that_carries_it_throughout_is_no_mixture() -> None:
    (one,) = conclude([{"s2": scene("water", L2A, 1000, seed=i)} for i in range(3)], {"s2": L2A})
    assert (one.kind, one.samples) == (Kind.OFFSET, 3)
    assert "no band goes below" in one.seen


def test_duplicates_are_the_repeats_and_name_the_original() -> None:
    samples = [{"s1": radar(seed)} for seed in (0, 1, 0, 2, 1, 0)]
    (one,) = conclude(samples, {"s1": S1})
    assert (one.kind, one.ids, one.example) == (Kind.DUPLICATE, ("n2", "n4", "n5"), "n2")
    assert "those of n0" in one.seen


def test_one_sensor_alike_is_no_duplicate_and_equal_maps_are_none() -> None:
    maps = np.ones((1, 32, 32), np.uint8)
    sensors = {"s1": S1, "map": SENSORS["land-cover"]}
    assert conclude([{"s1": radar(seed), "map": maps} for seed in range(3)], sensors) == ()
    two = {"s1": S1, "s2": L2A}
    assert conclude([{"s1": radar(seed), "s2": scene("forest", L2A)} for seed in range(3)], two) == ()


def test_an_empty_archive_has_none() -> None:
    assert conclude([], {"s2": L1C, "s1": S1}) == ()


# ------------------------------------------------------------------------------- files


def test_shifted_grids_are_named(tmp_path: Path, write_tif: Any) -> None:
    sensors, pixels = {"s2": L2A, "s1": S1}, {"s2": scene("forest", L2A, size=32), "s1": radar()}
    assets = {key: str(tmp_path / f"{key}.tif") for key in sensors}
    write_tif(tmp_path / "s2.tif", pixels["s2"])
    write_tif(tmp_path / "s1.tif", pixels["s1"])
    assert inspect_sample(pixels, sensors, assets).flags == []
    write_tif(tmp_path / "s1.tif", pixels["s1"], origin=(500_020.0, 5_000_000.0))
    ((kind, key, seen),) = inspect_sample(pixels, sensors, assets).flags
    assert (kind, key, "up to 20 from those of s2" in seen) == (Kind.GRID, "s1", True)
    write_tif(tmp_path / "s1.tif", pixels["s1"], crs="EPSG:32633")
    assert "EPSG:32633" in inspect_sample(pixels, sensors, assets).flags[0][2]
    write_tif(tmp_path / "s1.tif", pixels["s1"][:, :16, :16], resolution=20.0)
    assert inspect_sample(pixels, sensors, assets).flags == [], "another resolution on the same ground lines up"
    (tmp_path / "s1.tif").unlink()
    assert inspect_sample(pixels, sensors, assets).flags == []


def test_the_catalogue_keeps_suspicions_and_the_list_beside_it_all_ids(tmp_path: Path, write_tif: Any) -> None:
    for number in range(4):
        write_tif(tmp_path / "s2" / f"{number}.tif", scene("forest", L1C, 1000 * (number > 1), 32, number))
    archive = open_archive(scenes_spec_from_options(tmp_path, ["s2=s2-l1c"], tile=16))
    report = index_archive(archive, tmp_path / "c.parquet")
    assert report.samples == 16, "nothing is left out for a suspicion"
    (one,) = report.suspicions
    listed = json.loads(report.listed.read_text())
    assert [Suspicion.parse(entry) for entry in listed] == [one]
    assert one.ids == tuple(name for name in archive.ids.tolist() if name[0] in "23")
    (kept,) = read_catalogue(report.path).suspicions
    assert (kept.summary(), kept.ids) == (one.summary(), ())
    assert suspicions_of(open_archive(report.path)) == (kept,)
    packed = pack(archive, tmp_path / "store")
    assert packed.suspicions == (kept,)
    assert suspicions_of(open_archive(tmp_path / "store")) == (kept,)
    assert json.loads((tmp_path / "store.suspicions.json").read_text()) == listed
    (seen,) = suspicions_of(archive, samples=6)
    assert (seen.kind, seen.total) == (Kind.MIXED_OFFSET, 6)


def test_a_clean_run_leaves_no_old_list(tmp_path: Path) -> None:
    (tmp_path / "c.parquet.suspicions.json").write_text("[1]")
    index_archive(SimulatedArchive(SimulatedSpec(samples=16)), tmp_path / "c.parquet")
    assert json.loads((tmp_path / "c.parquet.suspicions.json").read_text()) == []


def test_real_sites_show_their_offset_and_nothing_else(data_dir: Path, tmp_path: Path) -> None:
    options = ["s2=s2-l1c:S2L1C", "l2a=s2-l2a:S2L2A", "s1=s1:S1RTC", "lulc=land-cover:LULC"]
    archive = ScenesArchive(scenes_spec_from_options(data_dir / "terramesh_sites", options, tile=56))
    found = index_archive(archive, tmp_path / "c.parquet").suspicions
    assert {(one.kind, one.sensor) for one in found} <= {(Kind.MIXED_OFFSET, "s2"), (Kind.MIXED_OFFSET, "l2a")}
    (l1c,) = (one for one in found if one.sensor == "s2")
    assert {name.split("_")[0] for name in l1c.ids} == {"282D", "433D", "609U"}
    assert l1c.samples == 48


def test_real_patches_of_bigearthnet_raise_none(data_dir: Path) -> None:
    assert suspicions_of(open_archive(data_dir / "bigearthnet_sample")) == ()


def test_real_bands_read_in_the_other_order_are_named(data_dir: Path) -> None:
    for path in sorted((data_dir / "terramesh_sites" / "S2L1C").glob("*.tif")):
        with rasterio.open(path) as dataset:
            pixels = dataset.read()
        last = pixels[[L1C.names.index(name) for name in MS.names]]
        assert kinds(pixels, L1C) == []
        assert kinds(last, MS) == []
        assert kinds(last, L1C) == kinds(pixels, MS) == [Kind.ORDER], path.name


def test_real_blue_and_red_exchanged_and_another_scale_are_seen_in_most_tiles_and_nowhere_else(data_dir: Path) -> None:
    seen = {"order": 0, "unit": 0}
    paths = [*(data_dir / "terramesh_sites").glob("S2L*/*.tif")]
    for path in paths:
        sensor = L1C if path.parent.name == "S2L1C" else L2A
        with rasterio.open(path) as dataset:
            pixels = dataset.read()
        for top, left in np.ndindex(3, 3):
            tile = pixels[:, 64 * top : 64 * top + 64, 64 * left : 64 * left + 64]
            assert not {Kind.ORDER, Kind.UNIT} & {Kind(kind) for kind in kinds(tile, sensor)}, path
            seen["order"] += Kind.ORDER in kinds(exchange(tile, sensor), sensor)
            seen["unit"] += Kind.UNIT in kinds(tile // 10, sensor)
    assert len(paths) == 10
    assert min(seen.values()) >= 50, "of 90"
