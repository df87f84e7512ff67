"""A packed store that was damaged, changed or made up: what is noticed on opening it, and what by verifying it."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed import packing, store_writer
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.progress import PROGRESS
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.packed.store import CATALOGUE, KEY
from terrasieve.archive.packed.verifying import verify
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

SAMPLES = 10
ARCHIVE = SimulatedArchive(SimulatedSpec(seed=2, samples=SAMPLES, size=32))


@pytest.fixture(scope="module", params=[False, True], ids=["mapped", "compressed"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three chunks."""
    out = tmp_path_factory.mktemp("verified") / "store.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK_BYTES", 4 * 12 * 32 * 32 * 2)
        pack(ARCHIVE, out, compress=request.param)
    return out


@pytest.fixture
def store(packed: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(packed, tmp_path / "store.zarr"))


def change_manifest(store: Path, **values: Any) -> None:
    group = json.loads((store / "zarr.json").read_text())
    group["attributes"][KEY] |= values
    (store / "zarr.json").write_text(json.dumps(group))


def test_a_whole_store_is_as_it_was_packed(store: Path) -> None:
    for place in (store, f"file://{store}"):
        found = verify(place)
        assert (found.samples, found.chunks, found.catalogue) == (SAMPLES, 3 * len(ARCHIVE.sensors), True)
        assert found.summary().startswith(f"10 samples in {3 * len(ARCHIVE.sensors)} chunks of ")


def test_a_store_of_an_earlier_version_still_opens(store: Path) -> None:
    group = json.loads((store / "zarr.json").read_text())
    del group["attributes"][KEY]["catalogue"]
    (store / "zarr.json").write_text(json.dumps(group))
    assert PackedArchive(store).ids.tolist() == ARCHIVE.ids.tolist()
    assert "no digest of its table" in verify(store).summary()


@pytest.mark.parametrize("samples", [10**9, -5, 0, SAMPLES - 1, 1e30, "ten"])
def test_a_number_of_samples_that_is_not_that_of_the_arrays_is_refused(store: Path, samples: object) -> None:
    change_manifest(store, samples=samples)
    with pytest.raises(ArchiveError, match=r"states|is damaged"):
        open_archive(store)


def test_statistics_of_other_bands_are_refused(store: Path) -> None:
    change_manifest(store, statistics={"s2": []})
    with pytest.raises(ArchiveError, match="not those of the sensors' bands"):
        open_archive(store)


@pytest.mark.parametrize("rows", [slice(None, None, -1), slice(1, None), slice(0, 0)])
@pytest.mark.parametrize("by_url", [False, True])
def test_rows_that_moved_are_noticed(store: Path, rows: slice, by_url: bool) -> None:
    table = pq.read_table(store / CATALOGUE)
    pq.write_table(table.take(pa.array(range(SAMPLES)[rows], pa.int64())), store / CATALOGUE)
    with pytest.raises(ArchiveError, match=r"catalogue\.parquet is not the table that was packed"):
        PackedArchive(f"file://{store}" if by_url else store).table()


def test_rows_that_moved_are_noticed_without_a_digest(store: Path) -> None:
    change_manifest(store, catalogue=None)
    pq.write_table(pq.read_table(store / CATALOGUE).take(list(range(SAMPLES))[::-1]), store / CATALOGUE)
    with pytest.raises(ArchiveError, match="id names other samples than the table does"):
        verify(store)


def damage(store: Path) -> Path:
    chunk = store / "s2/c/1/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    return chunk


def test_overwritten_bytes_are_found_and_named(store: Path) -> None:
    damage(store)
    with pytest.raises(ArchiveError, match=r"1 of 9 chunks of .* the first: s2 chunk 1"):
        verify(store)


def test_exchanged_chunks_are_found(store: Path) -> None:
    first, second = store / "s1/c/0/0/0/0", store / "s1/c/1/0/0/0"
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])
    with pytest.raises(ArchiveError, match="2 of 9 chunks"):
        verify(store)


def test_digests_of_fewer_samples_are_no_proof(store: Path) -> None:
    chunks = json.loads((store / "zarr.json").read_text())["attributes"][KEY]["chunks"]
    change_manifest(store, chunks=chunks | {"s2": chunks["s2"][:-1]})
    with pytest.raises(ArchiveError, match="s2 has digests of 8 samples"):
        verify(store)


@pytest.mark.parametrize("linked", ["s2/c/1/0/0/0", "s2/c/1", "s2/c"])
def test_chunks_behind_links_are_not_read(store: Path, tmp_path: Path, linked: str) -> None:
    shutil.move(store / linked, tmp_path / "elsewhere")
    (store / linked).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SampleError, match="is a link, or lies behind one"):
        PackedArchive(store).read(5, "s2", ("B04",))
    with pytest.raises(ArchiveError, match="is a link, or lies behind one"):
        verify(store)


def test_a_table_behind_a_link_is_not_read(store: Path, tmp_path: Path) -> None:
    shutil.move(store / CATALOGUE, tmp_path / "elsewhere")
    (store / CATALOGUE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match="is a link"):
        PackedArchive(store)


def test_a_store_may_itself_be_behind_a_link(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    (tmp_path / "folder").symlink_to(tmp_path)
    for place in (tmp_path / "link", tmp_path / "folder" / "store.zarr"):
        assert verify(place).samples == SAMPLES


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _small_chunks: None) -> Path:
    """A store whose packing ended just before the last step."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_writer, "publish", fail)
        with pytest.raises(ArchiveError, match="goes on from here"):
            pack(ARCHIVE, tmp_path / "half")
    return tmp_path / "half"


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CHUNK_BYTES", 4 * 12 * 32 * 32 * 2)


def test_a_resumed_run_relies_on_no_chunk_that_was_changed(half: Path) -> None:
    damage(half)
    with pytest.raises(ArchiveError, match="chunk 1 of 's2' was changed since it was written"):
        pack(ARCHIVE, half)


def test_a_resumed_run_writes_through_no_link(half: Path, tmp_path: Path) -> None:
    shutil.move(half / "s2/c/2", tmp_path / "elsewhere")
    (half / "s2/c/2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match="is a link"):
        pack(ARCHIVE, half)


@pytest.mark.parametrize("deep", ["[" * 50_000 + "]" * 50_000, '{"a":' * 50_000 + "1" + "}" * 50_000])
def test_a_record_that_is_nested_without_end_is_one_clear_line(half: Path, deep: str) -> None:
    (half / PROGRESS).write_text(f'{{"source": {deep}}}')
    with pytest.raises(ArchiveError, match="more than 64 levels of nesting"):
        pack(ARCHIVE, half)


def test_the_command_says_what_it_found(store: Path, run_command: Callable[..., tuple[int, str]]) -> None:
    assert run_command("verify", store) == (0, f"Verified: {verify(store).summary()}")
    damage(store)
    code, said = run_command("verify", store)
    assert code == 1
    assert "1 of 9 chunks" in said
    assert "Traceback" not in said


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    from terrasieve.cli import main

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["terrasieve", *map(str, arguments)])
        monkeypatch.setattr("terrasieve.console.console.width", 500)
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), " ".join(capsys.readouterr().err.split())

    return run
