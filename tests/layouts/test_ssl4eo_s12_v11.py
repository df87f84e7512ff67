from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from small_archives.ssl4eo_s12_v11 import file, named, write_store
from terrasieve.archive.layouts.ssl4eo_s12_v11 import FOLDERS, Ssl4eoS12V11Archive, Ssl4eoS12V11Spec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem
from terrasieve.errors import ArchiveError, SampleError

SITES = {"s1": "S1RTC", "s2c": "S2L1C", "s2a": "S2L2A"}
TYPES = {"s1": np.float16, "s2c": np.int16, "s2a": np.int16, "s2rgb": np.uint8}
LOCATIONS = {"train": ("0080717", "0060573"), "val": ("0000173",)}


@pytest.fixture(scope="module")
def pixels(site: Callable[..., NDArray[Any]]) -> Callable[[str, int], NDArray[Any]]:
    """Real pixels of a product for some locations, each season and location brighter than the one before."""

    def make(key: str, n: int) -> NDArray[Any]:
        whole = site(SITES[key], size=264) if key in SITES else site("S2L2A", size=264)[[3, 2, 1]] // 20
        steps = np.arange(4 * n).reshape(n, 4, 1, 1, 1)
        return (whole[None, None] + steps).astype(TYPES[key])

    return make


@pytest.fixture(scope="module", params=[64, 1], ids=["many a chunk", "one a chunk"])
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pixels: Callable[..., NDArray[Any]]
) -> Path:
    root = tmp_path_factory.mktemp("ssl4eo")
    for split, names in LOCATIONS.items():
        for key in FOLDERS:
            write_store(root / file(split, key), names, named(key), pixels(key, len(names)), request.param)
    return root


@pytest.fixture
def small(tmp_path: Path, pixels: Callable[..., NDArray[Any]]) -> Path:
    """One split, two sensors."""
    for key in ("s1", "s2a"):
        write_store(tmp_path / file("train", key), LOCATIONS["train"], named(key), pixels(key, 2), 64)
    return tmp_path


def opened(root: Path, **options: Any) -> Ssl4eoS12V11Archive:
    return Ssl4eoS12V11Archive(Ssl4eoS12V11Spec(root=root, **options))


def test_there_is_a_sample_for_each_location_and_season(published: Path) -> None:
    archive = opened(published)
    rows = {row["id"]: row for row in archive.table().to_pylist()}
    assert len(rows) == len(archive) == 12
    assert set(rows) == {f"{name}_{t}" for names in LOCATIONS.values() for name in names for t in range(4)}
    row = rows["0060573_2"]
    assert (row["location"], row["season"], row["split"]) == ("0060573", 2, "train")
    assert row["time"].isoformat() == "2020-09-17T02:30:01+00:00"
    assert rows["0000173_0"]["split"] == "val"
    assert row["crs"] == "EPSG:32632"
    assert row["transform"] == [10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0]
    assert row["geometry"] is not None


@pytest.mark.parametrize("key", list(FOLDERS))
def test_values_are_those_that_zarr_reads(published: Path, key: str) -> None:
    archive = opened(published, sensors=tuple(FOLDERS))
    store = ZipStore(published / file("train", key), mode="r")
    stored = zarr.open_group(store, mode="r")["bands"]
    for place, name in enumerate(LOCATIONS["train"]):
        for season in (3, 0):
            index = archive.ids.tolist().index(f"{name}_{season}")
            found = archive.read(index, key)
            assert found.dtype == TYPES[key]
            np.testing.assert_array_equal(found, stored[place, season])
            bands = list(reversed(archive.sensors[key].names))
            part = archive.read(index, key, bands, Window(7, 200, 20, 64))
            np.testing.assert_array_equal(part, stored[place, season][::-1, 7:27, 200:264])
    store.close()


