from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st

from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem
from terrasieve.archive.scenes import tiled as scenes
from terrasieve.archive.scenes.survey import origins, starts
from terrasieve.archive.scenes.tiled import ScenesArchive, ScenesSpec, SensorFolder
from terrasieve.errors import ArchiveError, BandError, SampleError
from terrasieve.sensors import SENSORS


def spec_of(root: Path, tile: int = 16, **options: Any) -> ScenesSpec:
    sensors = {
        "s2": SensorFolder(folder=Path("s2"), sensor="s2-rgb8"),
        "s1": SensorFolder(folder=Path("s1"), sensor="s1-vh8"),
    }
    return ScenesSpec(root=root, sensors=sensors, tile=tile, **options)


@pytest.fixture
def pairs(tmp_path: Path, write_tif: Any, rng: np.random.Generator) -> Path:
    """Four good pairs of 48x32 px, in s2/ and s1/."""
    for name in "abcd":
        write_tif(tmp_path / "s2" / f"{name}.tif", rng.integers(0, 256, (3, 48, 32)).astype(np.uint8))
        write_tif(tmp_path / "s1" / f"{name}.tif", rng.integers(0, 256, (1, 48, 32)).astype(np.uint8))
    return tmp_path


def only_rejection(root: Path, **options: Any) -> Any:
    archive = ScenesArchive(spec_of(root, **options))
    (rejection,) = archive.rejected
    assert len(archive) == 3 * 6
    assert not any(name.startswith(rejection.id + "/") for name in archive.ids)
    return rejection


@given(
    length=st.integers(0, 300),
    tile=st.integers(1, 80),
    stride=st.integers(1, 100),
    edge=st.sampled_from(["drop", "overlap"]),
)
def test_tiles_stay_inside_and_follow_the_stride(
    length: int, tile: int, stride: int, edge: Literal["drop", "overlap"]
) -> None:
    first = starts(length, tile, stride, edge)
    if length < tile:
        assert not len(first)
        return
    assert first[0] == 0
    assert first[-1] + tile <= length
    assert (np.diff(first) > 0).all()
    assert (np.diff(first)[:-1] == stride).all()
    if edge == "overlap":
        assert first[-1] + tile == length
    else:
        assert first[-1] + stride + tile > length


