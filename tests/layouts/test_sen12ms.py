from __future__ import annotations

import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from small_archives.triplets import sen12ms_path as path_of
from small_archives.triplets import write_sen12ms
from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.layouts import sen12ms
from terrasieve.archive.layouts.sen12ms import Sen12MsArchive, Sen12MsSpec, scene_split
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.patches.land_cover import IGBP
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem
from terrasieve.archive.readers.patch_reader import StackReader
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.sensors import SENSORS

Site = Callable[..., NDArray[Any]]

LABELS = {
    "ROIs1158_spring_8_p9": "Forest",
    "ROIs1158_spring_8_p30": "Croplands",
    "ROIs1158_spring_63_p1": "Water",
    "ROIs1868_summer_146_p203": None,
    "ROIs2017_winter_64_p2": "Snow/Ice",
}
"""Of those that are fit for use, in the order of seasons, scenes and patches."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Path:
    """Six triplets of real pixels in three seasons, one of them known to be broken."""
    root = tmp_path_factory.mktemp("data") / "SEN12MS"
    write_sen12ms(
        root, lambda place: site("S1RTC", place % 5), lambda place: site("S2L1C", place % 5).astype(np.uint16)
    )
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "SEN12MS"))


@pytest.fixture
def archive(published: Path) -> Sen12MsArchive:
    return Sen12MsArchive(Sen12MsSpec(root=published))


def column(archive: Sen12MsArchive, name: str) -> dict[str, Any]:
    table = archive.table()
    return dict(zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True))


def test_ids_are_names_without_the_sensor_in_order(archive: Sen12MsArchive) -> None:
    assert archive.ids.tolist() == list(LABELS)
    assert len(archive) == 5


def test_pixels_are_those_of_the_files(archive: Sen12MsArchive, published: Path) -> None:
    assert archive.sensors["s2"].names == SENSORS["s2-l1c"].names
    for index, name in enumerate(archive.ids.tolist()):
        for key in ("s1", "s2", "lc"):
            with rasterio.open(path_of(published, name, key)) as dataset:
                whole = dataset.read([1] if key == "lc" else None)
            pixels = archive.read(index, key)
            assert pixels.dtype == whole.dtype
            np.testing.assert_array_equal(pixels, whole)
            assert archive.shape(index, key) == (256, 256)


def test_b8a_comes_after_b08_and_a_window_is_a_slice(archive: Sen12MsArchive, published: Path) -> None:
    with rasterio.open(path_of(published, "ROIs1158_spring_8_p30", "s2")) as dataset:
        whole = dataset.read([13, 9, 8])
    pixels = archive.read(1, "s2", ["B12", "B8A", "B08"], Window(3, 250, 100, 6))
    np.testing.assert_array_equal(pixels, whole[:, 3:103, 250:])


def test_only_the_igbp_band_of_the_map_is_shown(archive: Sen12MsArchive) -> None:
    sensor = archive.sensors["lc"]
    assert (sensor.kind, sensor.names, sensor.bands[0].unit) == ("map", ("IGBP",), "class")
    assert set(np.unique(archive.read(1, "lc"))) == {12, 13, 14}
    assert archive.source["classes"][12] == "Croplands" == list(IGBP)[11]
    assert len(archive.source["classes"]) == 18


def test_the_label_is_the_simplified_class_of_most_of_the_map(archive: Sen12MsArchive) -> None:
    assert column(archive, "label") == LABELS


def test_the_label_is_read_once_and_not_at_opening(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, reads = StackReader.read, Counter[str]()

    def counted(self: StackReader, address: str, *arguments: Any) -> NDArray[Any]:
        reads[address] += 1
        return read(self, address, *arguments)

    monkeypatch.setattr(StackReader, "read", counted)
    archive = Sen12MsArchive(Sen12MsSpec(root=published))
    assert not reads
    assert archive.source["fingerprint"]
    assert not reads
    assert archive.table() is archive.table()
    assert sorted(Path(address).name for address in reads) == sorted(
        path_of(published, name, "lc").name for name in LABELS
    )
    assert set(reads.values()) == {1}


def test_a_copy_through_pickle_is_the_same(archive: Sen12MsArchive) -> None:
    archive.table()
    copy = pickle.loads(pickle.dumps(archive))
    np.testing.assert_array_equal(copy.read(2, "s1"), archive.read(2, "s1"))
    assert copy.table().equals(archive.table())
    assert copy.source == archive.source


def test_the_broken_patch_is_rejected_where_its_radar_is_shown(archive: Sen12MsArchive, published: Path) -> None:
    (rejection,) = archive.rejected
    assert (rejection.id, rejection.sensor, rejection.problem) == ("ROIs1868_summer_146_p202", "s1", Problem.NODATA)
    assert rejection.asset == str(path_of(published, rejection.id, "s1").resolve())
    assert "NaN" in rejection.reason
    optical = Sen12MsArchive(Sen12MsSpec(root=published, sensors=("s2", "lc")))
    assert rejection.id in optical.ids
    assert not optical.rejected


def test_samples_without_a_partner_and_odd_names_are_rejected(root: Path, write_tif: Any) -> None:
    path_of(root, "ROIs1158_spring_8_p9", "s2").unlink()
    path_of(root, "ROIs2017_winter_64_p2", "lc").unlink()
    for odd in ("ROIs1158_spring_s2_8_p1.tif", "ROIs1868_summer_s1_8_p1.tif", "copy of p30.tif"):
        write_tif(root / "ROIs1158_spring" / "s1_8" / odd, np.zeros((2, 4, 4), np.float32))
    shutil.copytree(root / "ROIs1158_spring" / "s1_63", root / "ROIs1158_spring" / "s1_64")
    archive = Sen12MsArchive(Sen12MsSpec(root=root))
    assert archive.ids.tolist() == ["ROIs1158_spring_8_p30", "ROIs1158_spring_63_p1", "ROIs1868_summer_146_p203"]
    partners = {(one.id, one.sensor) for one in archive.rejected if one.problem is Problem.PARTNER}
    assert partners == {
        ("ROIs1158_spring_8_p9", "s2"),
        ("ROIs2017_winter_64_p2", "lc"),
        ("ROIs1158_spring_s2_8_p1", "s1"),
        ("ROIs1868_summer_s1_8_p1", "s1"),
        ("copy of p30", "s1"),
        ("ROIs1158_spring_s1_63_p1", "s1"),
    }
    assert all(one.asset in one.reason for one in archive.rejected)


@pytest.mark.parametrize("place", [".", "splits", ".."])
@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_the_split_is_that_of_the_lists(root: Path, place: str, sensor: str) -> None:
    folder = root / place
    folder.mkdir(exist_ok=True)
    train = ["ROIs1158_spring_8_p9", "ROIs1158_spring_8_p30", "ROIs1970_fall_1_p1"]
    lists = {"train": train, "test": ["ROIs1158_spring_63_p1"], "val": train[1:2]}
    for split, names in lists.items():
        lines = [path_of(root, name, sensor).name for name in names]
        (folder / f"{split}_list.txt").write_text("\n".join(lines) + "\n")
    archive = Sen12MsArchive(Sen12MsSpec(root=root))
    assert column(archive, "split") == {
        "ROIs1158_spring_8_p9": "train",
        "ROIs1158_spring_8_p30": "val",
        "ROIs1158_spring_63_p1": "test",
        "ROIs1868_summer_146_p203": None,
        "ROIs2017_winter_64_p2": None,
    }
    assert archive.source["listed_but_absent"] == 1


@pytest.mark.parametrize("pair", [("train", "test"), ("val", "test")])
def test_lists_that_contradict_each_other_are_an_error(root: Path, pair: tuple[str, str]) -> None:
    for split in pair:
        (root / f"{split}_list.txt").write_text("ROIs1158_spring_s1_8_p9.tif\n")
    with pytest.raises(ArchiveError, match=r"ROIs1158_spring_(s1_)?8_p9"):
        Sen12MsArchive(Sen12MsSpec(root=root))


def test_without_lists_the_published_scenes_are_held_out(root: Path) -> None:
    (root / "SEN12MS_holdOutScenes.txt").write_text("ROIs1158_spring/s1_63\nROIs2017_winter/s1_64\n")
    split = column(Sen12MsArchive(Sen12MsSpec(root=root)), "split")
    assert [name for name, part in split.items() if part == "test"] == [
        "ROIs1158_spring_63_p1",
        "ROIs2017_winter_64_p2",
    ]
    assert Counter(split.values()) == {"train": 3, "test": 2}


def test_without_any_list_there_is_no_split(archive: Sen12MsArchive) -> None:
    assert set(column(archive, "split").values()) == {None}


def test_scenes_are_held_out_whole_whatever_else_is_there(archive: Sen12MsArchive, root: Path) -> None:
    scenes, parts = column(archive, "scene"), column(archive, "split_scene")
    assert scenes["ROIs1868_summer_146_p203"] == "ROIs1868_summer_146"
    assert all(parts[name] == scene_split(scene) for name, scene in scenes.items())
    shutil.rmtree(root / "ROIs1158_spring")
    fewer = column(Sen12MsArchive(Sen12MsSpec(root=root)), "split_scene")
    assert fewer == {name: parts[name] for name in fewer}
    assert len(fewer) == 2


def test_a_tenth_of_the_scenes_each_are_val_and_test() -> None:
    counts = Counter(scene_split(f"{season}_{scene}") for season in sen12ms.SEASONS for scene in range(1, 1001))
    assert counts["test"] == pytest.approx(400, abs=60)
    assert counts["val"] == pytest.approx(400, abs=60)
    assert counts.total() == 4000


def test_places_and_assets_are_in_the_table(archive: Sen12MsArchive, published: Path) -> None:
    row = archive.table().to_pylist()[0]
    assert row["crs"] == "EPSG:32632"
    assert row["geometry"]
    assert row["asset:lc"] == str(path_of(published, row["id"], "lc").resolve())


def test_it_is_recognised(published: Path, tmp_path: Path) -> None:
    (seen,) = recognise(published)
    assert (seen.spec.layout, seen.confidence) == ("sen12ms", 1.0)
    assert "ROIs1158_spring, ROIs1868_summer, ROIs2017_winter" in seen.evidence
    assert isinstance(open_archive(published), Sen12MsArchive)
    (tmp_path / "ROIs1158_spring").mkdir()
    assert sen12ms.Sen12MsSpec.recognise(tmp_path) is None
    assert sen12ms.Sen12MsSpec.recognise(published / "ROIs1158_spring") is None


def test_a_folder_without_seasons_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="holds no folder like ROIs1158_spring/s2_1"):
        Sen12MsArchive(Sen12MsSpec(root=tmp_path))


def test_without_maps_there_are_no_labels(root: Path) -> None:
    for folder in root.glob("*/lc_*"):
        shutil.rmtree(folder)
    archive = Sen12MsArchive(Sen12MsSpec(root=root))
    assert list(archive.sensors) == ["s2", "s1"]
    assert archive.table()["label"].null_count == 5


@pytest.mark.parametrize(
    ("key", "shape", "what"),
    [
        ("s2", (12, 256, 256), "12 bands"),
        ("s2", (13, 255, 256), "255x256"),
        ("lc", (1, 256, 256), "1 bands"),
        ("s1", (1, 256, 256), "1 bands"),
    ],
)
def test_files_of_another_shape_are_refused_by_name(
    root: Path, write_tif: Any, key: str, shape: tuple[int, int, int], what: str
) -> None:
    path = path_of(root, "ROIs1158_spring_8_p9", key)
    write_tif(path, np.ones(shape, np.uint16))
    with pytest.raises(SampleError, match=rf"{path.name}.*{what}"):
        Sen12MsArchive(Sen12MsSpec(root=root)).read(0, key)


@pytest.mark.parametrize("keep", [0, 8, 300])
def test_a_truncated_map_is_named_and_leaves_the_other_labels(root: Path, keep: int) -> None:
    path = path_of(root, "ROIs1158_spring_8_p9", "lc")
    path.write_bytes(path.read_bytes()[:keep])
    archive = Sen12MsArchive(Sen12MsSpec(root=root))
    assert column(archive, "label") == {**LABELS, "ROIs1158_spring_8_p9": None}
    with pytest.raises(SampleError, match=path.name):
        archive.read(0, "lc")


def test_nan_in_a_patch_is_found_by_the_index(root: Path, write_tif: Any, site: Site, tmp_path: Path) -> None:
    write_tif(path_of(root, "ROIs1158_spring_8_p9", "s1"), np.full((2, 256, 256), np.nan, np.float32))
    report = index_archive(Sen12MsArchive(Sen12MsSpec(root=root)), tmp_path / "c.parquet", max_bad=1.0)
    assert (report.samples, report.rejected, report.counts) == (4, 2, {"nodata": 2})
