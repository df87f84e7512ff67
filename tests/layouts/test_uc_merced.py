from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from small_archives.pictures import write_pictures
from terrasieve.archive.layouts import resisc45, uc_merced
from terrasieve.archive.layouts.uc_merced import CLASSES, UcMercedArchive, UcMercedSpec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.protocol import Window
from terrasieve.errors import ArchiveError, SampleError

SIZES = ((256, 256), (242, 256), (256, 257))
"""Height and width by number; the real data set has a few that are not square."""


@pytest.fixture
def published(tmp_path: Path, scene: NDArray[np.uint8]) -> Path:
    """Three pictures a class, cut from a real scene."""

    def pixels(label: str, place: int) -> NDArray[np.uint8]:
        (height, width), top, left = SIZES[place], 30 * CLASSES.index(label), 200 * place
        return scene[top : top + height, left : left + width]

    names = [f"{{}}{number:02d}.tif" for number in range(len(SIZES))]
    write_pictures(tmp_path / "UCMerced_LandUse" / "Images", CLASSES, names, pixels)
    return tmp_path


def opened(root: Path) -> UcMercedArchive:
    return UcMercedArchive(UcMercedSpec(root=root))


def file(root: Path, name: str) -> Path:
    return root / "UCMerced_LandUse" / "Images" / name[:-2] / f"{name}.tif"


def test_there_are_21_classes_in_order() -> None:
    assert len(set(CLASSES)) == 21
    assert list(CLASSES) == sorted(CLASSES)


def test_ids_and_labels_are_those_of_files_and_folders(published: Path) -> None:
    archive = opened(published)
    assert archive.ids.tolist() == [f"{label}{number:02d}" for label in CLASSES for number in range(3)]
    assert archive.table()["label"].to_pylist() == [label for label in CLASSES for _ in range(3)]


def test_pictures_keep_their_own_size(published: Path) -> None:
    archive = opened(published)
    for index, name in enumerate(archive.ids.tolist()):
        with Image.open(file(published, name)) as image:
            whole = np.asarray(image).transpose(2, 0, 1)
        assert archive.shape(index, "rgb") == SIZES[index % 3] == whole.shape[1:]
        np.testing.assert_array_equal(archive.read(index, "rgb"), whole)
    with Image.open(file(published, "agricultural01")) as image:
        green = np.asarray(image)[240:242, 3:9, 1]
    np.testing.assert_array_equal(archive.read(1, "rgb", ["G"], Window(240, 3, 2, 6))[0], green)
    with pytest.raises(SampleError, match=r"leaves .*agricultural01\.tif, which is 242x256"):
        archive.read(1, "rgb", None, Window(240, 0, 3, 6))


def test_the_split_is_that_of_the_lists(published: Path) -> None:
    assert opened(published).table()["split"].null_count == 63
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{label}{number:02d}.tif" for label in CLASSES]
        (published / f"uc_merced-{split}.txt").write_text("\n".join(names) + "\n")
    for place in (published, published / "UCMerced_LandUse"):
        assert opened(place).table()["split"].to_pylist() == ["train", "val", "test"] * 21


def test_it_is_recognised_and_not_taken_for_another(published: Path, data_dir: Path) -> None:
    for place in (published, published / "UCMerced_LandUse" / "Images"):
        (seen,) = recognise(place)
        assert seen.spec.layout == "uc-merced"
        assert isinstance(open_archive(place), UcMercedArchive)
    assert resisc45.Resisc45Spec.recognise(published) is None
    assert uc_merced.UcMercedSpec.recognise(data_dir / "eurosat_rgb") is None


def test_a_copy_through_pickle_is_the_same(published: Path) -> None:
    archive = opened(published)
    copy = pickle.loads(pickle.dumps(archive))
    np.testing.assert_array_equal(copy.read(4, "rgb"), archive.read(4, "rgb"))


def test_a_folder_without_the_classes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"UC Merced's 21 class folders \(agricultural to tenniscourt\)"):
        opened(tmp_path)


@pytest.mark.parametrize("keep", [0, 6, 500])
def test_a_truncated_picture_is_named(published: Path, keep: int) -> None:
    path = file(published, "agricultural00")
    path.write_bytes(path.read_bytes()[:keep])
    archive = opened(published)
    with pytest.raises(SampleError, match=r"agricultural00\.tif cannot be read"):
        archive.read(0, "rgb")
    assert archive.read(1, "rgb").shape == (3, 242, 256)


def test_a_picture_of_one_band_is_refused_by_name(published: Path) -> None:
    Image.new("L", (256, 256)).save(file(published, "agricultural00"))
    with pytest.raises(SampleError, match=r"agricultural00\.tif has shape"):
        opened(published).read(0, "rgb")
