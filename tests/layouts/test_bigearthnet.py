from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.enums import Resampling
from typer.testing import CliRunner

from small_archives.bigearthnet import TILE, TILE_S1, write_bigearthnet
from terrasieve.archive.layouts.bigearthnet import CLASSES_19, METADATA, S1, S2, BigEarthNetArchive, BigEarthNetSpec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem
from terrasieve.cli import app
from terrasieve.errors import ArchiveError, SampleError

PAIRS = {
    "S2A_MSIL2A_20170617T113321_36_85": "S1A_IW_GRDH_1SDV_20170617T064724_29UPU_36_85",
    "S2A_MSIL2A_20170617T113321_4_55": "S1A_IW_GRDH_1SDV_20170617T064724_29UPU_4_55",
    "S2A_MSIL2A_20171221T112501_56_35": "S1A_IW_GRDH_1SDV_20171221T064238_29SND_56_35",
}


@pytest.fixture(scope="module")
def root(data_dir: Path) -> Path:
    return data_dir / "bigearthnet_sample"


@pytest.fixture(scope="module")
def sample(root: Path) -> BigEarthNetArchive:
    return BigEarthNetArchive(BigEarthNetSpec(root=root))


@pytest.fixture
def second(tmp_path: Path, root: Path) -> Path:
    """Version 2 from the real patches: tile folders, metadata, an absent partner, an absent and an unlisted patch."""

    def put(folder: Path, kind: str) -> None:
        folder.mkdir(parents=True)
        for file in min((root / kind).iterdir()).glob("*.tif"):
            shutil.copy(file, folder / f"{folder.name}_{file.stem.rpartition('_')[2]}.tif")

    write_bigearthnet(tmp_path, put)
    return tmp_path


def band(root: Path, index: int, archive: BigEarthNetArchive, name: str, **options: Any) -> Any:
    patch = str(archive.ids[index])
    kind, stem = (S1, PAIRS[patch]) if name in ("VV", "VH") else (S2, patch)
    with rasterio.open(root / kind / stem / f"{stem}_{name}.tif") as dataset:
        return dataset.read(1, **options)


def test_the_three_pairs_are_there_and_the_others_counted(sample: BigEarthNetArchive) -> None:
    assert sample.ids.tolist() == sorted(PAIRS)
    assert sample.rejected == ()
    facts = {name: sample.source[name] for name in ("unpaired", "listed_but_absent", "unlisted")}
    assert facts == {"unpaired": 3, "listed_but_absent": 0, "unlisted": 0}


def test_sentinel_1_keeps_its_fractions_of_decibels(sample: BigEarthNetArchive, root: Path) -> None:
    for index in range(3):
        pixels = sample.read(index, "s1")
        assert pixels.dtype == np.float32
        assert (pixels % 1 != 0).mean() > 0.99
        assert pixels.max() < 30
        for place, name in enumerate(("VV", "VH")):
            np.testing.assert_array_equal(pixels[place], band(root, index, sample, name))


@pytest.mark.parametrize("name", ["B01", "B02", "B05", "B08", "B8A", "B09", "B12"])
def test_bands_are_on_the_grid_of_10_m(sample: BigEarthNetArchive, root: Path, name: str) -> None:
    native = band(root, 1, sample, name)
    assert native.shape[0] == {"B02": 120, "B08": 120, "B01": 20, "B09": 20}.get(name, 60)
    expected = band(root, 1, sample, name, out_shape=(120, 120), resampling=Resampling.bilinear)
    np.testing.assert_array_equal(sample.read(1, "s2", [name])[0], expected)


def test_all_twelve_bands_come_in_one_size(sample: BigEarthNetArchive) -> None:
    pixels = sample.read(0, "s2")
    assert (pixels.shape, pixels.dtype) == ((12, 120, 120), np.uint16)
    assert sample.shape(0, "s2") == sample.shape(0, "s1") == (120, 120)
    assert sample.sensors["s2"].names[7:10] == ("B08", "B8A", "B09")


@pytest.mark.parametrize("window", [Window(0, 0, 1, 1), Window(17, 3, 40, 60), Window(119, 0, 1, 120)])
@pytest.mark.parametrize(("sensor", "bands"), [("s1", ["VH"]), ("s2", ["B12", "B02", "B01"])])
def test_a_window_is_a_slice(sample: BigEarthNetArchive, window: Window, sensor: str, bands: list[str]) -> None:
    top, left, height, width = window
    expected = sample.read(2, sensor, bands)[:, top : top + height, left : left + width]
    np.testing.assert_array_equal(sample.read(2, sensor, bands, window), expected)


def test_a_window_beyond_the_patch_is_refused(sample: BigEarthNetArchive) -> None:
    with pytest.raises(SampleError, match=r"leaves .*_B0?2\.tif.*120x120"):
        sample.read(0, "s2", ["B02"], Window(100, 0, 21, 5))


def test_the_table_says_labels_place_and_time(sample: BigEarthNetArchive) -> None:
    table = sample.table()
    rows = {row["id"]: row for row in table.to_pylist()}
    assert {label for row in rows.values() for label in row["labels"]} <= set(CLASSES_19)
    assert all(row["labels"] for row in rows.values())
    assert table["split"].null_count == table["label"].null_count == 3
    row = rows["S2A_MSIL2A_20171221T112501_56_35"]
    assert row["crs"] == "EPSG:32629"
    assert row["time"].isoformat() == "2017-12-21T11:25:01+00:00"
    assert row["geometry"] is not None


