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

from small_archives.triplets import MAPS, write_dfc2020
from small_archives.triplets import dfc2020_path as path_of
from terrasieve.archive.layouts import dfc2020
from terrasieve.archive.layouts.dfc2020 import Dfc2020Archive, Dfc2020Spec
from terrasieve.archive.opening import load_spec, open_archive, recognise
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.patches.land_cover import CLASSES_10
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.probes.segmentation.folds import make_folds
from terrasieve.probes.segmentation.pixel_metrics import IGNORE
from terrasieve.probes.segmentation.task import read_labels
from terrasieve.sensors import SENSORS

Site = Callable[..., NDArray[Any]]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Path:
    root = tmp_path_factory.mktemp("data") / "DFC"
    write_dfc2020(root, lambda place: site("S1RTC", place), lambda place: site("S2L1C", place).astype(np.uint16))
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "DFC"))


def opened(root: Path, **options: Any) -> Dfc2020Archive:
    return Dfc2020Archive(Dfc2020Spec(root=root, **options))


def test_ids_and_the_split_are_those_of_the_folders(published: Path) -> None:
    archive = opened(published)
    assert archive.ids.tolist() == sorted(MAPS, key=lambda name: (name.split("_0_")[0], int(name.split("_p")[-1])))
    for name, part in zip(archive.ids.tolist(), archive.table()["split"].to_pylist(), strict=True):
        assert part == ("val" if "validation" in name else "test")


def test_the_exchanged_split_learns_from_the_test_folder(published: Path) -> None:
    archive = opened(published, split="exchanged")
    for name, part in zip(archive.ids.tolist(), archive.table()["split"].to_pylist(), strict=True):
        assert part == ("test" if "validation" in name else "train")


def test_pixels_are_those_of_the_files(published: Path) -> None:
    archive = opened(published)
    assert list(archive.sensors) == ["s2", "s1", "dfc"]
    assert archive.sensors["s2"].names == SENSORS["s2-l1c"].names
    for index, name in enumerate(archive.ids.tolist()):
        for key in archive.sensors:
            with rasterio.open(path_of(published, name, key)) as dataset:
                whole = dataset.read()
            np.testing.assert_array_equal(archive.read(index, key), whole)
            part = archive.read(index, key, archive.sensors[key].names[-1:], Window(200, 0, 56, 9))
            np.testing.assert_array_equal(part, whole[-1:, 200:, :9])


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (10, ["Savanna", "Water", "Snow/Ice", "Grassland", "Urban/Built-up"]),
        (8, ["Barren", "Water", None, "Grassland", "Urban/Built-up"]),
    ],
)
def test_the_label_is_the_class_of_most_of_the_map(published: Path, classes: int, labels: list[str | None]) -> None:
    assert opened(published, classes=classes).table()["label"].to_pylist() == labels


def test_eight_classes_leave_savanna_and_snow_without_a_label(published: Path) -> None:
    ten, eight = opened(published), opened(published, classes=8)
    assert eight.source["left_out"] == ["Savanna", "Snow/Ice"]
    assert ten.source["left_out"] == []
    for index in range(len(ten)):
        before, after = ten.read(index, "dfc"), eight.read(index, "dfc")
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, np.where(np.isin(before, [3, 8]), 0, before))
    window = Window(120, 0, 20, 4)
    np.testing.assert_array_equal(eight.read(0, "dfc", None, window), eight.read(0, "dfc")[:, 120:140, :4])


@pytest.mark.parametrize(("classes", "gone"), [(10, set()), (8, {"Savanna", "Snow/Ice"})])
def test_the_maps_are_labels_to_segment_by(published: Path, classes: int, gone: set[str]) -> None:
    archive = opened(published, classes=classes)
    labels = read_labels(archive, "dfc", np.arange(5))
    drawn = {CLASSES_10[value - 1] for rows in MAPS.values() for value in rows if value}
    assert set(labels.classes) == drawn - gone
    codes, values = labels.codes[1], archive.read(1, "dfc")[0]
    np.testing.assert_array_equal(codes == IGNORE, values == 0)
    assert labels.classes[codes[210, 0]] == "Water"


