"""Packing to a server: the same objects, an end that comes last, interruptions, and who may write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remote_server import Dropping, Server
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed import packing, store_writer
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.packed.store import GROUP
from terrasieve.archive.packed.uploading import pack_to_address
from terrasieve.archive.packed.verifying import verify
from terrasieve.archive.protocol import Archive
from terrasieve.errors import ArchiveError, RemoteError
from terrasieve.files.object_store import ObjectFolder, staging_path


@pytest.fixture
def source(near: dict[bool, Path]) -> Archive:
    """Eighteen samples, which are quickly read."""
    return SubsetArchive(open_archive(near[False]), range(18))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four samples a chunk, in a folder of the test's own."""
    monkeypatch.setattr(packing, "CHUNK_BYTES", 4 * 12 * 32 * 32 * 2)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def place(server: Server) -> str:
    return f"s3://{server.bucket}/made/pairs.zarr"


def _objects(place: str) -> dict[str, bytes | None]:
    folder = ObjectFolder(place)
    return {name: folder.read(name) for name in sorted(folder.sizes())}


def _content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def _fail_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Be killed, as it were, before the record is told of a chunk."""
    real, left = store_writer.append_chunk, [call]

    def write(*arguments: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(store_writer, "append_chunk", write)


@pytest.mark.parametrize("compress", [False, True])
def test_the_objects_are_the_files_of_a_local_store(
    source: Archive, tmp_path: Path, place: str, compress: bool
) -> None:
    pack(source, tmp_path / "near", compress=compress)
    report = pack_to_address(source, place, compress=compress)
    assert _objects(place) == _content(tmp_path / "near")
    assert report.path == place
    assert report.bytes == sum(map(len, _content(tmp_path / "near").values()))
    assert verify(place).samples == 18
    assert not staging_path(place).exists()
    again = pack_to_address(source, place, compress=compress)
    assert (again.done_before, again.samples, again.bytes) == (True, 18, report.bytes)


def test_an_interrupted_store_is_none_and_goes_on(
    source: Archive, tmp_path: Path, place: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _fail_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            pack_to_address(source, place)
    with pytest.raises(ArchiveError, match="packing was not finished"):
        open_archive(place)
    # Of what was uploaded nothing lies here any more.
    assert not list(staging_path(place).glob("s2/c/*/0/0/0"))
    ObjectFolder(place).write("s2/c/99/0/0/0", b"of an earlier, longer store")
    server.asked.clear()
    pack_to_address(source, place)
    assert server.count("PUT", "s2/c/1/") == 0
    assert server.count("PUT", "s2/c/2/") == 1
    pack(source, tmp_path / "near")
    assert _objects(place) == _content(tmp_path / "near")


def test_a_lost_chunk_is_not_gone_on_from(source: Archive, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        _fail_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            pack_to_address(source, place)
    ObjectFolder(place).remove(["s1/c/1/0/0/0"])
    with pytest.raises(ArchiveError, match=r"lacks 1 chunks that were uploaded, such as s1/c/1/0/0/0.*--overwrite"):
        pack_to_address(source, place)
    pack_to_address(source, place, overwrite=True)
    assert len(PackedArchive(place)) == 18


def test_another_folder_is_refused_and_a_lost_record_begins_anew(
    source: Archive, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _fail_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            pack_to_address(source, place)
    (tmp_path / "other").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "other")
        with pytest.raises(ArchiveError, match=f"was begun elsewhere: .*{staging_path(place)}.*--overwrite"):
            pack_to_address(source, place)
    for path in staging_path(place).iterdir():
        if path.is_file():
            path.unlink()
    pack_to_address(source, place)
    assert len(PackedArchive(place)) == 18


def test_another_store_and_other_objects_are_left_alone(source: Archive, place: str) -> None:
    pack_to_address(source, place)
    before = _objects(place)
    other = SubsetArchive(source, range(1, 18))
    with pytest.raises(ArchiveError, match="finished store of another archive"):
        pack_to_address(other, place)
    assert _objects(place) == before
    folder = ObjectFolder(place.rpartition("/")[0])
    for overwrite in (False, True):
        with pytest.raises(ArchiveError, match=r"holds other objects; choose another --out"):
            pack_to_address(other, folder.address, overwrite=overwrite)
    folder.write(GROUP, json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}).encode())
    with pytest.raises(ArchiveError, match="is not a packed store; choose another --out"):
        pack_to_address(other, folder.address, overwrite=True)
    assert _objects(place) == before
    pack_to_address(other, place, overwrite=True)
    assert verify(place).samples == 17


def test_of_two_that_begin_one_wins(source: Archive, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ObjectFolder.sizes

    def taken_meanwhile(folder: ObjectFolder) -> dict[str, int]:
        found = real(folder)
        folder.write(GROUP, json.dumps({"attributes": {"terrasieve": {"packed_by": "another:/place"}}}).encode())
        return found

    monkeypatch.setattr(ObjectFolder, "sizes", taken_meanwhile)
    with pytest.raises(ArchiveError, match="begun elsewhere: another:/place"):
        pack_to_address(source, place)


def test_dropped_connections_are_tried_again_and_a_lost_server_leaves_what_goes_on(
    source: Archive, tmp_path: Path, place: str, dropping: Dropping
) -> None:
    dropping.drop(10**9)
    with pytest.raises(RemoteError, match=r"pairs\.zarr/zarr\.json cannot be read: .*run the same command again"):
        pack_to_address(source, place)
    dropping.drop(2)
    pack_to_address(source, place)
    assert dropping.cut > 2
    pack(source, tmp_path / "near")
    assert _objects(place) == _content(tmp_path / "near")
