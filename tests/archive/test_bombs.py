"""Small files that claim what no memory holds: each is one sample that cannot be read, and the run goes on."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rasterio.io import MemoryFile

from small_archives.major_tom import CELLS, product, radar_blobs, row
from small_archives.so2sat import write as write_hdf5
from small_archives.ssl4eo_s12_v11 import file, named, write_store
from terrasieve.archive.catalogue import index_archive, read_catalogue
from terrasieve.archive.layouts.bigearthnet import BigEarthNetSpec
from terrasieve.archive.layouts.major_tom import MajorTomSpec
from terrasieve.archive.layouts.plain_table import PlainTableSpec
from terrasieve.archive.layouts.ssl4eo_s12_v11 import Ssl4eoS12V11Spec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.packed.verifying import verify
from terrasieve.archive.quality.limits import Problem
from terrasieve.archive.readers import parquet
from terrasieve.archive.readers.hdf5 import Hdf5Reader, values_of
from terrasieve.archive.readers.parquet import BlobReader, read_table
from terrasieve.archive.readers.patch_reader import item_address
from terrasieve.archive.readers.zarr import ZippedZarrReader, read_samples
from terrasieve.archive.readers.zarr_codecs import check_zip
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.sensors import SENSORS, Band, Sensor
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

AT_ONCE = "at once, more than 536,870,912 bytes"


# ------------------------------------------------------------------------ Zarr


def _change_zip(path: Path, change: Mapping[str, Callable[[dict[str, Any]], None]]) -> None:
    """Write a zipped store anew with other metadata, and without metadata of all in one."""
    with zipfile.ZipFile(path) as opened:
        content = {name: opened.read(name) for name in opened.namelist() if name != ".zmetadata"}
    for name, edit in change.items():
        values = json.loads(content[name])
        edit(values)
        content[name] = json.dumps(values).encode()
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in content.items():
            opened.writestr(name, data)


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata.update(values)


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    """Two stores of two locations, of radar; the second is the one to be damaged."""
    pixels = np.random.default_rng(0).normal(-12, 3, (2, 4, 2, 264, 264)).astype(np.float16)
    for number, names in enumerate((("a", "b"), ("c", "d")), start=1):
        path = tmp_path / file("train", "s1").replace("000001", f"{number:06}")
        write_store(path, names, named("s1"), pixels + number, 2)
    return path


@pytest.mark.parametrize(
    ("array", "values"),
    [
        ("bands", {"chunks": [4096, 1, 2, 264, 264]}),
        ("bands", {"chunks": [1, 1, 2, 20_000, 20_000]}),
        ("bands", {"shape": [4096, 4, 2, 264, 264], "chunks": [4096, 1, 1, 264, 264]}),
    ],
)
def test_a_chunk_of_zarr_that_claims_too_much_is_not_decoded(zipped: Path, array: str, values: dict[str, Any]) -> None:
    _change_zip(zipped, {f"{array}/.zarray": _set(**values)})
    reader = ZippedZarrReader(zipped.parent, SENSORS["s1"], (264, 264))
    with pytest.raises(SampleError, match=AT_ONCE):
        reader.read(item_address(zipped.name, 0, 0), [0, 1], None)


def test_names_of_zarr_without_end_are_not_read(zipped: Path) -> None:
    _change_zip(zipped, {"sample/.zarray": _set(shape=[10**9], chunks=[1])})
    with pytest.raises(SampleError, match=AT_ONCE):
        read_samples(zipped)


def test_an_entry_of_a_zip_that_claims_too_much_is_not_unzipped(tmp_path: Path) -> None:
    zeros = bytes(2**20)
    packing = zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packing as opened, opened.open("bands/0", "w") as entry:
        for _ in range(520):
            entry.write(zeros)
    with pytest.raises(SampleError, match=f"a.zip/bands/0 asks for .* {AT_ONCE}"):
        check_zip(tmp_path / "a.zip")


def test_one_hostile_store_is_quarantined_and_the_others_are_indexed(zipped: Path, tmp_path: Path) -> None:
    _change_zip(zipped, {"bands/.zarray": _set(chunks=[4096, 1, 2, 264, 264])})
    archive = open_archive(Ssl4eoS12V11Spec(root=tmp_path, sensors=("s1",)))
    report = index_archive(archive, tmp_path / "c.parquet", max_bad=1.0)
    assert (report.samples, report.counts) == (8, {Problem.UNREADABLE.value: report.rejected})
    assert zipped.name in report.quarantine.read_text()


# ------------------------------------------------------------------------ HDF5


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    for stem in ("training", "validation"):
        write_hdf5(tmp_path / f"{stem}.h5", np.random.default_rng(0).random((3, 32, 32, 10)), np.arange(3))
    return tmp_path


def test_a_chunk_of_hdf5_that_claims_too_much_is_not_decoded(hdf5: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(hdf5 / "validation.h5", "a") as opened:
        del opened["sen2"]
        shape, chunk = (3, 32, 32, 10), (10_000, 32, 32, 10)
        opened.create_dataset("sen2", shape, "f8", chunks=chunk, maxshape=(None, 32, 32, 10), compression="gzip")
    archive = open_archive(hdf5)
    with pytest.raises(SampleError, match=f"validation.h5, array 'sen2', .* {AT_ONCE}"):
        archive.read(3, "s2")
    report = index_archive(archive, tmp_path / "c.parquet", max_bad=1.0)
    assert report.samples + report.rejected == 6
    assert "validation/000002" in report.quarantine.read_text()


@pytest.mark.parametrize(
    ("shape", "kind", "why"),
    [((10**9, 17), "f8", AT_ONCE), ((3, 32, 32, 10**6), "f8", "another product"), ((3, 32, 32, 10), "O", "no numbers")],
)
def test_an_array_of_hdf5_is_judged_before_it_is_read(tmp_path: Path, shape: Any, kind: str, why: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as opened:
        opened.create_dataset("a", shape, h5py.vlen_dtype(np.uint8) if kind == "O" else kind)
    reader = Hdf5Reader(tmp_path, _ten_bands(), "a", (32, 32))
    with pytest.raises(SampleError, match=why):
        values_of(tmp_path / "x.h5", "a") if len(shape) == 2 else reader.read(item_address("x.h5", 0), [0], None)


def _ten_bands() -> Sensor:
    return Sensor(
        name="ten",
        kind="optical",
        bands=tuple(Band(name=f"b{n}", gsd=1, unit="dn", valid_range=(0, 1)) for n in range(10)),
    )


# --------------------------------------------------------------------- Parquet


def _sparse_tif(side: int) -> bytes:
    how = {"tiled": True, "blockxsize": side, "blockysize": side, "compress": "deflate", "SPARSE_OK": "TRUE"}
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore")
        with memory.open(driver="GTiff", height=side, width=side, count=1, dtype="uint8", **how):
            pass
        return bytes(memory.read())


def test_a_tif_in_a_table_that_claims_too_much_is_one_sample_lost(tmp_path: Path) -> None:
    real = radar_blobs(np.random.default_rng(0).random((2, 1068, 1068), np.float32) + 0.1)
    names = [product(cell).replace("S2A_MSIL2A", "S1A") for cell in CELLS]
    rows = [row(CELLS[0], names[0], real), row(CELLS[1], names[1], real | {"vh": _sparse_tif(32_768)})]
    (tmp_path / "Core-S1RTC/images").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "Core-S1RTC/images/part_00001.parquet", row_group_size=1)
    archive = open_archive(MajorTomSpec(root=tmp_path, sensors=("s1",)))
    with pytest.raises(SampleError, match="column vh asks for 32,768x32,768 px"):
        archive.read(1, "s1")
    report = index_archive(archive, tmp_path / "c.parquet", max_bad=1.0)
    assert (report.samples, report.rejected) == (1, 1)


def test_a_value_that_all_rows_share_is_kept_in_memory_once(tmp_path: Path) -> None:
    sensor = Sensor(name="one", kind="radar", bands=(Band(name="vv", gsd=10, unit="linear", valid_range=(0, 1)),))
    blob = radar_blobs(np.full((2, 8, 8), 0.5, np.float32))["vv"]
    shared = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3_000, np.int32)), pa.array([blob + bytes(2**20)]))
    pq.write_table(pa.table({"vv": shared}), tmp_path / "x.parquet")
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    pixels = BlobReader(tmp_path, sensor, {"vv": "vv"}, (8, 8)).read(item_address("x.parquet", 0, 2_500), [0], None)
    assert np.unique(pixels).tolist() == [0.5]
    # All rows would take 3 GB.
    assert pool.max_memory() - before < 2**29


def test_a_group_of_rows_that_declares_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("terrasieve.archive.readers.byte_limits.MOST_BYTES", 1_000)
    sensor = Sensor(name="one", kind="radar", bands=(Band(name="vv", gsd=10, unit="linear", valid_range=(0, 1)),))
    pq.write_table(pa.table({"vv": [bytes(500), bytes(range(250)) * 2]}), tmp_path / "x.parquet", compression="none")
    with pytest.raises(SampleError, match="row group 0, columns vv asks for"):
        BlobReader(tmp_path, sensor, {"vv": "vv"}, (8, 8)).read(item_address("x.parquet", 0, 0), [0], None)


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """A table of few bytes on the disk and many in memory, where a table may take a megabyte."""
    monkeypatch.setattr(parquet, "MOST_TABLE_BYTES", 2**20)
    n = 20_000
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["x" * 100]))
    return pa.table({"id": pa.array(range(n)).cast(pa.string()), "path": same, "patch_id": same, "s1_name": same})


@pytest.mark.parametrize("schema", [True, False], ids=["dictionaries", "texts"])
def test_a_table_that_grows_in_memory_is_refused_by_name(tmp_path: Path, wide: pa.Table, schema: bool) -> None:
    pq.write_table(wide, tmp_path / "t.parquet", store_schema=schema)
    assert (tmp_path / "t.parquet").stat().st_size < 2**20
    for opening in (read_table, read_catalogue, lambda path: PlainTableSpec(root=path, sensors={"s1": "s1"}).open()):
        with pytest.raises((ArchiveError, SampleError), match=r"t\.parquet.* takes more than 1,048,576 bytes"):
            opening(tmp_path / "t.parquet")


def test_lists_of_samples_that_grow_in_memory_are_refused_by_name(tmp_path: Path, wide: pa.Table) -> None:
    (tmp_path / "BigEarthNet-S2").mkdir()
    pq.write_table(wide.append_column("split", wide["id"]), tmp_path / "metadata.parquet")
    with pytest.raises((ArchiveError, SampleError), match=r"metadata\.parquet.*in memory"):
        open_archive(BigEarthNetSpec(root=tmp_path))


def test_a_table_comes_as_it_was_written(tmp_path: Path) -> None:
    table = pa.table({"id": [str(n) for n in range(3_000)], "v": np.arange(3_000.0), "w": [[n] for n in range(3_000)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=700)
    assert read_table(tmp_path / "t.parquet").equals(table)
    assert read_table((tmp_path / "t.parquet").read_bytes(), ["v"]).equals(table.select(["v"]))
    pq.write_table(table.slice(0, 0), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").schema.names == ["id", "v", "w"]
    assert read_table(tmp_path / "t.parquet", ["v"]).schema.names == ["v"]


def test_a_csv_file_without_content_counts_by_its_length(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w") as out:
        out.write("id,path\na,b.tif\n")
        out.truncate(60 * 10**9)
    with pytest.raises((ArchiveError, SampleError), match=r"t\.csv has 60,000,000,000 bytes"):
        PlainTableSpec(root=tmp_path / "t.csv", sensors={"s1": "s1"}).open()


# ---------------------------------------------------------------- packed stores


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "compressed"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bombs") / "store.zarr"
    pack(SimulatedArchive(SimulatedSpec(seed=1, samples=3, size=32)), out, compress=request.param)
    return out


@pytest.mark.parametrize("shape", [(3_000_000, 12, 32, 32), (3, 12, 200_000, 200_000)])
def test_a_packed_store_that_declares_large_chunks_is_not_opened(
    packed: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    metadata = json.loads((copy / "s2/zarr.json").read_text())
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = list(shape)
    (copy / "s2/zarr.json").write_text(json.dumps(metadata))
    for opening in (PackedArchive, verify):
        with pytest.raises(ArchiveError, match=f"array 's2', .* {AT_ONCE}"):
            opening(copy)
    assert verify(packed).samples == 3


# ------------------------------------------------------------------ no memory


def test_a_sample_for_which_there_is_no_memory_is_left_out_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = SimulatedArchive(SimulatedSpec(seed=1, samples=4, size=32))
    read = archive._read

    def hungry(index: int, *rest: Any) -> Any:
        if index == 2:
            raise MemoryError("Unable to allocate 60 GiB")
        return read(index, *rest)

    monkeypatch.setattr(archive, "_read", hungry)
    with pytest.raises(SampleError, match="sample 2 of sensor 's2' needs more memory than there is"):
        archive.read(2, "s2")
    report = index_archive(archive, tmp_path / "c.parquet", max_bad=1.0)
    assert (report.samples, report.rejected, report.counts) == (3, 1, {"unreadable": 1})


@pytest.mark.parametrize("step", ["check", "inspect_sample"])
def test_a_sample_that_cannot_be_looked_at_is_left_out_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from terrasieve.archive.quality import audit

    real, calls = getattr(audit, step), iter(range(100))

    def hungry(*values: Any) -> Any:
        if next(calls) == 1:
            raise MemoryError("Unable to allocate 60 GiB")
        return real(*values)

    monkeypatch.setattr(audit, step, hungry)
    archive = SimulatedArchive(SimulatedSpec(seed=1, samples=4, size=32))
    report = index_archive(archive, tmp_path / "c.parquet", max_bad=1.0)
    assert (report.samples, report.rejected) == (3, 1)
    assert "too many to check in memory" in report.quarantine.read_text()
