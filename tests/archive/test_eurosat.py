from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from small_archives.pictures import write_eurosat_tif, write_pictures
from terrasieve.archive.layouts.eurosat import CLASSES, MS_BANDS, EuroSatArchive, EuroSatSpec
from terrasieve.archive.protocol import Window
from terrasieve.errors import ArchiveError, BandError, SampleError
from terrasieve.sensors import SENSORS


@pytest.fixture(scope="module")
def rgb(data_dir: Path) -> EuroSatArchive:
    return EuroSatArchive(EuroSatSpec(root=data_dir / "eurosat_rgb"))


@pytest.fixture
def ms_root(tmp_path: Path) -> Path:
    """One 13-band patch a class, band k filled with 1000 + 10 k, in the folders that the download makes."""
    bands = np.arange(13, dtype=np.uint16)[:, None, None] * 10 + 1000
    write_eurosat_tif(tmp_path / "ds" / "tif", lambda place: np.broadcast_to(bands, (13, 64, 64)))
    return tmp_path


def make_rgb(root: Path) -> Path:
    pixels = np.broadcast_to(np.array([10, 20, 30], np.uint8), (64, 64, 3))
    write_pictures(root, CLASSES, ["{}_1.jpg"], lambda label, place: pixels)
    return root


def test_the_real_subset_has_its_labels_and_splits(rgb: EuroSatArchive) -> None:
    table = rgb.table()
    assert len(rgb) == len(set(rgb.ids)) == table.num_rows == 7000
    labels, splits = table["label"].to_pylist(), table["split"].to_pylist()
    assert {label: labels.count(label) for label in CLASSES} == dict.fromkeys(CLASSES, 700)
    assert {split: splits.count(split) for split in ("train", "val", "test")} == {
        "train": 5000,
        "val": 1000,
        "test": 1000,
    }
    assert all(name.startswith(label + "_") for name, label in zip(rgb.ids, labels, strict=True))
    assert table["geometry"].null_count == 7000
    assert rgb.source["listed_but_absent"] == 0


def test_the_split_is_that_of_the_published_list(rgb: EuroSatArchive, data_dir: Path) -> None:
    listed = {Path(line).stem for line in (data_dir / "eurosat_rgb" / "eurosat-val.txt").read_text().split()}
    table = rgb.table()
    ours = {
        name for name, split in zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True) if split == "val"
    }
    assert ours == listed


@given(data=st.data())
def test_a_window_equals_the_slice_of_the_picture(data: st.DataObject, rgb: EuroSatArchive, data_dir: Path) -> None:
    index = data.draw(st.integers(0, len(rgb) - 1))
    top, left = data.draw(st.integers(0, 63)), data.draw(st.integers(0, 63))
    height, width = data.draw(st.integers(1, 64 - top)), data.draw(st.integers(1, 64 - left))
    bands = data.draw(st.permutations(["B04", "B03", "B02"]))
    name = str(rgb.ids[index])
    with Image.open(data_dir / "eurosat_rgb" / "2750" / name.partition("_")[0] / f"{name}.jpg") as image:
        red, green, blue = (np.asarray(channel) for channel in image.split())
    full = np.stack([{"B04": red, "B03": green, "B02": blue}[band] for band in bands])
    pixels = rgb.read(index, "s2", bands, Window(top, left, height, width))
    np.testing.assert_array_equal(pixels, full[:, top : top + height, left : left + width])


def test_ids_are_in_the_order_of_classes_and_numbers(rgb: EuroSatArchive) -> None:
    numbers = [int(name.partition("_")[2]) for name in rgb.ids[:700].tolist()]
    assert numbers == sorted(numbers)


def test_b8a_is_the_last_band_of_the_file_and_found_by_name(ms_root: Path) -> None:
    archive = EuroSatArchive(EuroSatSpec(root=ms_root))
    assert archive.product == "ms"
    assert archive.sensors["s2"].names == MS_BANDS
    assert archive.sensors["s2"].names[-1] == "B8A"
    values = archive.read(0, "s2", ["B08", "B8A", "B09", "B12"])[:, 0, 0]
    assert values.tolist() == [1070, 1120, 1080, 1110]
    assert archive.sensors["s2"].resolve("rs-byol") == SENSORS["s2-l1c"].resolve("rs-byol")


def test_multispectral_patches_know_where_they_are(ms_root: Path) -> None:
    row = EuroSatArchive(EuroSatSpec(root=ms_root)).table().slice(0, 1).to_pylist()[0]
    assert row["crs"] == "EPSG:32632"
    west, south, _, north = shapely.from_wkb(row["geometry"]).bounds
    assert west == pytest.approx(9.0, abs=1e-3)
    assert 45 < south < north < 45.2


