from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from small_archives.ssl4eo_s12 import DAYS, scene, write_scene
from terrasieve.archive.layouts.ssl4eo_s12 import PRODUCTS, Ssl4eoS12Archive, Ssl4eoS12Spec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem
from terrasieve.errors import ArchiveError, SampleError

SITES = {"s1": "S1RTC", "s2c": "S2L1C", "s2a": "S2L2A"}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, site: Callable[..., NDArray[Any]]) -> Path:
    """Locations 0 and 7, real pixels plus the number of the season; written in another order than that of dates."""
    root = tmp_path_factory.mktemp("ssl4eo")
    for location, days in (("0000000", DAYS), ("0000007", DAYS[1:3])):
        for key in PRODUCTS:
            real = site(SITES[key], size=264)
            for day in reversed(days):
                later = real + real.dtype.type(DAYS.index(day))
                write_scene(root, key, location, day, lambda place, step, later=later: later[place, ::step, ::step])
    return root


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "copy"))


def opened(root: Path, **options: Any) -> Ssl4eoS12Archive:
    return Ssl4eoS12Archive(Ssl4eoS12Spec(root=root, **options))


@pytest.mark.slow
def test_there_is_a_sample_for_each_location_and_season(published: Path) -> None:
    archive = opened(published)
    assert archive.ids.tolist() == [*(f"0000000/{season}" for season in range(4)), "0000007/0", "0000007/1"]
    rows = archive.table()
    assert rows["location"].to_pylist() == ["0000000"] * 4 + ["0000007"] * 2
    assert rows["season"].to_pylist() == [0, 1, 2, 3, 0, 1]
    assert [time.strftime("%Y%m%d") for time in rows["time"].to_pylist()] == [*DAYS, *DAYS[1:3]]
    assert rows["split"].null_count == rows["label"].null_count == 6
    assert archive.source["seasons_matched"] == "by order of date"


@pytest.mark.parametrize("index", [0, 3, 5])
def test_seasons_are_matched_by_order_of_date(published: Path, site: Callable[..., NDArray[Any]], index: int) -> None:
    archive = opened(published)
    season = (0, 1, 2, 3, 1, 2)[index]
    for key in PRODUCTS:
        pixels = site(SITES[key], size=264)[:1]
        finest = "B02" if key != "s1" else "VV"
        place = PRODUCTS[key].names.index(finest)
        expected = site(SITES[key], size=264)[place : place + 1] + pixels.dtype.type(season)
        np.testing.assert_array_equal(archive.read(index, key, [finest]), expected)


@pytest.mark.parametrize(
    ("key", "band"), [("s2c", "B10"), ("s2c", "B8A"), ("s2a", "B01"), ("s2a", "B12"), ("s1", "VH")]
)
def test_bands_equal_what_rasterio_reads(published: Path, key: str, band: str) -> None:
    path = published / key / "0000000" / scene(key, DAYS[2]) / f"{band.replace('B0', 'B')}.tif"
    with rasterio.open(path) as dataset:
        expected = dataset.read(1, out_shape=(264, 264), resampling=Resampling.bilinear)
    archive = opened(published)
    np.testing.assert_array_equal(archive.read(2, key, [band])[0], expected)
    part = archive.read(2, key, [band], Window(200, 1, 64, 30))[0]
    np.testing.assert_array_equal(part, expected[200:264, 1:31])


def test_the_products_have_their_bands_and_types(published: Path) -> None:
    archive = opened(published)
    shapes = {key: (archive.read(0, key).shape[0], archive.read(0, key).dtype.kind) for key in archive.sensors}
    assert shapes == {"s1": (2, "f"), "s2c": (13, "i"), "s2a": (12, "i")}
    assert archive.table()["crs"].to_pylist()[0] == "EPSG:32632"


def test_one_product_alone_opens(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published / "s2a", tmp_path / "s2a")
    archive = open_archive(tmp_path)
    assert isinstance(archive, Ssl4eoS12Archive)
    assert set(archive.sensors) == {"s2a"}
    assert set(opened(published, sensors=("s2a", "s1")).sensors) == {"s2a", "s1"}


@pytest.mark.parametrize(
    ("gone", "samples", "reason"),
    [
        (f"s1/0000000/{scene('s1', DAYS[0])}", 4, r"3 of s1, 4 of s2c, 4 of s2a"),
        ("s2a/0000007", 2, r"2 of s1, 2 of s2c, 0 of s2a"),
    ],
)
def test_scenes_that_cannot_be_matched_are_rejected(copied: Path, gone: str, samples: int, reason: str) -> None:
    shutil.rmtree(copied / gone)
    archive = opened(copied)
    (rejection,) = archive.rejected
    assert (rejection.id, rejection.problem) == (gone.split("/")[1], Problem.PARTNER)
    assert reason in rejection.reason
    assert (len(archive), rejection.samples) == (6 - samples, samples)


def test_a_scene_without_a_date_is_rejected(copied: Path) -> None:
    (copied / "s2c" / "0000007" / "lost").mkdir()
    archive = opened(copied)
    (rejection,) = archive.rejected
    assert "s2c/0000007/lost states no date" in rejection.reason
    assert len(archive) == 4


@pytest.mark.parametrize("damage", [b"", b"II*\x00noise"])
def test_a_damaged_band_is_named(copied: Path, damage: bytes) -> None:
    (copied / "s2c" / "0000000" / scene("s2c", DAYS[1]) / "B9.tif").write_bytes(damage)
    archive = opened(copied)
    assert archive.read(1, "s2c", ["B8A"]).shape == (1, 264, 264)
    with pytest.raises(SampleError, match=r"0000000/20200604.*/B9\.tif cannot be read"):
        archive.read(1, "s2c")


def test_it_is_recognised_and_others_are_not(published: Path, tmp_path: Path, data_dir: Path) -> None:
    assert [seen.spec.layout for seen in recognise(published)] == ["ssl4eo-s12"]
    (tmp_path / "s1" / "scene").mkdir(parents=True)
    assert recognise(tmp_path) == []
    assert "ssl4eo-s12" not in [seen.spec.layout for seen in recognise(data_dir / "la_texas_pairs")]
    with pytest.raises(ArchiveError, match="holds none of s1, s2c, s2a"):
        opened(tmp_path / "s1")


def test_pickling_keeps_what_is_read(published: Path) -> None:
    archive = opened(published)
    copy = pickle.loads(pickle.dumps(archive))
    np.testing.assert_array_equal(copy.read(5, "s2c"), archive.read(5, "s2c"))