def test_the_picture_is_left_out_unless_asked_for(published: Path) -> None:
    assert set(opened(published).sensors) == {"s1", "s2c", "s2a"}
    assert opened(published).source["offset"] == {"s2c": 1000, "s2a": 1000}
    assert opened(published, sensors=("s1",)).source["offset"] == {}


def test_a_pass_in_order_stays_in_one_season_of_a_store(published: Path) -> None:
    seasons = opened(published).table()["season"].to_pylist()[:8]
    assert seasons == [0, 0, 1, 1, 2, 2, 3, 3]


def test_locations_are_matched_by_name(tmp_path: Path, pixels: Callable[..., NDArray[Any]]) -> None:
    write_store(tmp_path / file("train", "s2a"), ("a", "b"), named("s2a"), pixels("s2a", 2), 64)
    write_store(tmp_path / file("train", "s1"), ("b", "c"), named("s1"), pixels("s1", 2), 64)
    archive = opened(tmp_path)
    assert archive.ids.tolist() == [f"b_{season}" for season in range(4)]
    np.testing.assert_array_equal(archive.read(1, "s1"), pixels("s1", 2)[0, 1])
    np.testing.assert_array_equal(archive.read(1, "s2a"), pixels("s2a", 2)[1, 1])
    assert [(one.id, one.sensor, one.problem, one.samples) for one in archive.rejected] == [
        ("a", "s1", Problem.PARTNER, 4),
        ("c", "s2a", Problem.PARTNER, 4),
    ]


@pytest.mark.parametrize(
    ("key", "bands", "message"),
    [
        ("s1", ["vh", "vv"], r"S1GRD/.*\.zip holds the bands vh, vv, sensor 's1' has VV, VH"),
        ("s2rgb", ["B", "G", "R"], r"S2RGB/.*holds the bands B, G, R"),
    ],
)
def test_bands_in_another_order_are_refused(
    tmp_path: Path, pixels: Callable[..., NDArray[Any]], key: str, bands: list[str], message: str
) -> None:
    write_store(tmp_path / file("val", key), ("a",), bands, pixels(key, 1), 1)
    with pytest.raises(SampleError, match=message):
        opened(tmp_path).read(0, key)


@pytest.mark.parametrize("names", [["red", "green", "blue"], ["B4", "B3", "B2"], ["B04", "B03", "B02"]])
def test_bands_may_go_by_their_other_names(
    tmp_path: Path, pixels: Callable[..., NDArray[Any]], names: list[str]
) -> None:
    write_store(tmp_path / file("val", "s2rgb"), ("a",), names, pixels("s2rgb", 1), 1)
    np.testing.assert_array_equal(opened(tmp_path).read(2, "s2rgb"), pixels("s2rgb", 1)[0, 2])


def test_a_store_of_another_size_is_refused(tmp_path: Path, pixels: Callable[..., NDArray[Any]]) -> None:
    write_store(tmp_path / file("val", "s1"), ("a",), ["vv", "vh"], pixels("s1", 1)[..., :128, :128], 1)
    with pytest.raises(SampleError, match=r"\.zarr\.zip is 128x128 px, patches of this layout are 264x264"):
        opened(tmp_path).read(0, "s1")


def test_a_store_with_fewer_names_than_pixels_is_rejected(small: Path, pixels: Callable[..., NDArray[Any]]) -> None:
    for key in ("s1", "s2a"):
        path = small / file("train", key).replace("000001", "000002")
        store = ZipStore(path, mode="w")
        group = zarr.open_group(store, mode="w", zarr_format=2)
        group.create_array("bands", data=pixels(key, 1))
        group.create_array("sample", data=np.array(["a", "b"]))
        store.close()
    archive = opened(small)
    (rejection,) = archive.rejected
    assert "000002.zarr.zip has names of 2 samples, pixels of 1." in rejection.reason
    assert (rejection.problem, len(archive)) == (Problem.GRID, 8)


