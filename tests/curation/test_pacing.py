"""The rhythm of curation, counted sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrasieve.curation.pacing import CurationPlan

plans = st.builds(
    CurationPlan,
    warmup=st.floats(0, 3),
    every=st.none() | st.floats(0.1, 4),
    keep=st.floats(0.01, 1),
)
samples = st.integers(1, 500)
batches = st.integers(1, 64)


def test_a_run_is_a_warm_up_on_everything_and_then_passes_over_the_pool() -> None:
    plan = CurationPlan(warmup=2, every=3, keep=0.25)
    # 100 samples in batches of 10: 20 steps of warm-up; then a pool of 25, 7.5 -> 8 steps between rounds
    assert plan.pool_size(100) == 25
    assert plan.total_steps(100, 10, epochs=10) == 20 + 20
    assert plan.rounds(100, 10, 40).tolist() == [20, 28, 36]
    epochs = plan.epochs(100, 10, 40)
    assert epochs[[0, 10, 20]].tolist() == [0, 1, 2]
    assert epochs[40] == pytest.approx(10)


def test_static_curation_is_one_round() -> None:
    assert CurationPlan(warmup=1, every=None, keep=0.1).rounds(100, 10, 1000).tolist() == [10]


def test_without_a_warm_up_the_first_round_comes_first() -> None:
    assert CurationPlan(warmup=0, every=1, keep=0.5).rounds(40, 10, 5).tolist() == [0, 2, 4]


@pytest.mark.parametrize(("warmup", "step"), [(1.1, 11), (2.2, 22), (0.7, 7), (1.11, 12)])
def test_a_warm_up_of_whole_steps_is_no_step_longer(warmup: float, step: int) -> None:
    plan = CurationPlan(warmup=warmup, every=1, keep=1)
    assert plan.rounds(100, 10, 100)[0] == plan.total_steps(100, 10, warmup) == step


def test_a_run_that_ends_in_the_warm_up_has_no_round() -> None:
    plan = CurationPlan(warmup=2)
    assert plan.total_steps(100, 10, epochs=1.5) == 15
    assert plan.rounds(100, 10, 15).tolist() == []
    assert plan.rounds(100, 10, 20).tolist() == [], "no round comes after the last step"


@given(plan=plans, samples=samples, batch=batches, epochs=st.floats(0.01, 8))
def test_a_run_is_as_long_as_its_epochs(plan: CurationPlan, samples: int, batch: int, epochs: float) -> None:
    steps = plan.total_steps(samples, batch, epochs)
    passes = plan.epochs(samples, batch, steps)
    assert passes.shape == (steps + 1,)
    assert (np.diff(passes) > 0).all()
    assert passes[-1] >= epochs - 1e-9
    # At most the last batch of the warm-up and the last of the run are begun for less than a batch.
    assert steps <= 1 or plan.epochs(samples, batch, steps - 2)[-1] < epochs


@given(plan=plans, samples=samples, batch=batches, steps=st.integers(1, 300))
def test_rounds_lie_in_the_run_after_the_warm_up_and_apart(
    plan: CurationPlan, samples: int, batch: int, steps: int
) -> None:
    rounds = plan.rounds(samples, batch, steps)
    passes = plan.epochs(samples, batch, steps)
    assert (rounds < steps).all()
    assert (passes[rounds] >= plan.warmup - 1e-9).all()
    if plan.every is not None:
        assert (np.diff(passes[rounds]) >= plan.every - 1e-9).all()
    if (passes[:-1] >= plan.warmup).any():
        assert len(rounds), "the warm-up ended within the run, and no round followed"
