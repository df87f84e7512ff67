"""Schedules as arrays by step, against torch's own schedulers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from terrasieve.training.optimisation import learning_rates
from terrasieve.training.schedules import (
    cosine,
    make_timeline,
    off_boundary_warning,
    restart_epochs,
    total_steps,
    warm_restarts,
)
from terrasieve.training.spec import AdamW, Cosine, Sgd, TrainSpec


def _torch_rates(make: type, steps: int, lr: float, *arguments: float) -> np.ndarray:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimiser, *arguments)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return np.array(rates)


def test_warm_restarts_equal_torch_epoch_by_epoch() -> None:
    expected = _torch_rates(torch.optim.lr_scheduler.CosineAnnealingWarmRestarts, 200, 0.2, 10, 2, 0.002)
    np.testing.assert_allclose(warm_restarts(0.2, 0.002, np.arange(200.0), 10, 2), expected, atol=1e-12)


def test_warm_restarts_move_within_an_epoch_and_restart_on_time() -> None:
    rates = warm_restarts(0.2, 0.002, np.arange(700) / 7, first_epochs=10, multiplier=2)
    jumps = np.flatnonzero(np.diff(rates) > 0.1) + 1
    assert jumps.tolist() == [70, 210, 490]
    assert rates[0] == rates[70] == 0.2
    assert (np.diff(rates)[:69] < 0).all()


def test_cosine_equals_torch_and_reaches_both_ends() -> None:
    expected = _torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, 51, 0.1, 50, 0.01)
    np.testing.assert_allclose(cosine(0.1, 0.01, 51), expected, atol=1e-12)


@given(steps=st.integers(1, 60), warmup=st.integers(0, 80))
def test_warm_up_rises_to_the_start_and_never_above(steps: int, warmup: int) -> None:
    rates = cosine(1.0, 0.0, steps, warmup)
    assert rates.shape == (steps,)
    assert rates.max() <= 1
    assert (np.diff(rates[: min(warmup, steps)]) > 0).all()
    if warmup < steps:
        assert rates[warmup] == 1


def test_the_papers_400_epochs_end_off_a_boundary() -> None:
    assert restart_epochs(400, 10, 2) == [10, 30, 70, 150, 310, 630]
    warning = off_boundary_warning(400, 10, 2)
    assert warning is not None
    assert "310" in warning
    assert "630" in warning
    assert warm_restarts(0.2, 0.002, np.arange(400.0), 10, 2)[-1] == pytest.approx(0.164, abs=0.002)


@pytest.mark.parametrize("epochs", [10, 30, 70, 150, 310, 630])
def test_a_run_that_ends_on_a_boundary_is_not_warned_about(epochs: int) -> None:
    assert off_boundary_warning(epochs, 10, 2) is None


def test_a_run_shorter_than_the_first_cycle_is_warned_about() -> None:
    warning = off_boundary_warning(4, 10, 2)
    assert warning is not None
    assert "40%" in warning


@given(samples=st.integers(1, 1000), batch=st.integers(1, 100), epochs=st.floats(0.01, 10))
def test_total_steps_show_at_least_the_stated_samples(samples: int, batch: int, epochs: float) -> None:
    steps = total_steps(samples, batch, epochs)
    assert steps * batch >= samples * epochs
    assert steps == 1 or (steps - 1) * batch < samples * epochs


@pytest.mark.parametrize("optimiser", [Sgd, AdamW])
def test_a_rate_that_is_stated_for_a_batch_scales_with_the_batch(optimiser: type[Sgd] | type[AdamW]) -> None:
    def rates(**settings: float) -> list[float]:
        spec = TrainSpec(
            batch_size=64, schedule=Cosine(), optimiser=optimiser(lr=0.5, lr_end=0.01, **settings), steps=9
        )
        return learning_rates(spec, make_timeline(640, spec, None)).tolist()

    assert rates()[0] == 0.5
    assert rates(lr_batch=64) == rates()
    assert rates(lr_batch=256)[0] == 0.125
    assert rates(lr_batch=256)[-1] == pytest.approx(0.01), "the lowest rate is not for a batch"
