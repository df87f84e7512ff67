"""Epochs become steps once, whether or not the pool changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from terrasieve.curation.pacing import CurationPlan
from terrasieve.training.optimisation import build_optimiser, learning_rates, set_rates, weight_decays
from terrasieve.training.schedules import Timeline, make_timeline
from terrasieve.training.spec import AdamW, Sgd, TrainSpec


def test_steps_may_be_stated_instead_of_epochs() -> None:
    spec = TrainSpec(epochs=9, steps=17, batch_size=10)
    for plan in (None, CurationPlan(warmup=1, every=1, keep=0.2)):
        timeline = make_timeline(50, spec, plan)
        assert timeline.steps == 17
        assert len(learning_rates(spec, timeline)) == 17
    assert make_timeline(50, spec, None).epochs[-1] == pytest.approx(17 * 10 / 50)


def test_warm_restarts_count_passes_over_the_pool_of_the_moment() -> None:
    # 5 steps a pass until step 5, then 1 step a pass: restarts at passes 2 and 6 are steps 6 and 10.
    spec = TrainSpec(epochs=14, batch_size=10, schedule={"name": "warm-restarts", "first_epochs": 2})  # type: ignore[arg-type]
    timeline = make_timeline(50, spec, CurationPlan(warmup=1, every=1, keep=0.2))
    rates = learning_rates(spec, timeline)
    assert (np.flatnonzero(np.diff(rates) > 0) + 1).tolist() == [6, 10]


@given(
    steps=st.lists(st.floats(0.01, 2), min_size=1, max_size=40),
    every=st.floats(0.05, 30),
)
def test_what_is_due_every_so_many_passes_is_due_at_the_nearest_steps(steps: list[float], every: float) -> None:
    epochs = np.concatenate([[0.0], np.cumsum(steps)])
    timeline = Timeline(epochs, frozenset())
    expected = {int(np.abs(epochs - k * every).argmin()) for k in range(1, int(epochs[-1] / every) + 1)}
    found = timeline.due(every)
    near_ties = any(
        abs(
            abs(np.sort(np.abs(epochs - k * every))[:2]).ptp()
            if hasattr(np.ndarray, "ptp")
            else np.ptp(np.sort(np.abs(epochs - k * every))[:2])
        )
        < 1e-6
        for k in range(1, int(epochs[-1] / every) + 1)
    )
    if not near_ties:
        assert found == (expected - {0}) | {timeline.steps}
    assert timeline.due(None) == {timeline.steps}


@pytest.mark.parametrize("kind", [Sgd, AdamW])
def test_weight_decay_runs_on_a_cosine_where_an_end_is_given(kind: type[Sgd] | type[AdamW]) -> None:
    spec = TrainSpec(optimiser=kind(weight_decay=0.04, weight_decay_end=0.4))
    decays = weight_decays(spec, 101)
    assert decays[[0, 50, 100]] == pytest.approx([0.04, 0.22, 0.4])
    assert (np.diff(decays) > 0).all()
    constant = weight_decays(TrainSpec(optimiser=kind(weight_decay=0.3)), 5)
    assert constant.tolist() == [0.3] * 5


def test_biases_and_normalisation_never_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimiser = build_optimiser(
        model, TrainSpec(optimiser=AdamW(weight_decay=0.0, weight_decay_end=0.4)), torch.device("cpu")
    )
    set_rates(optimiser, 0.5, 0.2)
    decays = {p: group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert {p.ndim: decay for p, decay in decays.items()} == {2: 0.2, 1: 0.0}
    assert {group["lr"] for group in optimiser.param_groups} == {0.5}
