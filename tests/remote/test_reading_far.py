"""Stores on a server: what is read is what is read of the local store, with and without a cache."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from remote_server import Dropping, Server
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.chunk_cache import ChunkCache
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.packed.verifying import verify
from terrasieve.archive.protocol import Window
from terrasieve.errors import ArchiveError, ConfigError, RemoteError, SampleError
from terrasieve.files.object_store import ObjectFolder

WINDOW = Window(top=3, left=5, height=20, width=21)
CHUNK = 4 * 12 * 32 * 32 * 2
"""Bytes of the largest chunk of the store."""

both = pytest.mark.parametrize("local", [False, True], ids=["plain", "compressed"], indirect=True)


def _files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"]


@both
@pytest.mark.parametrize("cached", [False, True])
def test_pixels_are_those_of_the_local_store(local: Path, address: str, tmp_path: Path, cached: bool) -> None:
    near = PackedArchive(local)
    far = open_archive(address, cache=ChunkCache(tmp_path / "cache", 2**30) if cached else None)
    assert isinstance(far, PackedArchive)
    assert far.ids.tolist() == near.ids.tolist()
    assert far.manifest == near.manifest
    assert far.table().equals(near.table())
    assert far.mapped
    for index in (0, 7, len(near) - 1):
        for sensor, bands in (("s2", None), ("s2", ("B08", "B03")), ("s1", ("VH",))):
            for window in (None, WINDOW):
                expected = near.read(index, sensor, bands, window)
                np.testing.assert_array_equal(far.read(index, sensor, bands, window), expected, strict=True)
                np.testing.assert_array_equal(far.view(index, sensor, bands, window), expected, strict=True)
    again = pickle.loads(pickle.dumps(far))
    np.testing.assert_array_equal(again.read(3, "s2"), near.read(3, "s2"))
    with pytest.raises(SampleError, match="leaves sample 0"):
        far.read(0, "s2", None, Window(top=30, left=0, height=8, width=8))
    with pytest.raises(IndexError):
        far.read(len(near), "s2")
    assert verify(address).samples == len(near)


@both
def test_a_cached_chunk_is_asked_for_once(address: str, server: Server, tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path / "cache", 2**30)
    far = PackedArchive(address, cache)
    server.asked.clear()
    for _ in range(2):
        for index in range(len(far)):
            far.read(index, "s2")
    assert server.count("s2/c/") == 6
    # Another archive, as another process would have it, finds them there.
    server.asked.clear()
    PackedArchive(address, cache).read(0, "s2")
    assert server.count("s2/c/") == 0


def test_threads_and_processes_fetch_a_chunk_once(address: str, server: Server, tmp_path: Path) -> None:
    far = PackedArchive(address, ChunkCache(tmp_path / "cache", 2**30))
    server.asked.clear()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: far.read(index, "s2"), [0, 1, 2, 3] * 4))
    assert server.count("s2/c/0/") == 1


def test_the_cache_keeps_to_its_bound_and_what_was_used_last(
    local: Path, address: str, server: Server, tmp_path: Path
) -> None:
    near, folder = PackedArchive(local), tmp_path / "cache"
    far = PackedArchive(address, ChunkCache(folder, 2 * CHUNK + CHUNK // 2))
    for index in (0, 4, 0, 8):  # chunks 0, 1, 0, 2: of the first two, 1 was used longest ago
        np.testing.assert_array_equal(far.read(index, "s2"), near.read(index, "s2"))
        assert sum(path.stat().st_size for path in _files(folder)) <= 2 * CHUNK + CHUNK // 2
    kept = {path.name for path in _files(folder)}
    digests = near.manifest.chunks["s2"]
    assert kept == {digests[0], digests[2]}
    server.asked.clear()
    far.read(0, "s2")
    assert server.count("s2/c/") == 0
    np.testing.assert_array_equal(far.read(4, "s2"), near.read(4, "s2"))
    assert server.count("s2/c/1/") >= 1


def test_what_a_kill_left_is_no_chunk_and_makes_room(address: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    far = PackedArchive(address, ChunkCache(folder, CHUNK))
    digest = far.manifest.chunks["s2"][0]
    (folder / digest[:2]).mkdir(parents=True)
    partial = folder / digest[:2] / f".{digest}.partial"
    partial.write_bytes(b"half")
    far.read(0, "s2")
    assert [path.name for path in _files(folder)] == [digest]


def test_a_chunk_too_large_for_the_cache_is_refused(address: str, tmp_path: Path) -> None:
    far = PackedArchive(address, ChunkCache(tmp_path / "cache", CHUNK - 1))
    with pytest.raises(ConfigError, match=r"one chunk of the store is 0\.1 MB.*--cache-size"):
        far.read(0, "s2")


@both
def test_other_pixels_are_not_kept(local: Path, address: str, tmp_path: Path) -> None:
    folder = ObjectFolder(address)
    folder.write("s2/c/0/0/0/0", local / "s2" / "c" / "1" / "0" / "0" / "0")
    far = PackedArchive(address, ChunkCache(tmp_path / "cache", 2**30))
    with pytest.raises(SampleError, match="chunk 0, is not what was packed"):
        far.read(0, "s2")
    assert not _files(tmp_path / "cache")
    with pytest.raises(ArchiveError, match="not as they were packed"):
        verify(address)


def test_a_digest_is_no_path(local: Path, address: str, tmp_path: Path) -> None:
    text = (local / "zarr.json").read_text()
    digest = PackedArchive(local).manifest.chunks["s2"][0]
    ObjectFolder(address).write("zarr.json", text.replace(digest, "../" * 4 + "escaped").encode())
    with pytest.raises(ArchiveError, match="no digest of each chunk"):
        PackedArchive(address, ChunkCache(tmp_path / "cache", 2**30))


def test_a_cache_of_a_local_store_is_refused(local: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is on this machine"):
        open_archive(local, cache=ChunkCache(tmp_path, 2**30))


# ------------------------------------------------------------------- dropped


@both
@pytest.mark.parametrize("cached", [False, True])
def test_dropped_connections_are_tried_again(
    local: Path, address: str, dropping: Dropping, tmp_path: Path, cached: bool
) -> None:
    far = PackedArchive(address, ChunkCache(tmp_path / "cache", 2**30) if cached else None)
    dropping.drop(2)
    np.testing.assert_array_equal(far.read(5, "s2"), PackedArchive(local).read(5, "s2"))
    assert dropping.cut == 2


@both
def test_a_lost_server_is_one_clear_error(address: str, dropping: Dropping, tmp_path: Path) -> None:
    far = PackedArchive(address, ChunkCache(tmp_path / "cache", 2**30))
    dropping.drop(10**9)
    with pytest.raises(RemoteError) as caught:
        far.read(5, "s2")
    words = str(caught.value)
    assert words.startswith(f"{address}/s2/c/1/0/0/0 cannot be read: http://127.0.0.1:{dropping.port}")
    assert "run the same command again" in words
    assert "\n" not in words
    assert 2 <= dropping.cut <= 20
    assert not _files(tmp_path / "cache")


@pytest.mark.parametrize("anew", [False, True])
def test_a_forked_process_says_so_instead_of_waiting(address: str, anew: bool) -> None:
    far = PackedArchive(address)
    far.read(0, "s2")
    fork = multiprocessing.get_context("fork")
    said, saying = fork.Pipe(duplex=False)

    def read() -> None:
        try:
            (PackedArchive(address) if anew else far).read(0, "s2")
        except RemoteError as error:
            saying.send(str(error))

    process = fork.Process(target=read)
    process.start()
    try:
        assert said.poll(60)
        assert "cannot be reached from a forked process" in said.recv()
    finally:
        process.kill()
        process.join()
