"""Catalogues that are opened from their rows: no file is looked at before it is read, and then it is."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio

from terrasieve.archive import catalogued
from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.layouts.plain_table import PlainTableSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Window
from terrasieve.archive.readers import gdal
from terrasieve.archive.scenes import listed
from terrasieve.archive.scenes.tiled import ScenesSpec, SensorFolder
from terrasieve.errors import SampleError

SENSORS = {
    "s2": SensorFolder(folder=Path("s2"), sensor="s2-rgb8"),
    "s1": SensorFolder(folder=Path("s1"), sensor="s1"),
}


@pytest.fixture
def root(tmp_path: Path, write_tif: Any, rng: np.random.Generator) -> Path:
    for name in "abc":
        write_tif(tmp_path / f"s2/{name}.tif", rng.integers(0, 256, (3, 48, 48)).astype(np.uint8))
        radar = rng.normal(-12, 2, (2, 32, 40)).astype(np.float32)
        with rasterio.open(tmp_path / f"s2/{name}.tif") as file:
            moved = file.transform * file.transform.translation(3, 5)
            crs = file.crs
        write_tif(tmp_path / f"s1/{name}.tif", radar)
        with rasterio.open(tmp_path / f"s1/{name}.tif", "r+") as file:
            file.transform, file.crs = moved, crs
    (tmp_path / "t.csv").write_text("id,path,label\n" + "".join(f"{name},s1/{name}.tif,x\n" for name in "abc"))
    return tmp_path


def spec_of(root: Path, kind: str) -> Any:
    if kind == "table":
        return PlainTableSpec(root=root / "t.csv", sensors={"s1": "s1"})
    return ScenesSpec(root=root, sensors=SENSORS, tile=16, match="geometry")


@pytest.mark.parametrize("kind", ["scenes", "table"])
def test_opening_looks_at_no_file(root: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, out = spec_of(root, kind), tmp_path / "c.parquet"
    whole = index_archive(spec, out, max_bad=1.0).archive
    looked: list[str] = []
    real = os.stat
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path, *a, **k: (looked.append(str(path)), real(path, *a, **k))[1])
        patch.setattr(os, "scandir", lambda *_: pytest.fail("a folder was searched"))
        patch.setattr(gdal, "DatasetReader", lambda *_, **__: pytest.fail("a file was opened"))
        archive = open_archive(out)
        assert archive.ids.tolist() == whole.ids.tolist()
        assert archive.table().equals(whole.table())
        assert archive.sensors == whole.sensors
        assert archive.not_taken == whole.not_taken
        assert archive.source == {**whole.source, "subset": len(whole)}
    assert not [path for path in looked if path.endswith(".tif")]
    again = pickle.loads(pickle.dumps(archive))
    for index in range(len(whole)):
        for key in whole.sensors:
            assert archive.shape(index, key) == whole.shape(index, key)
            np.testing.assert_array_equal(archive.read(index, key), whole.read(index, key))
            part = Window(1, 2, 3, 4)
            np.testing.assert_array_equal(again.read(index, key, None, part), whole.read(index, key, None, part))
    every = np.arange(len(whole))
    assert set(archive.files(every)) == set(whole.files(every))


def test_tiles_of_one_file_that_come_one_after_the_other_have_it_looked_at_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, headers, states = tmp_path / "c.parquet", [], []
    index_archive(spec_of(root, "scenes"), out)
    archive = open_archive(out)
    header, state = listed.read_header, catalogued._state
    monkeypatch.setattr(listed, "read_header", lambda path: (headers.append(path), header(path))[1])
    monkeypatch.setattr(catalogued, "_state", lambda path: (states.append(path), state(path))[1])
    for index in range(len(archive)):
        for key in archive.sensors:
            archive.read(index, key)
    # All scenes overlap, so that each of one sensor meets all three of the other, four tiles at a time.
    files = [path.relative_to(root).as_posix() for path in headers]
    assert len(archive) == 36
    assert files == [
        f"{key}/{name}.tif" for outer in "abc" for key, name in (("s2", outer), *(("s1", x) for x in "abc"))
    ]
    assert states == [str(path) for path in headers]


def test_a_file_that_was_restored_is_read_again(root: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "c.parquet", root / "s1/a.tif"
    index_archive(spec_of(root, "scenes"), out)
    archive, whole = open_archive(out), spec_of(root, "scenes").open()
    file.rename(root / "gone")
    with pytest.raises(SampleError, match="has changed since"):
        archive.read(0, "s1")
    (root / "gone").rename(file)
    np.testing.assert_array_equal(archive.read(0, "s1"), whole.read(0, "s1"))


def test_a_file_that_lies_elsewhere_is_refused_though_size_and_time_are_the_same(root: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "c.parquet", root / "s1/b.tif"
    index_archive(spec_of(root, "scenes"), out)
    before = file.stat()
    with rasterio.open(file) as raster:
        corner, step = raster.transform.c, raster.transform.a
    data = file.read_bytes()
    assert data.count(struct.pack("<d", corner)) == 1
    file.unlink()  # a new file, which no handle of this process holds open
    file.write_bytes(data.replace(struct.pack("<d", corner), struct.pack("<d", corner + step)))
    os.utime(file, ns=(before.st_mtime_ns, before.st_mtime_ns))
    archive = open_archive(out)
    place = next(row for row, path in enumerate(archive.table()["asset:s1"].to_pylist()) if path == str(file))
    archive.read(place, "s2")
    with pytest.raises(SampleError, match=r"b\.tif no longer lies where .*terrasieve index again"):
        archive.read(place, "s1")


def test_rows_that_lead_out_of_the_folder_are_not_followed(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.parquet"
    index_archive(spec_of(root, "scenes"), out)
    (tmp_path / "secret").mkdir()
    (root / "s1/a.tif").rename(tmp_path / "secret/a.tif")
    rows = pq.read_table(out)
    for where in (str(tmp_path / "secret/a.tif"), str(root / "s1/../secret/a.tif")):
        paths = [where if path.endswith("a.tif") else path for path in rows["asset:s1"].to_pylist()]
        at = rows.column_names.index("asset:s1")
        pq.write_table(rows.set_column(at, "asset:s1", pa.array(paths)), out)
        with pytest.raises(SampleError, match="does not lie in"):
            open_archive(out).read(0, "s1")


def test_a_catalogue_of_a_catalogue_keeps_what_was_said_of_its_files(root: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.parquet", tmp_path / "2.parquet"
    index_archive(spec_of(root, "scenes"), first)
    index_archive(open_archive(first), second)
    assert pq.read_table(first).equals(pq.read_table(second))


def test_a_place_beyond_the_file_is_an_error_of_the_sample(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.parquet"
    index_archive(spec_of(root, "scenes"), out)
    rows = pq.read_table(out)
    name = "terrasieve:tile:s1"
    far = pa.StructArray.from_arrays([pa.array([10**6] * len(rows)), pa.array([-5] * len(rows))], ["top", "left"])
    pq.write_table(rows.set_column(rows.column_names.index(name), name, far), out)
    with pytest.raises(SampleError):
        open_archive(out).read(0, "s1")
