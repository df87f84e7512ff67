"""From fixed measurements to a plan: every figure against the sum done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from terrasieve.errors import ConfigError
from terrasieve.estimates.extrapolation import (
    CATALOGUE_ROW,
    INDEX_ROW,
    POOL_ROW,
    ROUND_ROW,
    TABLE_ROW,
    Assumptions,
    Basis,
    all_reduce_seconds,
    extrapolate,
)
from terrasieve.estimates.trial_results import NetworkSize, Pace, SampleBytes, StepTime, TrialResults
from terrasieve.estimates.workload import Workload
from terrasieve.training.memory import MemoryNeed

FOUND = TrialResults(
    machine="a machine",
    archive="an archive",
    opening=Pace(100, 0.1, 0.05),
    index=Pace(100, 0.9, 0.45),
    pack=Pace(50, 1.0, 0.8),
    embed=Pace(200, 1.0, 0.9),
    # A step of b samples takes 0.1 + 0.01 b seconds.
    steps={2: Pace(10, 1.2, 1.0), 64: Pace(2, 1.48, 1.2)},
    products=Pace(1e9, 2.0, 1.5),
    bytes=SampleBytes(input=1000.0, packed=400.0),
    network=NetworkSize(
        features=8,
        trained=10**6,
        state=5 * 10**6,
        embed_flops=1e9,
        train_flops=1e10,
        need=MemoryNeed(fixed=10**7, per_sample=10**5),
    ),
    peaks={"index": 10, "pack": 20, "embed": 30, "training": 40, "rounds": 50},
)
WORK = Workload(
    samples=1000,
    parts=10,
    trained_on=1000,
    batch=64,
    accumulate=1,
    steps=500,
    rounds=3,
    embedded=1000,
    clustered=1e6,
    fitted=100,
    checkpoints=2,
)
LINK = Assumptions(network_gbytes=1.0)


def test_what_two_runs_have_in_common_counts_in_neither() -> None:
    short, long = Pace(4, 1.04, 0.54), Pace(104, 2.04, 1.54)
    assert long.beyond(short) == Pace(100, pytest.approx(1.0), pytest.approx(1.0))
    assert long.beyond(long) == long
    # Noise: the longer run took no longer.
    assert Pace(8, 1.0, 0.6).beyond(short) == Pace(8, 1.0, 0.6)


def test_a_step_is_a_line_through_the_smallest_and_the_largest_batch() -> None:
    line = StepTime.of(FOUND.steps, "wall")
    assert line.step(64) == pytest.approx(0.74)
    assert line.step(16) == pytest.approx(0.26)
    assert line.fixed == pytest.approx(0.1)


@pytest.mark.parametrize("steps", [{64: Pace(2, 1.28, 1)}, {2: Pace(1, 0.01, 1), 64: Pace(2, 1.28, 1)}])
def test_a_step_of_no_samples_never_takes_less_than_no_time(steps: dict[int, Pace]) -> None:
    line = StepTime.of(steps, "wall")
    assert line == StepTime(0.0, pytest.approx(0.01))


def test_the_machine_with_the_most_parts_decides() -> None:
    jobs = extrapolate(FOUND, WORK, (1, 4, 8, 16), LINK).jobs
    # Ten parts of 100 samples, of which the busiest machine has 10, 3, 2 and 1; 20 ms a sample.
    assert [job.value for job in jobs["pack"].seconds.values()] == pytest.approx([20.0, 6.0, 4.0, 2.0])
    # Opening is part of indexing: 1 + 9 ms a sample.
    assert [job.value for job in jobs["index"].seconds.values()] == pytest.approx([10.0, 3.0, 2.0, 1.0])
    assert jobs["embed"].seconds[4].value == pytest.approx(3 * 100 * 0.005)


def test_parts_of_uneven_length_are_as_long_as_the_longest() -> None:
    work = replace(WORK, samples=1001)
    assert extrapolate(FOUND, work, (1,), LINK).jobs["pack"].seconds[1].value == pytest.approx(10 * 101 * 0.02)


def test_readers_share_what_is_read_from_disk_and_nothing_else() -> None:
    alone, shared = (extrapolate(FOUND, WORK, (1,), Assumptions(1.0, readers=count)).jobs for count in (1, 4))
    for name in ("index", "pack"):
        assert shared[name].seconds[1].value == pytest.approx(alone[name].seconds[1].value / 4)
        assert (alone[name].seconds[1].basis, shared[name].seconds[1].basis) == (Basis.EXTRAPOLATED, Basis.ASSUMED)
    assert shared["embed"] == alone["embed"]


def test_training_holds_the_batch_and_adds_the_exchange() -> None:
    plan = extrapolate(FOUND, WORK, (1, 4), LINK)
    one, four = plan.steps[1], plan.steps[4]
    assert (one.samples, four.samples) == (64, 16)
    assert one.exchange.value == 0
    # 4 MB, of which 2 * 3 / 4 pass a link of 1 GB/s.
    assert four.exchange.value == pytest.approx(0.006)
    assert four.compute.value == pytest.approx(0.26)
    assert four.efficiency.value == pytest.approx(0.74 / (4 * 0.266))
    assert plan.jobs["training"].seconds[4].value == pytest.approx(500 * 0.266)
    assert four.reading.value == pytest.approx(64 * 400 / 0.266)
    assert one.compute.basis is Basis.MEASURED
    assert (four.compute.basis, four.efficiency.basis) == (Basis.EXTRAPOLATED, Basis.ASSUMED)


@pytest.mark.parametrize(("machines", "seconds"), [(1, 0.0), (2, 4e-3), (64, 7.875e-3)])
def test_a_ring_sends_nearly_twice_the_gradient(machines: int, seconds: float) -> None:
    assert all_reduce_seconds(10**6, machines, 1.0) == pytest.approx(seconds)


def test_a_round_embeds_and_clusters_on_all() -> None:
    rounds = extrapolate(FOUND, WORK, (1, 4), LINK).jobs["rounds"]
    # A thousand samples of 5 ms; a million pairs of vectors of 8 numbers, 2 ns each.
    assert rounds.seconds[1].value == pytest.approx(3 * (5.0 + 0.016))
    assert rounds.seconds[4].value == pytest.approx(3 * (1.25 + 0.004))


def test_an_assumed_rate_stands_in_for_what_was_measured() -> None:
    plan = extrapolate(FOUND, WORK, (4,), Assumptions(1.0, sustained_tflops=2.0))
    assert plan.steps[4].compute.value == pytest.approx(16 * 1e10 / 2e12)
    assert plan.jobs["embed"].seconds[4].value == pytest.approx(300 * 1e9 / 2e12)
    assert plan.jobs["rounds"].seconds[4].value == pytest.approx(3 * (250 * 1e9 + 2 * 8e6 / 4) / 2e12)
    assert {plan.jobs[name].seconds[4].basis for name in ("embed", "rounds", "training")} == {Basis.ASSUMED}
    assert plan.jobs["pack"] == extrapolate(FOUND, WORK, (4,), LINK).jobs["pack"]


def test_a_job_takes_what_its_bytes_need() -> None:
    free, bound = (
        extrapolate(FOUND, WORK, (1, 8), Assumptions(1.0, storage_gbytes=rate)).jobs for rate in (None, 1e-4)
    )
    # 1.4 MB through 0.1 MB a second.
    pack = bound["pack"].seconds
    assert (pack[1], pack[8].value) == (free["pack"].seconds[1], pytest.approx(14.0))
    assert pack[8].basis is Basis.ASSUMED
    for one in (1, 8):
        each = [job.seconds[one].value for name, job in bound.items() if name != "together"]
        assert bound["together"].seconds[one].value == pytest.approx(sum(each))


def test_the_clock_that_is_asked_for_counts() -> None:
    jobs = extrapolate(FOUND, WORK, (1,), Assumptions(1.0, clock="processor")).jobs
    assert jobs["pack"].seconds[1].value == pytest.approx(1000 * 0.8 / 50)
    assert jobs["index"].seconds[1].value == pytest.approx(1000 * 0.5 / 100)
    assert jobs["training"].seconds[1].value == pytest.approx(500 * 0.6)


def test_bytes() -> None:
    jobs = extrapolate(FOUND, WORK, (1,), LINK).jobs
    moved = {name: (job.read.value, job.written.value) for name, job in jobs.items()}
    assert moved["index"] == (1e6, CATALOGUE_ROW * 1000)
    assert moved["pack"] == (1e6, 4e5)
    assert moved["embed"] == (4e5, 32e3)
    # Pixels once, and the vectors of 32 bytes twice, in each of three rounds; one map of them stays.
    assert moved["rounds"] == (3 * 1000 * 464, 32e3)
    assert moved["training"] == (500 * 64 * 400, 1e7)
    assert moved["together"] == tuple(map(sum, zip(*(moved[name] for name in list(jobs)[:-1]), strict=True)))


def test_memory() -> None:
    plan = extrapolate(FOUND, WORK, (1, 4), LINK)
    memory = {name: [job.memory[one].value for one in (1, 4)] for name, job in plan.jobs.items()}
    assert memory["index"] == [10 + 100 * INDEX_ROW] * 2
    assert memory["pack"] == [20 + 1000 * TABLE_ROW] * 2
    # Rows, and a share of all vectors and of those that clusters are fitted on.
    held = 30 + 1000 * (TABLE_ROW + ROUND_ROW)
    assert memory["rounds"] == [held + 32 * 1100, held + 8 * 1100]
    rows = 20 + 1000 * (TABLE_ROW + POOL_ROW)
    assert memory["training"] == [rows + 10**7 + 64 * 10**5, rows + 10**7 + 16 * 10**5]
    assert memory["together"] == memory["training"]


def test_micro_batches_hold_less() -> None:
    plan = extrapolate(FOUND, replace(WORK, accumulate=4), (1,), LINK)
    assert plan.steps[1].device.value == 10**7 + 16 * 10**5


def test_jobs_come_one_after_the_other() -> None:
    jobs = extrapolate(FOUND, WORK, (1, 4), LINK).jobs
    for one in (1, 4):
        each = [job.seconds[one].value for name, job in jobs.items() if name != "together"]
        assert jobs["together"].seconds[one].value == pytest.approx(sum(each))
    # The exchange between several is assumed, and so is a sum that holds it.
    assert jobs["together"].seconds[1].basis is Basis.EXTRAPOLATED
    assert jobs["together"].seconds[4].basis is Basis.ASSUMED


@pytest.mark.parametrize(("machines", "accumulate"), [(3, 1), (64, 1), (16, 4)])
def test_machines_that_the_batch_does_not_split_over_are_refused(machines: int, accumulate: int) -> None:
    with pytest.raises(ConfigError, match=f"--machines {machines}: train.batch_size 64"):
        extrapolate(FOUND, replace(WORK, accumulate=accumulate), (1, machines), LINK)


def test_it_is_said_where_one_batch_alone_was_measured() -> None:
    small = replace(FOUND, steps={2: FOUND.steps[2]})
    assert extrapolate(small, WORK, (1,), LINK).proportional
    assert not extrapolate(FOUND, WORK, (1,), LINK).proportional
    assert not extrapolate(small, WORK, (1,), Assumptions(1.0, sustained_tflops=1.0)).proportional