@given(height=st.integers(1, 70), width=st.integers(1, 70), tile=st.integers(1, 30))
def test_tiles_cover_each_pixel_once_up_to_the_remainder(height: int, width: int, tile: int) -> None:
    seen = np.zeros((height, width), int)
    for row, column in origins(height, width, tile, tile):
        seen[row : row + tile, column : column + tile] += 1
    assert (seen[: height // tile * tile, : width // tile * tile] == 1).all()
    assert seen.sum() == (height // tile) * (width // tile) * tile**2


@given(data=st.data(), height=st.integers(8, 60), width=st.integers(8, 60))
def test_overlapping_edges_leave_no_pixel_out(data: st.DataObject, height: int, width: int) -> None:
    tile = data.draw(st.integers(1, min(height, width)))
    stride = data.draw(st.integers(1, tile))
    seen = np.zeros((height, width), bool)
    for row, column in origins(height, width, tile, stride, "overlap"):
        seen[row : row + tile, column : column + tile] = True
    assert seen.all()


@pytest.fixture(scope="module")
def la_texas(data_dir: Path) -> ScenesArchive:
    return ScenesArchive(spec_of(data_dir / "la_texas_pairs", tile=64))


@pytest.fixture(scope="module")
def sites(data_dir: Path) -> ScenesArchive:
    folders = {
        "s2": ("S2L1C", "s2-l1c"),
        "l2a": ("S2L2A", "s2-l2a"),
        "s1": ("S1RTC", "s1"),
        "lc": ("LULC", "land-cover"),
    }
    sensors = {key: SensorFolder(folder=Path(folder), sensor=name) for key, (folder, name) in folders.items()}
    return ScenesArchive(ScenesSpec(root=data_dir / "terramesh_sites", sensors=sensors, tile=112))


def test_la_texas_has_6400_pairs(la_texas: ScenesArchive) -> None:
    assert len(la_texas) == len(set(la_texas.ids)) == 6400
    assert la_texas.rejected == ()
    assert la_texas.ids[17] == "019/64_64"


@pytest.mark.slow
@given(data=st.data())
def test_tiles_equal_what_rasterio_reads(data: st.DataObject, sites: ScenesArchive, data_dir: Path) -> None:
    index = data.draw(st.integers(0, len(sites) - 1))
    key, folder = data.draw(st.sampled_from([("s2", "S2L1C"), ("l2a", "S2L2A"), ("s1", "S1RTC"), ("lc", "LULC")]))
    bands = data.draw(st.lists(st.sampled_from(sites.sensors[key].names), unique=True, min_size=1))
    top, left = data.draw(st.integers(0, 111)), data.draw(st.integers(0, 111))
    height, width = data.draw(st.integers(1, 112 - top)), data.draw(st.integers(1, 112 - left))
    name, _, corner = str(sites.ids[index]).rpartition("/")
    row, column = map(int, corner.split("_"))
    with rasterio.open(data_dir / "terramesh_sites" / folder / f"{name}.tif") as dataset:
        full = dataset.read()[:, row : row + 112, column : column + 112]
    positions = [sites.sensors[key].names.index(band) for band in bands]
    pixels = sites.read(index, key, bands, Window(top, left, height, width))
    np.testing.assert_array_equal(pixels, full[positions, top : top + height, left : left + width])
    assert pixels.dtype == full.dtype


def test_each_tile_lies_where_its_scene_says(la_texas: ScenesArchive, data_dir: Path) -> None:
    table = la_texas.table()
    assert table.column_names[:7] == ["id", "geometry", "time", "label", "split", "crs", "transform"]
    with rasterio.open(data_dir / "la_texas_pairs" / "s2" / "021.tif") as dataset:
        expected = dataset.window_transform(rasterio.windows.Window(768, 128, 64, 64))
        bounds = rasterio.windows.bounds(rasterio.windows.Window(768, 128, 64, 64), dataset.transform)
        lonlat = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *bounds)
    row = table.slice(table["id"].to_pylist().index("021/128_768"), 1).to_pylist()[0]
    np.testing.assert_allclose(row["transform"], tuple(expected)[:6], rtol=1e-12)
    np.testing.assert_allclose(shapely.from_wkb(row["geometry"]).bounds, lonlat, atol=1e-9)
    assert row["crs"] == "EPSG:3395"
    assert row["time"].isoformat() == row["time:s2"].isoformat() == "2020-11-04T18:35:41+00:00"
    assert row["time:s1"] > row["time"]
    assert row["asset:s1"].endswith("s1/021.tif")


def test_no_scene_is_loaded_whole_for_one_tile(la_texas: ScenesArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, Window]] = []

    def spy(path: Path, bands: Any, window: Window, wanted: Any) -> Any:
        asked.append((len(bands), window))
        return np.zeros((len(bands), window.height, window.width))

    monkeypatch.setattr(scenes, "read_window", spy)
    la_texas.read(17, "s2", ["B03"], Window(3, 5, 10, 12))
    assert asked == [(1, Window(67, 69, 10, 12))]


def test_a_pickled_archive_is_small_and_the_same(la_texas: ScenesArchive) -> None:
    la_texas.ids  # noqa: B018  (fills the cache that must not travel)
    data = pickle.dumps(la_texas)
    assert len(data) < 60_000
    copy = pickle.loads(data)
    np.testing.assert_array_equal(copy.read(6399, "s1"), la_texas.read(6399, "s1"))
    assert copy.source == la_texas.source


@pytest.mark.parametrize("index", [-1, 6400])
def test_an_index_outside_is_an_error(la_texas: ScenesArchive, index: int) -> None:
    for call in (lambda: la_texas.read(index, "s2"), lambda: la_texas.shape(index, "s2")):
        with pytest.raises(IndexError, match=rf"sample {index} of an archive of 6400"):
            call()


def test_unknown_sensors_and_bands_are_errors(la_texas: ScenesArchive) -> None:
    with pytest.raises(BandError, match="no sensor 'S2'"):
        la_texas.read(0, "S2")
    with pytest.raises(BandError, match="no band 'B8'"):
        la_texas.read(0, "s2", ["B8"])


def test_a_window_that_leaves_the_tile_is_an_error_though_the_scene_goes_on(la_texas: ScenesArchive) -> None:
    with pytest.raises(SampleError, match=r"leaves tile 019/0_0, which is 64x64"):
        la_texas.read(0, "s2", None, Window(0, 32, 64, 64))


def test_a_subset_is_the_chosen_samples(la_texas: ScenesArchive) -> None:
    subset = SubsetArchive(la_texas, [5000, 3])
    assert subset.ids.tolist() == [la_texas.ids[5000], la_texas.ids[3]] == subset.table()["id"].to_pylist()
    np.testing.assert_array_equal(subset.read(0, "s1"), la_texas.read(5000, "s1"))
    for index in (-1, 2):
        with pytest.raises(IndexError):
            subset.read(index, "s1")
    for index in (-1, 6400):
        with pytest.raises(IndexError):
            SubsetArchive(la_texas, [index])


def test_a_missing_partner_costs_its_scene_only(pairs: Path) -> None:
    (pairs / "s1" / "b.tif").unlink()
    rejection = only_rejection(pairs)
    assert (rejection.id, rejection.sensor, rejection.problem) == ("b", "s1", Problem.PARTNER)
    assert rejection.samples == 6
    assert str(pairs / "s2" / "b.tif") in rejection.reason


def test_a_truncated_header_costs_its_scene_once(pairs: Path) -> None:
    path = pairs / "s2" / "c.tif"
    path.write_bytes(path.read_bytes()[:60])
    rejection = only_rejection(pairs)
    assert (rejection.id, rejection.asset, rejection.problem) == ("c", str(path), Problem.UNREADABLE)
    assert rejection.samples == 6


def test_swapped_sizes_are_mismatched_grids(pairs: Path, write_tif: Any) -> None:
    write_tif(pairs / "s1" / "a.tif", np.ones((1, 32, 48), np.uint8))
    rejection = only_rejection(pairs)
    assert (rejection.id, rejection.problem) == ("a", Problem.GRID)
    assert "48x32" in rejection.reason
    assert "32x48" in rejection.reason


@pytest.mark.parametrize(
    "changed", [{"crs": "EPSG:32633"}, {"origin": (500_010.0, 5_000_000.0)}, {"resolution": 10.01}, {"crs": None}]
)
def test_another_grid_of_the_same_size_is_mismatched(pairs: Path, write_tif: Any, changed: dict[str, Any]) -> None:
    write_tif(pairs / "s1" / "d.tif", np.ones((1, 48, 32), np.uint8), **changed)
    assert only_rejection(pairs).problem is Problem.GRID


def test_a_scene_smaller_than_a_tile_is_not_lost_silently(pairs: Path, write_tif: Any) -> None:
    for key, count in (("s2", 3), ("s1", 1)):
        write_tif(pairs / key / "a.tif", np.ones((count, 8, 32), np.uint8))
    assert "less than a tile of 16" in only_rejection(pairs).reason


@pytest.mark.parametrize(
    ("count", "names", "message"),
    [
        (5, (), r"has 5 bands, sensor 's2-rgb8' has 3"),
        (1, (), r"has 1 bands"),
        (3, ("B02", "B03", "B04"), r"band 1 'B02', sensor 's2-rgb8' has 'B04' there"),
        (3, ("B04", "B03", "B08"), r"band 3 'B08'"),
        (3, ("blue", "green", "red"), r"band 1 'blue'"),
        (3, ("VV", "VH", "VV"), r"band 1 'VV'"),
    ],
)
def test_wrong_missing_or_reordered_bands_are_refused(
    pairs: Path, write_tif: Any, count: int, names: tuple[str, ...], message: str
) -> None:
    write_tif(pairs / "s2" / "a.tif", np.ones((count, 48, 32), np.uint8), names=names)
    rejection = only_rejection(pairs)
    assert (rejection.id, rejection.problem) == ("a", Problem.BANDS)
    assert re.search(message, rejection.reason)


@pytest.mark.parametrize("names", [(), ("B04", "B03", "B02"), ("red", "green", "blue"), ("layer 1", "x", "y")])
def test_descriptions_that_agree_or_say_nothing_are_taken(pairs: Path, write_tif: Any, names: tuple[str, ...]) -> None:
    write_tif(pairs / "s2" / "a.tif", np.ones((3, 48, 32), np.uint8), names=names)
    assert ScenesArchive(spec_of(pairs)).rejected == ()


def test_l1c_files_are_not_taken_for_l2a(data_dir: Path) -> None:
    sensors = {"s2": SensorFolder(folder=Path("S2L1C"), sensor="s2-l2a")}
    with pytest.raises(ArchiveError, match=r"None of the 5 scenes .* has 13 bands, sensor 's2-l2a' has 12"):
        ScenesArchive(ScenesSpec(root=data_dir / "terramesh_sites", sensors=sensors))


def test_a_sensor_whose_order_differs_from_the_file_is_refused(data_dir: Path) -> None:
    names = list(SENSORS["s2-l1c"].names)
    names.append(names.pop(names.index("B8A")))
    sensors = {"s2": SensorFolder(folder=Path("S2L1C"), sensor=SENSORS["s2-l1c"].select(*names))}
    with pytest.raises(ArchiveError, match=r"band 9 'B8A', sensor 's2-l1c' has 'B09' there"):
        ScenesArchive(ScenesSpec(root=data_dir / "terramesh_sites", sensors=sensors))


def test_absent_and_empty_folders_are_named(pairs: Path) -> None:
    sensors = {"s2": SensorFolder(folder=Path("S2"), sensor="s2-rgb8")}
    with pytest.raises(ArchiveError, match=r"S2 of sensor 's2' does not exist; .* holds s1, s2"):
        ScenesArchive(ScenesSpec(root=pairs, sensors=sensors))
    sensors = {"s2": SensorFolder(folder=Path("s2"), sensor="s2-rgb8", pattern="*.jp2")}
    with pytest.raises(ArchiveError, match=r"matches '\*\.jp2' .* end in \.tif"):
        ScenesArchive(ScenesSpec(root=pairs, sensors=sensors))


def test_names_that_carry_the_sensor_match_without_it(tmp_path: Path, write_tif: Any) -> None:
    for key, count in (("s2", 3), ("s1", 1)):
        for patch in (1, 2):
            write_tif(tmp_path / f"roi_{key}_p{patch}.tif", np.full((count, 16, 16), patch, np.uint8))
    sensors = {
        key: SensorFolder(folder=Path("."), sensor=name, pattern=f"*_{key}_*.tif", drop=f"_{key}")
        for key, name in (("s2", "s2-rgb8"), ("s1", "s1-vh8"))
    }
    archive = ScenesArchive(ScenesSpec(root=tmp_path, sensors=sensors, tile=16))
    assert archive.ids.tolist() == ["roi_p1/0_0", "roi_p2/0_0"]
    assert archive.read(1, "s1").max() == 2


def geometry_scene(tmp_path: Path, write_tif: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    optical = write_tif(tmp_path / "s2" / "optical.tif", rng.integers(0, 256, (3, 64, 64)).astype(np.uint8))
    origin = (500_000.0 + 160, 5_000_000.0 - 320)
    other = rng.integers(0, 256, (1, 64, 80)).astype(np.uint8)
    return optical, write_tif(tmp_path / "s1" / "radar.tif", other, origin=origin)


def test_matching_by_geometry_tiles_the_overlap(tmp_path: Path, write_tif: Any, rng: np.random.Generator) -> None:
    optical, other = geometry_scene(tmp_path, write_tif, rng)
    archive = ScenesArchive(spec_of(tmp_path, match="geometry"))
    assert archive.ids.tolist() == [f"optical/{row}_{column}" for row in (0, 16) for column in (0, 16, 32)]
    np.testing.assert_array_equal(archive.read(4, "s2"), optical[:, 48:64, 32:48])
    np.testing.assert_array_equal(archive.read(4, "s1"), other[:, 16:32, 16:32])
    transform = archive.table()["transform"][4].as_py()
    assert transform == [10, 0, 500_000 + 320, 0, -10, 5_000_000 - 480]


def test_partners_that_only_touch_do_not_overlap(tmp_path: Path, write_tif: Any) -> None:
    write_tif(tmp_path / "s2" / "a.tif", np.ones((3, 32, 32), np.uint8))
    write_tif(tmp_path / "s1" / "a.tif", np.ones((1, 32, 32), np.uint8), origin=(500_320.0, 5_000_000.0))
    with pytest.raises(ArchiveError, match="no readable file of sensor 's1' that overlaps it"):
        ScenesArchive(spec_of(tmp_path, match="geometry"))


def test_half_a_pixel_apart_is_not_congruent(tmp_path: Path, write_tif: Any) -> None:
    write_tif(tmp_path / "s2" / "a.tif", np.ones((3, 32, 32), np.uint8))
    write_tif(tmp_path / "s1" / "a.tif", np.ones((1, 32, 32), np.uint8), origin=(500_005.0, 5_000_000.0))
    with pytest.raises(ArchiveError, match="not on the pixel grid"):
        ScenesArchive(spec_of(tmp_path, match="geometry"))


def test_two_partners_make_two_scenes(tmp_path: Path, write_tif: Any) -> None:
    write_tif(tmp_path / "s2" / "a.tif", np.ones((3, 32, 32), np.uint8))
    for name, value, shift in (("left", 1, -160), ("right", 2, 160)):
        pixels = np.full((1, 32, 32), value, np.uint8)
        write_tif(tmp_path / "s1" / f"{name}.tif", pixels, origin=(500_000.0 + shift, 5_000_000.0))
    archive = ScenesArchive(spec_of(tmp_path, match="geometry"))
    assert archive.ids.tolist() == ["a+left/0_0", "a+left/16_0", "a+right/0_0", "a+right/16_0"]
    assert [int(archive.read(i, "s1").max()) for i in range(4)] == [1, 1, 2, 2]


def test_the_fingerprint_follows_the_files(pairs: Path, write_tif: Any) -> None:
    before = ScenesArchive(spec_of(pairs)).source["fingerprint"]
    assert ScenesArchive(spec_of(pairs)).source["fingerprint"] == before
    write_tif(pairs / "s1" / "e.tif", np.ones((1, 48, 32), np.uint8))
    write_tif(pairs / "s2" / "e.tif", np.ones((3, 48, 32), np.uint8))
    assert ScenesArchive(spec_of(pairs)).source["fingerprint"] != before


def test_stride_makes_overlapping_tiles(pairs: Path) -> None:
    archive = ScenesArchive(spec_of(pairs, tile=16, stride=8))
    assert len(archive) == 4 * 5 * 3
    first, second = archive.read(0, "s2"), archive.read(1, "s2")
    np.testing.assert_array_equal(first[:, :, 8:], second[:, :, :8])


@pytest.fixture
def dated(tmp_path: Path, write_tif: Any) -> Path:
    """Radar of one place at three times, and optical pixels between the first two; a second place has no time."""
    pixels = np.ones((3, 32, 32), np.uint8)
    for name, left in [("a_20200601", 0), ("b", 64)]:
        write_tif(tmp_path / "s2" / f"{name}.tif", pixels, origin=(500_000.0 + 10 * left, 5_000_000.0))
    for name, left in [("a_20200604", 0), ("a_20200620", 0), ("a_20180601", 0), ("b_20200601", 64)]:
        write_tif(tmp_path / "s1" / f"{name}.tif", pixels[:1], origin=(500_000.0 + 10 * left, 5_000_000.0))
    return tmp_path


def test_partners_are_as_near_in_time_as_is_asked_for(dated: Path) -> None:
    everything = ScenesArchive(spec_of(dated, match="geometry"))
    days = ("20180601", "20200604", "20200620")
    assert [one.name for one in everything.scenes] == [*(f"a_20200601+a_{day}" for day in days), "b"]
    near = ScenesArchive(spec_of(dated, match="geometry", max_days=5))
    assert [one.name for one in near.scenes] == ["a_20200601+a_20200604"]
    (rejected,) = near.rejected
    assert rejected.id == "b"
    assert "b.tif does not state when it was taken" in rejected.reason
    for limit, count in [(3, 1), (19, 2), (800, 3)]:
        assert len(ScenesArchive(spec_of(dated, match="geometry", max_days=limit)).scenes) == count


def test_a_place_without_a_partner_in_time_is_said_to_be_lost(dated: Path) -> None:
    (dated / "s1" / "a_20200604.tif").unlink()
    with pytest.raises(ArchiveError, match=r"was taken (19\.0|731\.0) days from its partner .*the limit is 5"):
        ScenesArchive(spec_of(dated, match="geometry", max_days=5))
