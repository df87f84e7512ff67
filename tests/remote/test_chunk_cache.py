"""The cache of chunks among processes that share it, are killed, and want more than it holds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.packed.chunk_cache import ChunkCache

SHAPE = (2, 1, 32, 32)
DTYPE = np.dtype("<u2")
LENGTH = 2 * 32 * 32 * 2
FORK = multiprocessing.get_context("fork")


def _name(number: int) -> str:
    return f"{number % 3:02x}" + f"{number:030x}"


def _pixels(number: int) -> NDArray[np.uint16]:
    return np.full(SHAPE, number, DTYPE)


def _taken(folder: Path) -> int:
    """Bytes in the folder; a file that goes meanwhile counts as gone."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def test_processes_share_a_cache_that_keeps_to_its_bound(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path, 3 * LENGTH + 1)

    def work(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 9, 60).tolist():
            found = cache.map(_name(number), SHAPE, DTYPE, lambda number=number: _pixels(number))
            assert (found == number).all()

    processes = [FORK.Process(target=work, args=(seed,)) for seed in range(3)]
    for process in processes:
        process.start()
    most = 0
    while any(process.is_alive() for process in processes):
        most = max(most, _taken(tmp_path))
        time.sleep(0.005)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    # Listing a folder that changes may miss what goes and see what comes: of one chunk at most.
    assert LENGTH <= most <= 4 * LENGTH
    assert _taken(tmp_path) == 3 * LENGTH


def test_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path, 2 * LENGTH)
    waits, waiting = FORK.Pipe(duplex=False)

    def hang() -> NDArray[np.uint16]:
        waiting.send(os.getpid())
        signal.pause()
        return _pixels(1)

    process = FORK.Process(target=cache.map, args=(_name(1), SHAPE, DTYPE, hang))
    process.start()
    assert waits.poll(60)
    process.kill()
    process.join()
    found = cache.map(_name(1), SHAPE, DTYPE, lambda: _pixels(1))
    assert (found == 1).all()
    assert _taken(tmp_path) == LENGTH


def test_a_file_of_another_length_is_fetched_anew(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path, 2 * LENGTH)
    cache.path(_name(1)).parent.mkdir()
    cache.path(_name(1)).write_bytes(b"short")
    assert (cache.map(_name(1), SHAPE, DTYPE, lambda: _pixels(1)) == 1).all()


def test_what_is_mapped_outlives_its_file(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path, LENGTH)
    first = cache.map(_name(1), SHAPE, DTYPE, lambda: _pixels(1))
    cache.map(_name(2), SHAPE, DTYPE, lambda: _pixels(2))
    assert not cache.touch(_name(1))
    assert (first == 1).all()
