"""The pool sampler: passes, ranks, prefetching, replacement, resuming."""

from __future__ import annotations

import os
import signal
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from terrasieve.errors import CheckpointError, ConfigError, SampleError, TrainingError
from terrasieve.streams import Stream, generator
from terrasieve.training import pool as pool_module
from terrasieve.training.feeding import Batches
from terrasieve.training.pool import Batch, PoolSampler


def _steps(sampler: PoolSampler, count: int) -> list[list[int]]:
    return [batch.indices.tolist() for batch in islice(iter(sampler), count)]


@given(samples=st.integers(1, 40), batch_size=st.integers(1, 17), seed=st.integers(0, 5))
def test_no_sample_is_lost_or_repeated_in_a_pass(samples: int, batch_size: int, seed: int) -> None:
    pool = np.arange(samples) * 3
    stream = np.concatenate(_steps(PoolSampler(pool, batch_size, seed), 3 * samples))
    for start in range(0, 2 * samples, samples):
        assert sorted(stream[start : start + samples]) == pool.tolist()


def test_passes_are_shuffled_differently() -> None:
    first, second = _steps(PoolSampler(np.arange(50), 50, seed=0), 2)
    assert first != second
    assert first != sorted(first)


@given(samples=st.integers(1, 40), share=st.integers(1, 5), world=st.integers(1, 4))
def test_ranks_together_see_what_one_process_sees(samples: int, share: int, world: int) -> None:
    pool = np.arange(samples)
    alone = _steps(PoolSampler(pool, share * world, seed=3), 7)
    ranks = [_steps(PoolSampler(pool, share * world, seed=3, rank=r, world_size=world), 7) for r in range(world)]
    assert [[i for rank in ranks for i in rank[step]] for step in range(7)] == alone


@given(samples=st.integers(1, 40), batch_size=st.integers(1, 17), trained=st.integers(0, 30))
def test_a_restored_sampler_continues_with_the_next_batch(samples: int, batch_size: int, trained: int) -> None:
    whole = _steps(PoolSampler(np.arange(samples), batch_size, seed=1), trained + 5)
    sampler = PoolSampler(np.arange(samples), batch_size, seed=1)
    for _ in range(trained):
        sampler.advance()
    restored = PoolSampler(np.arange(1), batch_size, seed=1)
    restored.restore(sampler.snapshot())
    assert restored.step == trained
    assert _steps(restored, 5) == whole[trained:]


@pytest.mark.parametrize("first", [0, 2**31 - 10, 2**40])
def test_a_pass_is_the_permutation_of_its_stream_however_large_the_indices(first: int) -> None:
    pool = first + np.arange(20)
    drawn = [batch.indices for batch in islice(iter(PoolSampler(pool, 5, seed=7)), 8)]
    assert {indices.dtype for indices in drawn} == {np.dtype(np.int64)}
    for epoch in range(2):
        expected = generator(Stream.POOL_PASS, 7, epoch).permutation(pool)
        np.testing.assert_array_equal(np.concatenate(drawn[4 * epoch :][:4]), expected)


def test_reading_ahead_across_the_end_of_a_pass_shuffles_each_pass_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(stream: Stream, seed: int, index: int = 0) -> np.random.Generator:
        asked.append(index)
        return generator(stream, seed, index)

    monkeypatch.setattr(pool_module, "generator", counted)
    sampler = PoolSampler(np.arange(20), 4, seed=0)
    ahead = iter(sampler)
    read = [next(ahead) for _ in range(3)]
    for step in range(20):
        read.append(next(ahead))
        np.testing.assert_array_equal(sampler.micro_batch(0, 1), read[step].indices)
        sampler.advance()
    assert asked == [0, 1, 2, 3, 4]


def test_reading_ahead_does_not_move_the_position() -> None:
    sampler = PoolSampler(np.arange(20), 4, seed=0)
    ahead = _steps(sampler, 9)
    assert sampler.step == 0
    assert _steps(sampler, 9) == ahead


def test_a_replaced_pool_begins_a_new_pass_at_the_same_step() -> None:
    sampler = PoolSampler(np.arange(20), 4, seed=0)
    stale = iter(sampler)
    next(stale)
    sampler.advance()
    sampler.replace(np.array([100, 101, 102, 103, 104, 105, 106, 107]))
    batches = list(islice(iter(sampler), 2))
    assert [batch.step for batch in batches] == [1, 2]
    assert sorted(np.concatenate([batch.indices for batch in batches])) == list(range(100, 108))
    with pytest.raises(RuntimeError, match="new iterator"):
        next(stale)


class _Echo(Dataset[Batch]):
    def __getitem__(self, batch: Batch) -> Batch:
        return batch


def test_a_replaced_pool_reaches_persistent_workers() -> None:
    sampler = PoolSampler(np.arange(20), 4, seed=0)
    loader = DataLoader(
        _Echo(), sampler=sampler, batch_size=None, num_workers=2, persistent_workers=True, collate_fn=lambda b: b
    )
    next(iter(loader))
    sampler.replace(np.arange(100, 108))
    seen = [next(stream) for stream in [iter(loader)] for _ in range(2)]
    assert sorted(np.concatenate([batch.indices for batch in seen])) == list(range(100, 108))


@pytest.mark.parametrize("pool", [[], [1, 1, 2], [[1, 2]]])
def test_a_pool_that_is_empty_or_repeats_is_refused(pool: list[int]) -> None:
    with pytest.raises(ConfigError):
        PoolSampler(np.array(pool, dtype=np.int64), 2, seed=0)


def test_a_batch_that_does_not_divide_over_processes_is_refused() -> None:
    with pytest.raises(ConfigError, match="not divisible by 3"):
        PoolSampler(np.arange(9), 8, seed=0, world_size=3)


def test_the_state_of_another_run_is_refused() -> None:
    state = PoolSampler(np.arange(9), 4, seed=0).snapshot()
    with pytest.raises(CheckpointError, match="batch_size 4"):
        PoolSampler(np.arange(9), 8, seed=0).restore(state)


class _Bad(Dataset[Batch]):
    """A reader of an archive whose first sample is bad, or which kills the process that it is in."""

    def __init__(self, fatal: bool, threaded: bool = False) -> None:
        self.fatal = fatal
        self.threaded = threaded

    def __getitem__(self, batch: Batch) -> Batch:
        if self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        raise SampleError("a.tif has no band B04.")


@pytest.mark.parametrize(
    ("workers", "threaded"), [(0, False), (1, True), (3, True), pytest.param(1, False, marks=pytest.mark.slow)]
)
def test_what_is_wrong_with_a_sample_is_said_as_it_is(workers: int, threaded: bool) -> None:
    batches = Batches(_Bad(fatal=False, threaded=threaded), PoolSampler(np.arange(4), 2, 0), workers)
    with pytest.raises(SampleError, match=r"^a\.tif has no band B04\.$"):
        next(batches)


@pytest.mark.slow
def test_a_killed_reader_process_is_named() -> None:
    with pytest.raises(TrainingError, match="A reader process was killed"):
        next(Batches(_Bad(fatal=True), PoolSampler(np.arange(4), 2, 0), 1))