def test_an_absent_store_is_a_rejection_of_all_it_holds(small: Path, pixels: Callable[..., NDArray[Any]]) -> None:
    more = small / file("train", "s1").replace("000001", "000002")
    write_store(more, ("z",), named("s1"), pixels("s1", 1), 1)
    archive = opened(small)
    (rejection,) = archive.rejected
    assert "000002.zarr.zip is absent" in rejection.reason
    assert (rejection.problem, rejection.samples, len(archive)) == (Problem.PARTNER, 256, 8)


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_truncated_store_is_rejected_by_name(small: Path, keep: float, pixels: Callable[..., NDArray[Any]]) -> None:
    path = small / file("train", "s1").replace("000001", "000002")
    shutil.copy(small / file("train", "s1"), path)
    shutil.copy(small / file("train", "s2a"), small / file("train", "s2a").replace("000001", "000002"))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    archive = opened(small)
    (rejection,) = archive.rejected
    assert f"{path} cannot be read" in rejection.reason
    assert (rejection.problem, rejection.asset, len(archive)) == (Problem.UNREADABLE, str(path), 8)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_of_pixels_are_noticed(small: Path, seed: int) -> None:
    path = small / file("train", "s2a")
    with zipfile.ZipFile(path) as file_:
        (chunk,) = [one for one in file_.infolist() if one.filename == "bands/0.2.0.0.0"]
    data = bytearray(path.read_bytes())
    place = chunk.header_offset + 60 + int(np.random.default_rng(seed).integers(chunk.compress_size - 60))
    data[place] ^= 0x10
    path.write_bytes(bytes(data))
    archive = opened(small)
    assert archive.read(0, "s2a").shape == (12, 264, 264)
    with pytest.raises(SampleError, match=r"S2L2A/ssl4eos12_train_seasonal_data_000001\.zarr\.zip cannot be read"):
        archive.read(4, "s2a")


def test_a_window_beyond_the_patch_is_refused(small: Path) -> None:
    with pytest.raises(SampleError, match=r"leaves sample 0 in .*\.zarr\.zip, which is 264x264"):
        opened(small).read(0, "s1", None, Window(0, 200, 1, 65))


def test_it_is_recognised_by_its_names(published: Path, tmp_path: Path) -> None:
    assert [(seen.spec.layout, seen.confidence) for seen in recognise(published)] == [("ssl4eo-s12-v1.1", 1.0)]
    assert isinstance(open_archive(published), Ssl4eoS12V11Archive)
    (tmp_path / "train" / "S1GRD").mkdir(parents=True)
    (tmp_path / "train" / "S1GRD" / "other.zarr.zip").write_bytes(b"")
    assert recognise(tmp_path) == []
    with pytest.raises(ArchiveError, match="holds no train or val"):
        opened(tmp_path / "train")


def test_pickling_keeps_what_is_read(small: Path) -> None:
    archive = opened(small)
    expected = archive.read(3, "s2a")
    copy = pickle.loads(pickle.dumps(archive))
    np.testing.assert_array_equal(copy.read(3, "s2a"), expected)


def test_a_forked_worker_reads_the_same(small: Path) -> None:
    archive = opened(small)
    expected = archive.read(5, "s1")
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        found = pool.submit(archive.read, 5, "s1").result(timeout=60)
    np.testing.assert_array_equal(found, expected)


def test_seasons_may_be_views_of_a_location(published: Path) -> None:
    samples, views = opened(published), open_archive(Ssl4eoS12V11Spec(root=published, seasons="views"))
    names = samples.ids.tolist()
    for index, location in enumerate(views.ids.tolist()):
        for season in range(4):
            theirs = samples.read(names.index(f"{location}_{season}"), "s2c", ["B04"])
            np.testing.assert_array_equal(views.read(index, f"s2c-{season}", ["B04"]), theirs)
    assert set(views.table()["split"].to_pylist()) <= {"train", "val"}
