from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from small_archives.tengeop_sarwv import PER_CLASS, stem, write_tengeop
from terrasieve.archive.layouts.eurosat import CLASSES as EUROSAT
from terrasieve.archive.layouts.tengeop_sarwv import CLASSES, TenGeoPArchive, TenGeoPSpec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.protocol import Window
from terrasieve.errors import ArchiveError, SampleError


@pytest.fixture
def published(tmp_path: Path) -> Path:
    write_tengeop(tmp_path)
    return tmp_path


def opened(root: Path, **options: Any) -> TenGeoPArchive:
    return TenGeoPArchive(TenGeoPSpec(root=root, **options))


def test_labels_are_the_ten_names(published: Path) -> None:
    archive = opened(published)
    rows = archive.table().to_pylist()
    assert len({row["id"] for row in rows}) == len(archive) == 40
    assert [row["label"] for row in rows[::PER_CLASS]] == list(CLASSES.values())
    assert rows[0]["id"] == stem("F", 0)
    assert [row["swath"] for row in rows] == [row["id"][4:7] for row in rows]
    assert all(row["split"] is None for row in rows)


def test_values_are_those_that_rasterio_reads(published: Path) -> None:
    archive = opened(published)
    for index in (0, 3, 39):
        name = str(archive.ids[index])
        with rasterio.open(next(published.rglob(f"{name}.tiff"))) as dataset:
            expected = dataset.read()
        assert archive.shape(index, "s1") == expected.shape[1:] == (40 + index % 4, 50)
        np.testing.assert_array_equal(archive.read(index, "s1"), expected)
        np.testing.assert_array_equal(archive.read(index, "s1", ["VV"], Window(9, 3, 30, 7)), expected[:, 9:39, 3:10])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_png_of_8_and_16_bits_is_read(tmp_path: Path, kind: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, np.iinfo(kind).max, (30, 20)).astype(kind)
    for code in CLASSES:
        (tmp_path / code).mkdir()
        Image.fromarray(pixels).save(tmp_path / code / f"{stem(code, 0)}.png")
    archive = opened(tmp_path)
    assert archive.read(5, "s1").dtype == kind
    np.testing.assert_array_equal(archive.read(5, "s1")[0], pixels)
    assert archive.table()["time"].to_pylist()[0].isoformat() == "2016-01-01T00:45:01+00:00"
    assert archive.source["coordinates"] == "no list"
    assert "longitude" not in archive.table().column_names


@pytest.mark.parametrize(
    ("one", "other", "said", "longitude"),
    [
        ("-33.5", "-120.25", "latitude, longitude", -120.25),
        ("-120.25", "-33.5", "longitude, latitude", -120.25),
        ("10.0", "20.0", "undecided: both numbers, or neither, pass 90 degrees", None),
        ("110.0", "120.0", "undecided: both numbers, or neither, pass 90 degrees", None),
    ],
)
def test_coordinates_are_told_by_their_range(
    published: Path, one: str, other: str, said: str, longitude: float | None
) -> None:
    lines = (published / "58683.txt").read_text().splitlines()
    rows = [" ".join([*line.split()[:4], one, other]) for line in lines]
    (published / "58683.txt").write_text("\n".join(rows))
    archive = opened(published)
    assert archive.source["coordinates"] == said
    found = archive.table().to_pylist()[0]
    assert (found.get("longitude"), found.get("latitude")) == (longitude, None if longitude is None else -33.5)


def test_drawn_splits_have_their_shares_and_keep_orbits_together(published: Path) -> None:
    rows = opened(published).table().to_pylist()
    passes = {(row["id"].split("-")[6], row["split_pass"]) for row in rows}
    assert len(passes) == PER_CLASS, "each of the four orbits is in one part"
    assert {row["split_pass"] for row in rows} <= {"train", "val", "test"}
    assert {row["split_random"] for row in rows} == {"train", "test"}, "5 % of four is none"
    assert [row["split_random"] for row in rows] == opened(published).table()["split_random"].to_pylist()


def test_without_orbits_in_the_names_there_is_no_split_by_pass(published: Path) -> None:
    path = published / "GeoTIFF" / "F" / f"{stem('F', 0)}.tiff"
    path.rename(path.with_name("x.tiff"))
    table = opened(published).table()
    assert "split_pass" not in table.column_names
    assert "split_random" in table.column_names


def test_the_list_and_the_folders_are_compared(published: Path) -> None:
    lines = (published / "58683.txt").read_text().splitlines()
    extra = "F/elsewhere.png F wv1 20160102T03:04:05 1 2"
    (published / "58683.txt").write_text("\n".join([*lines, extra]))
    assert opened(published).source["listed_but_absent"] == 1
    (published / "58683.txt").write_text("\n".join([*lines[1:], lines[0].replace(" F ", " G ")]))
    with pytest.raises(ArchiveError, match=r"58683\.txt says class G of F/.*, which lies in folder F"):
        opened(published)
    (published / "58683.txt").write_text("\n".join([*lines, "F/a.png F wv1 now here there"]))
    with pytest.raises(ArchiveError, match=r"58683\.txt, line 41: 'F/a\.png F wv1 now here there' is no row"):
        opened(published)


@pytest.mark.parametrize("damage", [b"", b"II*\x00noise"])
def test_an_unreadable_vignette_is_named(published: Path, damage: bytes) -> None:
    (published / "GeoTIFF" / "K" / f"{stem('K', 2)}.tiff").write_bytes(damage)
    archive = opened(published)
    with pytest.raises(SampleError, match=rf"{stem('K', 2)}\.tiff cannot be read"):
        archive.read(archive.ids.tolist().index(stem("K", 2)), "s1")
    assert len(archive.table()) == 40


def test_both_kinds_of_files_need_a_choice(published: Path) -> None:
    for code in CLASSES:
        (published / "PNG" / code).mkdir(parents=True)
        Image.new("L", (9, 9)).save(published / "PNG" / code / f"{stem(code, 0)}.png")
    with pytest.raises(ArchiveError, match="set files to tiff or png"):
        opened(published)
    assert (len(opened(published, files="tiff")), len(opened(published, files="png"))) == (40, 10)


def test_it_is_recognised_by_its_ten_folders(published: Path, tmp_path: Path, data_dir: Path) -> None:
    assert [seen.spec.layout for seen in recognise(published)] == ["tengeop-sarwv"]
    assert isinstance(open_archive(published / "GeoTIFF"), TenGeoPArchive)
    assert "tengeop-sarwv" not in [seen.spec.layout for seen in recognise(data_dir / "eurosat_rgb")]
    for label in EUROSAT:
        (tmp_path / "other" / label).mkdir(parents=True)
    with pytest.raises(ArchiveError, match="ten class folders F to O"):
        opened(tmp_path / "other")


def test_pickling_keeps_what_is_read(published: Path) -> None:
    archive = opened(published)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(archive)).read(7, "s1"), archive.read(7, "s1"))
