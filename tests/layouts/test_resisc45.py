from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from small_archives.pictures import write_pictures
from terrasieve.archive.layouts import eurosat, resisc45, uc_merced
from terrasieve.archive.layouts.resisc45 import CLASSES, Resisc45Archive, Resisc45Spec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.protocol import Window
from terrasieve.archive.quicklook import shown_bands
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.probes.splits import make_splits

EACH = 4


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, scene: NDArray[np.uint8]) -> Path:
    """Four pictures a class, cut from a real scene."""
    root = tmp_path_factory.mktemp("data")

    def pixels(label: str, place: int) -> NDArray[np.uint8]:
        top, left = 17 * CLASSES.index(label), 190 * place
        return scene[top : top + 256, left : left + 256]

    names = [f"{{}}_{number:03d}.jpg" for number in range(1, EACH + 1)]
    write_pictures(root / "NWPU-RESISC45", CLASSES, names, pixels)
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """The same pictures as links that a test may replace, and a folder to put lists into."""
    for label in CLASSES:
        folder = tmp_path / "NWPU-RESISC45" / label
        folder.mkdir(parents=True)
        for path in (published / "NWPU-RESISC45" / label).iterdir():
            (folder / path.name).symlink_to(path)
    return tmp_path


def opened(root: Path) -> Resisc45Archive:
    return Resisc45Archive(Resisc45Spec(root=root))


def test_there_are_45_classes_in_order() -> None:
    assert len(set(CLASSES)) == 45
    assert list(CLASSES) == sorted(CLASSES)


def test_ids_and_labels_are_those_of_files_and_folders(published: Path) -> None:
    archive = opened(published)
    table = archive.table()
    labels = table["label"].to_pylist()
    assert len(archive) == len(set(archive.ids.tolist())) == 45 * EACH
    assert labels == [label for label in CLASSES for _ in range(EACH)]
    assert [name.rpartition("_")[0] for name in archive.ids.tolist()] == labels
    assert table["geometry"].null_count == len(archive)


def test_pixels_are_those_that_pil_decodes(published: Path) -> None:
    archive = opened(published)
    assert list(archive.sensors) == ["rgb"]
    assert archive.sensors["rgb"].names == ("R", "G", "B")
    for index in (0, 77, len(archive) - 1):
        name = str(archive.ids[index])
        with Image.open(published / "NWPU-RESISC45" / name.rpartition("_")[0] / f"{name}.jpg") as image:
            whole = np.asarray(image).transpose(2, 0, 1)
        assert archive.shape(index, "rgb") == (256, 256)
        np.testing.assert_array_equal(archive.read(index, "rgb"), whole)
        part = archive.read(index, "rgb", ["B", "R"], Window(10, 200, 30, 56))
        np.testing.assert_array_equal(part, whole[[2, 0], 10:40, 200:])


def test_it_is_shown_in_colour(published: Path) -> None:
    assert shown_bands(opened(published).sensors["rgb"]) == ("R", "G", "B")


@pytest.mark.parametrize("place", [".", "NWPU-RESISC45"])
def test_the_split_is_that_of_the_lists(root: Path, place: str) -> None:
    for number, split in enumerate(("train", "val", "test"), start=1):
        names = [f"{label}_{number:03d}.jpg" for label in CLASSES]
        (root / f"resisc45-{split}.txt").write_text("\n".join([*names, f"absent_{number}.jpg"]) + "\n")
    archive = opened(root / place)
    splits = archive.table()["split"].to_pylist()
    assert splits == ["train", "val", "test", None] * 45
    assert archive.source["listed_but_absent"] == 3


def test_without_lists_a_split_is_drawn(published: Path) -> None:
    table = opened(published).table()
    assert table["split"].null_count == len(table)
    drawn = make_splits(table)
    assert "drawn" in drawn.origin
    assert len(drawn.classes) == 45


def test_a_file_in_two_lists_is_an_error(root: Path) -> None:
    for split in ("train", "test"):
        (root / f"resisc45-{split}.txt").write_text("beach_001.jpg\n")
    with pytest.raises(ArchiveError, match="beach_001, which is already in train"):
        opened(root)


def test_it_is_recognised_and_others_are_not(published: Path, data_dir: Path) -> None:
    for place in (published, published / "NWPU-RESISC45"):
        (seen,) = recognise(place)
        assert (seen.spec.layout, seen.confidence) == ("resisc45", 1.0)
        assert isinstance(open_archive(place), Resisc45Archive)
    assert resisc45.Resisc45Spec.recognise(data_dir / "eurosat_rgb") is None
    assert uc_merced.UcMercedSpec.recognise(published) is None
    assert eurosat.EuroSatSpec.recognise(published) is None


def test_a_copy_through_pickle_is_the_same(published: Path) -> None:
    archive = opened(published)
    copy = pickle.loads(pickle.dumps(archive))
    np.testing.assert_array_equal(copy.read(3, "rgb"), archive.read(3, "rgb"))


def test_a_missing_class_is_an_error(root: Path) -> None:
    (root / "NWPU-RESISC45" / "wetland").rename(root / "NWPU-RESISC45" / "swamp")
    with pytest.raises(ArchiveError, match=r"RESISC45's class folders but for wetland; unpack them"):
        opened(root)


@pytest.mark.parametrize(("mode", "size"), [("L", (256, 256)), ("RGB", (255, 256)), ("CMYK", (256, 256))])
def test_other_pictures_are_refused_by_name(root: Path, mode: str, size: tuple[int, int]) -> None:
    path = root / "NWPU-RESISC45" / "airplane" / "airplane_001.jpg"
    path.unlink()
    Image.new(mode, size).save(path)
    with pytest.raises(SampleError, match=r"airplane_001\.jpg"):
        opened(root).read(0, "rgb")


@pytest.mark.parametrize("keep", [0, 50, 3000])
def test_a_truncated_picture_is_named(root: Path, keep: int) -> None:
    path = root / "NWPU-RESISC45" / "airplane" / "airplane_001.jpg"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:keep])
    archive = opened(root)
    with pytest.raises(SampleError, match=r"airplane_001\.jpg cannot be read"):
        archive.read(0, "rgb")
    assert archive.read(1, "rgb").shape == (3, 256, 256)
