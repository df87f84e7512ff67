"""iBOT's loss and Sinkhorn-Knopp, beside lightly's and the formulas in float64."""

from __future__ import annotations

import terrasieve._torchvision  # noqa: F401  (must come first: lightly imports torchvision)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import IBOTPatchLoss
from lightly.loss.msn_loss import sinkhorn as msn_sinkhorn
from lightly.loss.swav_loss import sinkhorn as swav_sinkhorn
from torch import Tensor

from terrasieve.methods.ibot_loss import ibot_loss
from terrasieve.methods.pair_entropies import Sharpening
from terrasieve.methods.sinkhorn import sinkhorn_targets


def _cosines(n: int, prototypes: int, seed: int) -> Tensor:
    return torch.rand(n, prototypes, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _hidden(images: int, rows: int, columns: int, seed: int) -> Tensor:
    """At least one patch in the first image, none in the last of several."""
    hidden = torch.rand(images, rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.4
    hidden[-1] = False
    hidden[0, 0, 0] = True
    return hidden


# -------------------------------------------------------------------------------- iBOT


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 5),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    prototypes=st.integers(2, 30),
    seed=st.integers(0, 999),
)
def test_the_loss_equals_lightly_and_the_formula(
    images: int, rows: int, columns: int, prototypes: int, seed: int
) -> None:
    hidden = _hidden(images, rows, columns, seed)
    count = int(hidden.sum())
    taught, outputs = _cosines(count, prototypes, seed), _cosines(count, prototypes, seed + 1000)
    centre = _cosines(1, prototypes, seed + 2000)[0]
    targets = Sharpening(centre, 0.05)(taught)
    loss = ibot_loss(taught, outputs, hidden.sum(dim=(1, 2)), 0.1, Sharpening(centre, 0.05)).loss
    oracle = IBOTPatchLoss(output_dim=prototypes, teacher_temp=0.05, student_temp=0.1)
    oracle.center.center.copy_(centre)
    torch.testing.assert_close(loss, oracle(taught, outputs, hidden), rtol=1e-5, atol=1e-6)
    odds = (outputs.double() / 0.1).exp()
    entropies = -(targets.double() * (odds / odds.sum(1, keepdim=True)).log()).sum(1)
    parts = entropies.split(hidden.flatten(1).sum(1).tolist())
    expected = sum(float(part.mean()) for part in parts if len(part)) / images
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_loss_of_a_batch_is_the_mean_over_its_halves() -> None:
    counts = torch.tensor([1, 3, 0, 2])
    targets, outputs = _cosines(6, 5, 0).softmax(1), _cosines(6, 5, 1)
    halves = [
        ibot_loss(targets[:4], outputs[:4], counts[:2], 0.1).loss,
        ibot_loss(targets[4:], outputs[4:], counts[2:], 0.1).loss,
    ]
    torch.testing.assert_close(ibot_loss(targets, outputs, counts, 0.1).loss, sum(halves) / 2)


def test_the_loss_is_float32_under_autocast() -> None:
    counts = torch.tensor([8, 8])
    targets, outputs = _cosines(16, 64, 0).softmax(1), _cosines(16, 64, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = ibot_loss(targets, outputs, counts, 0.1).loss
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, ibot_loss(targets, outputs.float(), counts, 0.1).loss)


# ----------------------------------------------------------------------- Sinkhorn-Knopp


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 12),
    prototypes=st.integers(2, 40),
    temperature=st.sampled_from([0.04, 0.07, 1.0]),
    iterations=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_targets_equal_lightlys(n: int, prototypes: int, temperature: float, iterations: int, seed: int) -> None:
    outputs = _cosines(n, prototypes, seed)
    found = sinkhorn_targets(outputs, temperature, iterations)
    double = outputs.double()
    swav = swav_sinkhorn(double, iterations=iterations, epsilon=temperature)
    torch.testing.assert_close(found.double(), swav, rtol=1e-4, atol=1e-6)
    msn = msn_sinkhorn((double / temperature).exp(), iterations=iterations)
    torch.testing.assert_close(found.double(), msn, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum(1), torch.ones(n))


def test_more_iterations_take_prototypes_more_evenly() -> None:
    outputs = _cosines(64, 8, 0) + torch.linspace(-1, 1, 8)
    spread = [float(sinkhorn_targets(outputs, 0.3, k).sum(0).std()) for k in (1, 3, 10)]
    assert spread == sorted(spread, reverse=True)
    assert float(outputs.div(0.3).softmax(1).sum(0).std()) > 10 * spread[1]


@pytest.mark.parametrize("temperature", [1e-3, 1e-2])
def test_targets_stay_finite_where_the_exponential_would_not(temperature: float) -> None:
    outputs = _cosines(16, 16, 0)
    targets = sinkhorn_targets(outputs, temperature)
    assert torch.isfinite(targets).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(16))


def test_targets_are_float32_and_without_gradient_under_autocast() -> None:
    outputs = _cosines(8, 16, 0).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = sinkhorn_targets(outputs, torch.tensor(0.05))
    assert targets.dtype == torch.float32
    assert not targets.requires_grad
    torch.testing.assert_close(targets, sinkhorn_targets(outputs.detach().float(), 0.05))