def test_the_published_split_holds_each_part_out_in_turn(published: Path) -> None:
    folds = make_folds(opened(published).table(), "dfc", group="split")
    assert sorted(len(fold.test) for fold in folds.parts) == [2, 3]
    with pytest.raises(ArchiveError, match="has no 'train' images"):
        make_folds(opened(published).table(), "dfc")
    (fold,) = make_folds(opened(published, split="exchanged").table(), "dfc").parts
    assert (len(fold.train), len(fold.test)) == (3, 2)


def test_options_may_stand_in_yaml(published: Path, tmp_path: Path) -> None:
    path = tmp_path / "dfc.yaml"
    path.write_text(f"layout: dfc2020\nroot: {published}\nclasses: 8\nsplit: exchanged\nsensors: [s1, dfc]\n")
    archive = open_archive(path)
    assert load_spec(path) == Dfc2020Spec(root=published, classes=8, split="exchanged", sensors=("s1", "dfc"))
    assert list(archive.sensors) == ["s1", "dfc"]


def test_a_copy_through_pickle_is_the_same(published: Path) -> None:
    archive = opened(published, classes=8)
    copy = pickle.loads(pickle.dumps(archive))
    np.testing.assert_array_equal(copy.read(0, "dfc"), archive.read(0, "dfc"))
    assert copy.table().equals(archive.table())


def test_samples_without_a_partner_are_rejected(root: Path) -> None:
    path_of(root, "ROIs0000_test_0_p1", "dfc").unlink()
    path_of(root, "ROIs0000_validation_0_p3", "s1").unlink()
    archive = opened(root)
    assert len(archive) == 3
    assert [(one.id, one.sensor, one.problem) for one in archive.rejected] == [
        ("ROIs0000_test_0_p1", "dfc", Problem.PARTNER),
        ("ROIs0000_validation_0_p3", "s1", Problem.PARTNER),
    ]


def test_one_folder_is_enough(root: Path) -> None:
    shutil.rmtree(root / "ROIs0000_test")
    assert opened(root).table()["split"].to_pylist() == ["val", "val"]


def test_it_is_recognised(published: Path, tmp_path: Path) -> None:
    (seen,) = recognise(published)
    assert seen.spec.layout == "dfc2020"
    assert seen.evidence == "DFC2020's ROIs0000_validation and ROIs0000_test"
    assert isinstance(open_archive(published), Dfc2020Archive)
    assert dfc2020.Dfc2020Spec.recognise(tmp_path) is None


def test_beside_sen12ms_the_layout_has_to_be_named(root: Path, write_tif: Any) -> None:
    write_tif(root / "ROIs1158_spring" / "s2_1" / "ROIs1158_spring_s2_1_p1.tif", np.ones((13, 256, 256), np.uint16))
    with pytest.raises(ArchiveError, match=r"could be dfc2020 .* or sen12ms .*--layout"):
        open_archive(root)
    assert len(open_archive(root, layout="dfc2020")) == 5
    assert len(open_archive(f"sen12ms:{root}")) == 1


def test_a_folder_without_either_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="holds neither of ROIs0000_validation, ROIs0000_test"):
        opened(tmp_path)


def test_a_map_of_another_size_is_refused_by_name(root: Path, write_tif: Any) -> None:
    path = path_of(root, "ROIs0000_test_0_p0", "dfc")
    write_tif(path, np.ones((1, 128, 128), np.uint8))
    with pytest.raises(SampleError, match=rf"{path.name} is 128x128 px"):
        opened(root).read(0, "dfc")


def test_a_packed_store_keeps_labels_and_maps(published: Path, tmp_path: Path) -> None:
    archive = opened(published, sensors=("dfc",))
    pack(archive, tmp_path / "store")
    packed = open_archive(tmp_path / "store")
    assert any(0 in MAPS[name] for name in packed.ids.tolist())
    assert packed.ids.tolist() == archive.ids.tolist()
    for index in range(len(archive)):
        np.testing.assert_array_equal(packed.read(index, "dfc"), archive.read(index, "dfc"))
    assert packed.table()["label"].to_pylist() == archive.table()["label"].to_pylist()
