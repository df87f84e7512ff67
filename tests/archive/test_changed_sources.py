"""Files that were processed again in place: no result that was made from what they held before passes for a new one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.transform import from_origin

from terrasieve.archive.catalogue import index_archive, read_catalogue
from terrasieve.archive.catalogued import HIDDEN
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.layouts.plain_table import PlainTableArchive, PlainTableSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed import packing, store_writer
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.progress import PROGRESS
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality import audit
from terrasieve.archive.quality.limits import QualityLimits
from terrasieve.archive.readers.geotiff import read_window
from terrasieve.archive.source_state import files_state, source_state
from terrasieve.errors import ArchiveError, SampleError, TooManyBadSamplesError

COUNT = 10
SIDE = 32


def write_scenes(folder: Path, value: int, labels: str = "ab") -> None:
    """Ten files of nearly one value, of the same names and sizes whatever it is, and their table."""
    rows = ["id,path,label"]
    for number in range(COUNT):
        pixels = np.full((1, SIDE, SIDE), value + number % 2, np.uint8)
        pixels[0, 0] = np.arange(SIDE)
        profile = {"width": SIDE, "height": SIDE, "count": 1, "dtype": "uint8", "crs": "EPSG:32632"}
        where = from_origin(5e5 + 2560 * number, 5e6, 10, 10)
        with rasterio.open(folder / f"{number}.tif", "w", driver="GTiff", transform=where, **profile) as file:
            file.write(pixels)
        rows.append(f"{number},{number}.tif,{labels[number % len(labels)]}")
    (folder / "t.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    (tmp_path / "scenes").mkdir()
    write_scenes(tmp_path / "scenes", 60)
    return tmp_path / "scenes"


def opened(scenes: Path) -> PlainTableArchive:
    return PlainTableArchive(PlainTableSpec(root=scenes / "t.csv", sensors={"s": "s1-vh8"}))


def mean(out: Path, index: int) -> float:
    return float(PackedArchive(out).read(index, "s")[0, 1:].mean())


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four samples a chunk."""
    monkeypatch.setattr(packing, "CHUNK_BYTES", 4 * SIDE * SIDE)


