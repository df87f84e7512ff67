"""Feeding: batches read ahead are those read in line, a restart drops what was read, and readers are chosen."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest
import torch

from terrasieve.config import load_config
from terrasieve.errors import ConfigError
from terrasieve.training import feeding
from terrasieve.training.feeding import Batches, choose_workers
from terrasieve.training.pool import Batch, PoolSampler

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class _Noted:
    """A reader whose batch says which samples it is of, and which notes the threads that read."""

    def __init__(self, threaded: bool = True) -> None:
        self.threaded = threaded
        self.pool: Any = None
        self.threads: list[str] = []

    def __getitem__(self, batch: Batch) -> _Told:
        self.threads.append(threading.current_thread().name)
        return _Told(batch.step, batch.indices.tolist())


class _Told:
    def __init__(self, step: int, indices: list[int]) -> None:
        self.told = (step, indices)

    def to(self, device: torch.device) -> _Told:
        return self


def _taken(batches: Batches, sampler: PoolSampler, count: int) -> list[Any]:
    found = []
    for _ in range(count):
        found.append(next(batches).told)  # type: ignore[attr-defined]
        sampler.advance()
    return found


@pytest.mark.parametrize("workers", [1, 3])
def test_reading_ahead_gives_the_batches_that_reading_in_line_gives(workers: int) -> None:
    inline, ahead = (PoolSampler(np.arange(20), 4, seed=0) for _ in range(2))
    reader = _Noted()
    expected = _taken(Batches(_Noted(), inline, 0), inline, 12)  # type: ignore[arg-type]
    assert _taken(Batches(reader, ahead, workers), ahead, 12) == expected  # type: ignore[arg-type]
    assert all(name.startswith("read-ahead") for name in reader.threads)
    assert 12 <= len(reader.threads) <= 14, "one batch waits while one is worked on"


@pytest.mark.parametrize("workers", [0, 1, pytest.param("processes", marks=pytest.mark.slow)])
def test_after_a_restart_batches_are_of_the_new_pool(workers: int | str) -> None:
    sampler = PoolSampler(np.arange(20), 4, seed=0)
    processes = workers == "processes"
    batches = Batches(_Noted(threaded=not processes), sampler, 2 if processes else int(workers))  # type: ignore[arg-type]
    _taken(batches, sampler, 3)
    sampler.replace(np.arange(100, 108))
    batches.restart()
    found = _taken(batches, sampler, 2)
    assert [step for step, _ in found] == [3, 4]
    assert sorted(index for _, indices in found for index in indices) == list(range(100, 108))


@pytest.mark.slow
def test_processes_that_read_end_with_the_one_that_asked_for_them() -> None:
    sampler = PoolSampler(np.arange(20), 4, seed=0)
    batches = Batches(_Noted(threaded=False), sampler, 2)  # type: ignore[arg-type]  # it reads no archive
    _taken(batches, sampler, 3)
    batches.restart()
    _taken(batches, sampler, 1)
    assert len(multiprocessing.active_children()) == 2
    gc.disable()
    try:
        del batches
        assert not multiprocessing.active_children(), "they wait for the collector of cycles"
    finally:
        gc.enable()


def test_auto_measures_first_says_what_it_chose_and_loses_no_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[float, float]] = []

    def choose(reading: float, working: float, cores: int, device: torch.device) -> int:
        asked.append((reading, working))
        return 2

    monkeypatch.setattr(feeding, "choose_workers", choose)
    inline, chosen = (PoolSampler(np.arange(20), 4, seed=0) for _ in range(2))
    reader = _Noted()
    expected = _taken(Batches(_Noted(), inline, 0), inline, 15)  # type: ignore[arg-type]
    assert _taken(Batches(reader, chosen, "auto"), chosen, 15) == expected  # type: ignore[arg-type]
    assert len(asked) == 1
    assert min(asked[0]) >= 0
    assert "train.workers=2 from here on" in " ".join(capsys.readouterr().err.split())
    assert reader.threads[0] == threading.current_thread().name
    assert reader.threads[-1].startswith("read-ahead")


@pytest.mark.parametrize(
    ("reading", "working", "cores", "device", "wanted"),
    [
        (0.01, 1.0, 8, CPU, 0),
        (0.10, 1.0, 8, CPU, 1),
        (0.10, 1.0, 1, CPU, 0),
        (2.00, 1.0, 8, CPU, 3),
        (9.00, 1.0, 4, CPU, 3),
        (0.01, 1.0, 8, CUDA, 1),
        (0.01, 1.0, 1, CUDA, 1),
        (1.70, 1.0, 16, CUDA, 3),
    ],
)
def test_readers_are_as_many_as_keep_the_step_from_waiting(
    reading: float, working: float, cores: int, device: torch.device, wanted: int
) -> None:
    assert choose_workers(reading, working, cores, device) == wanted


def test_recipes_for_accelerators_measure_their_readers() -> None:
    assert load_config("oceansar-1-vits16", []).train.workers == "auto"
    assert load_config("rs-byol-1", []).train.workers == "auto"
    assert load_config("rs-byol-1-small", []).train.workers == 0
    with pytest.raises(ConfigError, match="workers"):
        load_config("rs-byol-1", ["train.workers=-1"])