def test_descriptions_in_another_order_are_refused(ms_root: Path, write_tif: Any) -> None:
    path = ms_root / "ds" / "tif" / "Forest" / "Forest_2.tif"
    write_tif(path, np.ones((13, 64, 64), np.uint16), names=SENSORS["s2-l1c"].names)
    with pytest.raises(SampleError, match=r"Forest_2\.tif calls its band 9 'B8A', sensor 's2-l1c' has 'B09' there"):
        EuroSatArchive(EuroSatSpec(root=ms_root)).read(1, "s2")


@pytest.mark.parametrize("shape", [(12, 64, 64), (13, 64, 63)])
def test_patches_of_another_shape_are_refused(ms_root: Path, write_tif: Any, shape: tuple[int, int, int]) -> None:
    write_tif(ms_root / "ds" / "tif" / "AnnualCrop" / "AnnualCrop_1.tif", np.ones(shape, np.uint16))
    with pytest.raises(SampleError, match=r"AnnualCrop_1\.tif"):
        EuroSatArchive(EuroSatSpec(root=ms_root)).read(0, "s2")


@pytest.mark.parametrize("keep", [0, 40, 400, 600])
def test_a_truncated_jpeg_is_named(tmp_path: Path, keep: int) -> None:
    root = make_rgb(tmp_path)
    path = root / "AnnualCrop" / "AnnualCrop_1.jpg"
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    archive = EuroSatArchive(EuroSatSpec(root=root))
    with pytest.raises(SampleError, match=r"AnnualCrop_1\.jpg cannot be read"):
        archive.read(0, "s2")
    assert archive.read(1, "s2").shape == (3, 64, 64)


@pytest.mark.parametrize(("mode", "size"), [("L", (64, 64)), ("RGB", (32, 64))])
def test_other_pictures_are_refused(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    root = make_rgb(tmp_path)
    Image.new(mode, size).save(root / "AnnualCrop" / "AnnualCrop_1.jpg")
    with pytest.raises(SampleError, match=r"AnnualCrop_1\.jpg"):
        EuroSatArchive(EuroSatSpec(root=root)).read(0, "s2")


def test_listed_files_may_be_absent_and_are_counted(tmp_path: Path) -> None:
    root = make_rgb(tmp_path / "2750")
    (tmp_path / "eurosat-train.txt").write_text("Forest_1.jpg\nForest_2.jpg\nRiver_77.jpg\n")
    (tmp_path / "eurosat-spatial-test.txt").write_text("Forest_1.jpg\n")
    for place in (tmp_path, root):
        archive = EuroSatArchive(EuroSatSpec(root=place))
        row = archive.table().slice(1, 1).to_pylist()[0]
        assert (row["id"], row["split"], row["split_spatial"]) == ("Forest_1", "train", "test")
        assert archive.source["listed_but_absent"] == 2


def test_a_file_in_two_splits_is_an_error(tmp_path: Path) -> None:
    make_rgb(tmp_path / "2750")
    for split in ("train", "test"):
        (tmp_path / f"eurosat-{split}.txt").write_text("Forest_1.jpg\n")
    with pytest.raises(ArchiveError, match="Forest_1, which is already in train"):
        EuroSatArchive(EuroSatSpec(root=tmp_path))


def test_both_products_need_a_choice(ms_root: Path) -> None:
    make_rgb(ms_root / "2750")
    with pytest.raises(ArchiveError, match="as rgb and as ms; set product"):
        EuroSatArchive(EuroSatSpec(root=ms_root))
    assert EuroSatArchive(EuroSatSpec(root=ms_root, product="rgb")).sensors["s2"].name == "s2-rgb8"


def test_a_folder_without_the_classes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Forest").mkdir()
    with pytest.raises(ArchiveError, match="ten class folders"):
        EuroSatArchive(EuroSatSpec(root=tmp_path))


def test_bounds_and_names(rgb: EuroSatArchive) -> None:
    for index in (-1, 7000):
        with pytest.raises(IndexError):
            rgb.read(index, "s2")
    with pytest.raises(BandError, match="no sensor 's1'"):
        rgb.read(0, "s1")
    with pytest.raises(BandError, match="no band 'B08'"):
        rgb.read(0, "s2", ["B08"])
    with pytest.raises(SampleError, match="64x64"):
        rgb.read(0, "s2", None, Window(1, 0, 64, 64))


def test_pickling_keeps_what_is_read(rgb: EuroSatArchive) -> None:
    copy = pickle.loads(pickle.dumps(rgb))
    np.testing.assert_array_equal(copy.read(12, "s2"), rgb.read(12, "s2"))