def pack_half(scenes: Path, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        real = store_writer.StoreWriter._write

        def write(self: Any, *arguments: Any) -> None:
            real(self, *arguments)
            raise KeyboardInterrupt

        patch.setattr(store_writer.StoreWriter, "_write", write)
        with pytest.raises(KeyboardInterrupt):
            pack(opened(scenes), out)
    assert (out / PROGRESS).exists()


def test_a_finished_store_of_other_pixels_is_not_taken_for_done(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    assert not pack(opened(scenes), out).done_before
    assert pack(opened(scenes), out).done_before
    write_scenes(scenes, 160)
    with pytest.raises(ArchiveError, match=r"p\.zarr is packed from have changed since.*--overwrite"):
        pack(opened(scenes), out)
    assert not pack(opened(scenes), out, overwrite=True).done_before
    assert [mean(out, 0), mean(out, 1)] == [160, 161]


def test_labels_that_come_later_are_noticed(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    pack(opened(scenes), out)
    rows = (scenes / "t.csv").read_text()
    (scenes / "t.csv").write_text(rows.replace("id,path,label", "id,path,label,split").replace("a\n", "a,test\n"))
    (scenes / "t.csv").write_text((scenes / "t.csv").read_text().replace("b\n", "b,\n"))
    with pytest.raises(ArchiveError, match="have changed since"):
        pack(opened(scenes), out)
    pack(opened(scenes), out, overwrite=True)
    assert PackedArchive(out).table()["split"].to_pylist()[:2] == ["test", None]


@pytest.mark.usefixtures("_small_chunks")
def test_a_resumed_run_mixes_nothing(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.zarr"
    pack_half(scenes, out)
    write_scenes(scenes, 160)
    pack(opened(scenes), out)
    assert [mean(out, index) for index in range(COUNT)] == [160, 161] * 5
    assert "packed anew" in capsys.readouterr().err


@pytest.mark.usefixtures("_small_chunks")
def test_files_that_change_while_they_are_packed_are_noticed(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store_writer.StoreWriter._write

    def write(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        write_scenes(scenes, 160)

    monkeypatch.setattr(store_writer.StoreWriter, "_write", write)
    with pytest.raises(ArchiveError, match="have changed while it was packed"):
        pack(opened(scenes), tmp_path / "p.zarr")


def test_a_store_of_an_earlier_version_is_still_taken_for_done(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    pack(opened(scenes), out)
    text = (out / "zarr.json").read_text()
    stated = PackedArchive(out).manifest.sources
    (out / "zarr.json").write_text(text.replace(f'"sources": "{stated}"', '"sources": null'))
    assert pack(opened(scenes), out).done_before


@pytest.mark.usefixtures("_small_chunks")
def test_overwriting_begins_a_half_store_anew_and_spares_what_is_none(scenes: Path, tmp_path: Path) -> None:
    pack_half(scenes, tmp_path / "half.zarr")
    (tmp_path / ".half.zarr.partial").mkdir()  # as a run leaves it that is killed while it removes a store
    pack(opened(scenes), tmp_path / "half.zarr", overwrite=True)
    assert mean(tmp_path / "half.zarr", 9) == 61
    assert not (tmp_path / ".half.zarr.partial").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("precious")
    with pytest.raises(ArchiveError, match="not a packed store"):
        pack(opened(scenes), tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine/thesis.tex").read_text() == "precious"


@pytest.mark.usefixtures("_small_chunks")
def test_what_a_kill_leaves_within_a_store_is_cleaned(scenes: Path, tmp_path: Path) -> None:
    pack_half(scenes, tmp_path / "p.zarr")
    left = tmp_path / "p.zarr/s/c/1/0/0/0.0123456789abcdef.partial"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half a chunk")
    pack(opened(scenes), tmp_path / "p.zarr")
    pack(opened(scenes), tmp_path / "whole.zarr")
    names = [
        sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))
        for root in (tmp_path / "p.zarr", tmp_path / "whole.zarr")
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("how", ["touched", "longer", "lost"])
def test_a_catalogue_refuses_a_file_that_changed_when_it_is_read(scenes: Path, tmp_path: Path, how: str) -> None:
    out, file = tmp_path / "c.parquet", scenes / "3.tif"
    index_archive(opened(scenes), out)
    time, data = file.stat().st_mtime_ns, file.read_bytes()
    if how == "touched":
        os.utime(file, ns=(1, 1))
    elif how == "longer":
        file.write_bytes(data + b" ")
        os.utime(file, ns=(time, time))
    archive = open_archive(out)
    if how == "lost":  # a table of which a file is lost does not list it
        archive.read(0, "s")
        file.unlink()
    archive.read(2, "s")
    for _ in range(2):
        with pytest.raises(SampleError, match=r"3\.tif has changed since .*c\.parquet.*terrasieve index again"):
            archive.read(3, "s")
    file.write_bytes(data)
    index_archive(opened(scenes), out)
    assert open_archive(out).read(3, "s").shape == (1, SIDE, SIDE)


def test_a_catalogue_of_an_earlier_version_refuses_changed_files_on_opening(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.parquet"
    index_archive(opened(scenes), out)
    rows = pq.read_table(out)
    old = rows.drop_columns([name for name in rows.column_names if name.startswith(HIDDEN)])
    pq.write_table(old, out)
    assert len(open_archive(out)) == COUNT
    assert open_archive(out).read(3, "s").shape == (1, SIDE, SIDE)
    os.utime(scenes / "3.tif", ns=(1, 1))
    with pytest.raises(ArchiveError, match=r"c\.parquet is out of date.*index again"):
        open_archive(out)


def test_a_catalogue_does_not_mind_files_that_it_does_not_list(scenes: Path, tmp_path: Path) -> None:
    index_archive(SubsetArchive(opened(scenes), [0, 1]), tmp_path / "c.parquet")
    os.utime(scenes / "3.tif", ns=(1, 1))
    assert len(open_archive(tmp_path / "c.parquet")) == 2


@pytest.mark.parametrize("changed", [False, True])
def test_an_index_goes_on_from_no_judgement_of_other_pixels(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    monkeypatch.setattr(audit, "BATCH", 2)
    seen: list[int] = []
    stop = [5]
    real = audit.Auditor.judge

    def judge(self: audit.Auditor, index: int) -> audit.Judgement:
        if index == stop[0]:
            raise KeyboardInterrupt
        seen.append(index)
        return real(self, index)

    monkeypatch.setattr(audit.Auditor, "judge", judge)
    with pytest.raises(KeyboardInterrupt):
        index_archive(opened(scenes), tmp_path / "c.parquet")
    stop[0] = -1
    seen.clear()
    if changed:
        os.utime(scenes / "0.tif", ns=(1, 1))
    index_archive(opened(scenes), tmp_path / "c.parquet")
    assert seen == list(range(0 if changed else 4, COUNT))
    assert not list(tmp_path.glob(".*"))


def test_an_open_file_that_is_written_anew_is_read_anew(scenes: Path) -> None:
    part = Window(1, 0, 2, 2)
    assert read_window(scenes / "0.tif", [0], part).max() == 60
    write_scenes(scenes, 160)
    assert read_window(scenes / "0.tif", [0], part).max() == 160


def test_the_state_is_of_names_sizes_times_and_the_table(scenes: Path) -> None:
    first = opened(scenes)
    before = files_state(first), source_state(first, first.table())
    assert (files_state(opened(scenes)), source_state(first, first.table())) == before
    part = files_state(first, np.array([0, 1]))
    os.utime(scenes / "5.tif", ns=(1, 1))
    assert files_state(first) != before[0]
    assert files_state(first, np.array([1, 0])) == part
    (scenes / "5.tif").unlink()
    assert files_state(first) != before[0]


@pytest.mark.parametrize("max_bad", [0.01, 1])
@pytest.mark.parametrize("command", ["pack", "index"])
def test_the_list_is_written_also_where_every_sample_is_bad(
    scenes: Path, tmp_path: Path, command: str, max_bad: float
) -> None:
    for number in range(COUNT):
        (scenes / f"{number}.tif").write_bytes(b"II*\0 no more of it")
    out = tmp_path / "out.parquet"
    with pytest.raises(TooManyBadSamplesError if max_bad < 1 else ArchiveError, match=r"out\.parquet\.quarantine\.csv"):
        {"pack": pack, "index": index_archive}[command](opened(scenes), out, max_bad=max_bad)  # type: ignore[operator]
    listed = (tmp_path / "out.parquet.quarantine.csv").read_text().splitlines()
    assert len(listed) >= (COUNT + 1 if max_bad == 1 or command == "pack" else 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet.quarantine.csv", "scenes"]


def test_a_list_is_there_whenever_the_store_is(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the last chunk and the end: whatever is missing is written by the next run."""
    (scenes / "3.tif").write_bytes(b"II*\0 no more of it")
    out, listed = tmp_path / "p.zarr", tmp_path / "p.zarr.quarantine.csv"
    real = store_writer.publish

    def publish(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_writer, "publish", publish)
        with pytest.raises(KeyboardInterrupt):
            pack(opened(scenes), out, max_bad=0.5, limits=QualityLimits())
    before = listed.read_text()
    assert "3.tif" in before
    listed.unlink()
    pack(opened(scenes), out, max_bad=0.5)
    assert listed.read_text() == before


def test_a_catalogue_of_an_earlier_version_opens(scenes: Path, tmp_path: Path) -> None:
    index_archive(opened(scenes), tmp_path / "c.parquet")
    found = read_catalogue(tmp_path / "c.parquet")
    write_scenes(scenes, 160)
    assert len(replace(found, files=None).restrict(opened(scenes))) == COUNT