def test_classes_of_version_1_become_the_19(data_dir: Path, tmp_path: Path, root: Path) -> None:
    name = PAIRS["S2A_MSIL2A_20170617T113321_4_55"]
    shutil.copytree(root / S1 / name, tmp_path / S1 / name)
    note = tmp_path / S1 / name / f"{name}_labels_metadata.json"
    note.write_text('{"labels": ["Sea and ocean", "Coastal lagoons", "Airports", "Pastures"]}')
    archive = BigEarthNetArchive(BigEarthNetSpec(root=tmp_path))
    assert archive.table()["labels"].to_pylist() == [["Marine waters", "Pastures"]]


def test_one_sensor_alone_shows_all_its_patches(root: Path) -> None:
    archive = BigEarthNetArchive(BigEarthNetSpec(root=root, sensors=("s1",)))
    assert len(set(archive.ids.tolist())) == len(archive) == 6
    assert set(archive.sensors) == {"s1"}
    assert archive.ids[0].startswith("S1A_")


def test_version_2_has_its_splits(second: Path) -> None:
    archive = BigEarthNetArchive(BigEarthNetSpec(root=second))
    table = archive.table()
    assert table["id"].to_pylist() == [f"{TILE}_26_{place}" for place in range(3)]
    assert table["split"].to_pylist() == ["train", "val", "test"]
    assert table["labels"].to_pylist() == [["Arable land", "Mixed forest"]] * 3
    assert archive.read(2, "s2").shape == (12, 120, 120)
    assert archive.read(2, "s1").dtype == np.float32


def test_version_2_accounts_for_every_patch(second: Path) -> None:
    archive = BigEarthNetArchive(BigEarthNetSpec(root=second))
    (rejection,) = archive.rejected
    assert (rejection.id, rejection.problem) == (f"{TILE}_26_3", Problem.PARTNER)
    assert f"{TILE_S1}_33UUP_26_3" in rejection.reason
    assert (archive.source["listed_but_absent"], archive.source["unlisted"], archive.source["unpaired"]) == (1, 1, 0)
    optical = BigEarthNetArchive(BigEarthNetSpec(root=second, sensors=("s2",)))
    assert (len(optical), optical.rejected, optical.source["listed_but_absent"]) == (4, (), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), r"metadata\.parquet is not BigEarthNet's metadata"),
        (lambda path: pq.write_table(pa.table({"patch_id": ["a"]}), path), r"metadata\.parquet is not BigEarthNet's"),
        (
            lambda path: pq.write_table(
                pa.table({"patch_id": ["a"], "s1_name": ["b"], "split": ["dev"], "labels": [["c"]]}), path
            ),
            r"metadata\.parquet has the split 'dev'",
        ),
    ],
)
def test_damaged_metadata_is_named(second: Path, change: Any, message: str) -> None:
    change(second / METADATA)
    with pytest.raises(ArchiveError, match=message):
        BigEarthNetArchive(BigEarthNetSpec(root=second))


def test_a_missing_band_is_named_when_it_is_read(second: Path) -> None:
    (second / S2 / TILE / f"{TILE}_26_1" / f"{TILE}_26_1_B07.tif").unlink()
    archive = BigEarthNetArchive(BigEarthNetSpec(root=second))
    assert archive.read(1, "s2", ["B06"]).shape == (1, 120, 120)
    with pytest.raises(SampleError, match=r"26_1_B07\.tif cannot be read"):
        archive.read(1, "s2")


@pytest.mark.parametrize(("band", "size"), [("B02", 60), ("B05", 120), ("B01", 60)])
def test_a_band_of_another_resolution_is_refused(second: Path, write_tif: Any, band: str, size: int) -> None:
    write_tif(second / S2 / TILE / f"{TILE}_26_1" / f"{TILE}_26_1_{band}.tif", np.ones((1, size, size), np.uint16))
    archive = BigEarthNetArchive(BigEarthNetSpec(root=second))
    with pytest.raises(SampleError, match=rf"26_1_{band}\.tif is {size}x{size} px"):
        archive.read(1, "s2", ["B03", band])


def test_it_is_recognised_by_its_folders(root: Path, second: Path, data_dir: Path) -> None:
    for place in (root, second):
        (seen,) = recognise(place)
        assert (seen.spec.layout, seen.confidence) == ("bigearthnet", 1.0)
        assert isinstance(open_archive(place), BigEarthNetArchive)
    assert "bigearthnet" not in [seen.spec.layout for seen in recognise(data_dir / "terramesh_sites")]


def test_a_folder_without_both_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="neither BigEarthNet-S2 nor BigEarthNet-S1"):
        BigEarthNetArchive(BigEarthNetSpec(root=tmp_path))


def test_pickling_keeps_what_is_read(sample: BigEarthNetArchive) -> None:
    copy = pickle.loads(pickle.dumps(sample))
    np.testing.assert_array_equal(copy.read(1, "s2"), sample.read(1, "s2"))
    assert copy.table().equals(sample.table())


@pytest.mark.slow
def test_index_and_pack_on_the_command_line(root: Path, sample: BigEarthNetArchive, tmp_path: Path) -> None:
    catalogue, store = tmp_path / "catalogue.parquet", tmp_path / "pairs.zarr"
    for line in (["index", root, "--out", catalogue], ["pack", catalogue, "--out", store]):
        done = CliRunner().invoke(app, [str(word) for word in line])
        assert done.exit_code == 0, done.output
    packed = open_archive(store)
    assert packed.ids.tolist() == sample.ids.tolist()
    for index in range(3):
        for sensor in ("s1", "s2"):
            np.testing.assert_array_equal(packed.read(index, sensor), sample.read(index, sensor))
    assert packed.table()["labels"].to_pylist() == sample.table()["labels"].to_pylist()
