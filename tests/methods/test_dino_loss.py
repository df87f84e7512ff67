"""DINO's loss and its centre, and KoLeo, beside lightly's and the formulas in float64."""

from __future__ import annotations

import terrasieve._torchvision  # noqa: F401  (must come first: lightly imports torchvision)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import DINOLoss, KoLeoLoss
from torch import Tensor, distributed

from terrasieve.methods.dino_loss import Centre, dino_loss
from terrasieve.methods.koleo import koleo_loss
from terrasieve.methods.pair_entropies import Sharpening


def _cosines(count: int, n: int, prototypes: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(n, prototypes, generator=generator) * 2 - 1 for _ in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 6),
    prototypes=st.integers(2, 50),
    global_views=st.integers(1, 3),
    local_views=st.integers(0, 4),
    temperatures=st.sampled_from([(0.04, 0.1), (0.07, 0.1), (1.0, 0.5)]),
    seed=st.integers(0, 999),
)
def test_loss_equals_lightly_and_the_formula(
    n: int, prototypes: int, global_views: int, local_views: int, temperatures: tuple[float, float], seed: int
) -> None:
    local_views += global_views + local_views == 1
    taught = _cosines(global_views, n, prototypes, seed)
    outputs = _cosines(global_views + local_views, n, prototypes, seed + 1000)
    (row,) = _cosines(1, 1, prototypes, seed + 2000)
    loss = dino_loss(taught, outputs, temperatures[1], Sharpening(row[0], temperatures[0])).loss
    oracle = DINOLoss(output_dim=prototypes, student_temp=temperatures[1])
    oracle.center.copy_(row)
    torch.testing.assert_close(loss, oracle(taught, outputs, teacher_temp=temperatures[0]), rtol=1e-5, atol=1e-6)
    assert float(loss) == pytest.approx(_formula(taught, outputs, row, temperatures), rel=1e-5, abs=1e-6)


def _formula(taught: list[Tensor], outputs: list[Tensor], centre: Tensor, temperatures: tuple[float, float]) -> float:
    terms = []
    for i, target in enumerate(taught):
        shares = ((target.double() - centre.double()) / temperatures[0]).exp()
        for j, output in enumerate(outputs):
            odds = (output.double() / temperatures[1]).exp()
            logs = (odds / odds.sum(1, keepdim=True)).log()
            if i != j:
                terms += (-(shares / shares.sum(1, keepdim=True) * logs).sum(1)).tolist()
    return sum(terms) / len(terms)


def test_loss_sends_gradient_into_the_student_only() -> None:
    taught, outputs = _cosines(2, 3, 5, 0), _cosines(4, 3, 5, 1)
    for tensor in (*taught, *outputs):
        tensor.requires_grad_()
    dino_loss(taught, outputs, 0.1, Sharpening(torch.zeros(5), 0.04)).loss.backward()
    assert all(tensor.grad is None for tensor in taught)
    assert all(tensor.grad.any() for tensor in outputs)


def test_targets_are_sharper_at_a_lower_temperature() -> None:
    (taught,) = _cosines(1, 5, 20, 0)
    entropies = [float(torch.special.entr(Sharpening(torch.zeros(20), t)(taught)).sum()) for t in (0.04, 0.07, 1.0)]
    assert entropies == sorted(entropies)


def test_loss_is_float32_under_autocast() -> None:
    taught, outputs = _cosines(2, 64, 512, 0), _cosines(4, 64, 512, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = [[tensor.bfloat16() for tensor in tensors] for tensors in (taught, outputs)]
        loss = dino_loss(*low, 0.1, Sharpening(torch.zeros(512), 0.04)).loss
    rounded = [[tensor.float() for tensor in tensors] for tensors in low]
    expected = _formula(*rounded, torch.zeros(1, 512), (0.04, 0.1))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------- centre


def test_the_centre_equals_lightlys() -> None:
    ours, theirs = Centre(8, momentum=0.8), DINOLoss(output_dim=8, center_momentum=0.8)
    for step in range(3):
        taught = _cosines(2, 5, 8, step)
        ours.note(torch.cat(taught))
        ours.step()
        theirs.update_center(torch.stack(taught))
        torch.testing.assert_close(ours.value, theirs.center.flatten())


def test_the_centre_weighs_rows_and_not_notes() -> None:
    centre = Centre(3, momentum=0.0)
    centre.note(torch.ones(3, 3))
    centre.note(torch.full((1, 3), 5.0, dtype=torch.bfloat16))
    assert torch.equal(centre.value, torch.zeros(3))
    centre.step()
    torch.testing.assert_close(centre.value, torch.full((3,), 2.0))


def test_the_centre_is_shared_by_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_another(tensor: Tensor) -> None:
        tensor.add_(torch.tensor([30.0, 60.0, 3.0]))  # three rows, whose sums are these

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "all_reduce", with_another)
    centre = Centre(2, momentum=0.5)
    centre.note(torch.tensor([[2.0, 4.0]]))
    centre.step()
    torch.testing.assert_close(centre.value, 0.5 * torch.tensor([32.0, 64.0]) / 4)


def test_the_centres_state_is_its_value() -> None:
    centre = Centre(4)
    centre.note(torch.randn(2, 4))
    assert list(centre.state_dict()) == ["value"]
    assert dict(centre.named_buffers()).keys() == {"value"}, "other processes' notes must not be overwritten"


# -------------------------------------------------------------------------------- KoLeo


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 12), d=st.integers(2, 20), seed=st.integers(0, 999), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_koleo_equals_lightly_and_the_formula(n: int, d: int, seed: int, scale: float) -> None:
    vectors = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale
    unit = vectors.double() / vectors.double().norm(dim=1, keepdim=True)
    distances = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    loss = koleo_loss(vectors)
    torch.testing.assert_close(loss.double(), -distances.min(1).values.log().mean(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(loss, KoLeoLoss()(vectors), rtol=1e-3, atol=1e-3)


def test_koleo_pushes_neighbours_apart() -> None:
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.3]], requires_grad=True)
    before = koleo_loss(vectors)
    before.backward()
    assert koleo_loss(vectors - 0.01 * vectors.grad) < before


@pytest.mark.parametrize("rows", [1, 3])
def test_koleo_is_finite_for_equal_rows_and_a_single_one(rows: int) -> None:
    vectors = torch.ones(rows, 4, requires_grad=True)
    loss = koleo_loss(vectors)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(vectors.grad).all()
    assert rows > 1 or not loss.any()


def test_koleo_is_float32_under_autocast() -> None:
    vectors = torch.randn(6, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(koleo_loss(vectors), koleo_loss(vectors.clone()))
        low = koleo_loss(vectors.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(koleo_loss(vectors.bfloat16().float()), low)
