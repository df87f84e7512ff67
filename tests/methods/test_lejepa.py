"""LeJEPA: its two terms against independent implementations, and what is random about it."""

from __future__ import annotations

import copy
from pathlib import Path
from unittest import mock

import terrasieve._torchvision  # noqa: F401  (must come first: lightly imports torchvision)

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import LeJEPALoss, SIGReg
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn

from apart import run_ranks
from terrasieve.errors import ConfigError
from terrasieve.methods.lejepa import Lejepa, LejepaSpec, agreement
from terrasieve.methods.sigreg import sigreg
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder


def unit_columns(d: int, slices: int, seed: int = 0) -> Tensor:
    drawn = torch.randn(d, slices, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=0)


def made(seed: int = 0, views: tuple[int, ...] = (2, 2)) -> Lejepa:
    encoder = build_encoder(BackboneSpec(name="test_resnet"), seed=0)
    return LejepaSpec(hidden=16, output=8, slices=32, global_branches=1).build(encoder, views, seed)


def views_of(n: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 1, size, size, generator=generator) for size in (32, 32, 16, 16)]


# ------------------------------------------------------------------------------- the loss


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 40), d=st.integers(1, 20), shift=st.floats(-3, 3), scale=st.floats(0, 5))
def test_sigreg_is_lightlys(n: int, d: int, shift: float, scale: float) -> None:
    vectors = shift + scale * torch.randn(n, d, generator=torch.Generator().manual_seed(n))
    directions = unit_columns(d, 50)
    oracle = SIGReg(num_vectors=50)
    with mock.patch.object(oracle, "_generate_unit_vectors", return_value=directions):
        torch.testing.assert_close(sigreg(vectors, directions), oracle(vectors), rtol=1e-4, atol=1e-5)


def test_the_loss_is_lightlys() -> None:
    method, views = made(), views_of()
    seen: list[Tensor] = []
    method.projector.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    found = method(views)
    # The projections of all views come in one pass, those of the two global ones first.
    wide, local = torch.stack(list(seen[0].chunk(4))).chunk(2)
    oracle = LeJEPALoss(sigreg_num_vectors=32)
    with mock.patch.object(oracle.sigreg, "_generate_unit_vectors", return_value=method._directions(wide[0])):
        torch.testing.assert_close(found.loss.detach(), oracle(local_proj=local, global_proj=wide))


def test_the_statistic_is_small_for_normal_vectors_and_large_for_all_else() -> None:
    generator = torch.Generator().manual_seed(2)
    normal = torch.randn(2000, 16, generator=generator)
    directions = unit_columns(16, 200)
    least = sigreg(normal, directions)
    line = normal[:, :1].expand(-1, 16)
    for other in (torch.zeros_like(normal), normal + 0.5, 2 * normal, line, torch.sign(normal[:, :1]) * torch.ones(16)):
        assert sigreg(other, directions) > 10 * least


def test_views_agree_with_the_mean_of_the_global_ones() -> None:
    generator = torch.Generator().manual_seed(3)
    projections = [torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(5)]
    middle = (projections[0] + projections[1]) / 2
    expected = np.mean([((one - middle) ** 2).mean().item() for one in projections])
    assert agreement(projections, 2).item() == pytest.approx(expected)
    assert agreement([projections[0]] * 4, 2).item() == 0


def test_it_is_computed_in_full_precision_under_autocast() -> None:
    vectors, directions = torch.randn(64, 8, generator=torch.Generator().manual_seed(4)), unit_columns(8, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = sigreg(vectors, directions)
    assert under.dtype == torch.float32
    torch.testing.assert_close(under, sigreg(vectors, directions), rtol=0, atol=0)


# -------------------------------------------------------------------------- the directions


def test_directions_are_of_unit_length_and_new_at_each_step() -> None:
    method, like = made(), torch.zeros(3, 8)
    first = method._directions(like)
    assert first.shape == (8, 32)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(32))
    assert torch.equal(first, method._directions(like)), "micro-batches of a step share them"
    method.after_step(0.5)
    assert not torch.equal(first, method._directions(like))
    assert not torch.equal(first, made(seed=1)._directions(like))


def test_a_resumed_run_draws_the_directions_that_it_would_have_drawn() -> None:
    method, like = made(), torch.zeros(3, 8)
    for _ in range(3):
        method.after_step(0.1)
    resumed = made()
    resumed.load_state_dict(copy.deepcopy(method.state_dict()))
    assert torch.equal(resumed._directions(like), method._directions(like))


# ---------------------------------------------------------------------------- in training


def test_it_pulls_views_together_and_does_not_collapse() -> None:
    torch.manual_seed(0)
    method = made()
    optimiser = torch.optim.AdamW(method.parameters(), lr=1e-3)
    first, *_, last = (_trained_step(method, optimiser) for _ in range(30))
    assert last["invariance"] < first["invariance"]
    assert last["sigreg"] < first["sigreg"]


def _trained_step(method: Lejepa, optimiser: torch.optim.Optimizer) -> dict[str, float]:
    output = method(views_of(32))
    output.loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    method.after_step(0.5)
    return {name: float(value) for name, value in output.metrics.items()}


def test_one_global_view_is_refused() -> None:
    with pytest.raises(ConfigError, match="LeJEPA compares two or more global views"):
        made(views=(1, 4))


def _half_of_the_batch(folder: Path) -> None:
    distributed.init_process_group("gloo")
    vectors, directions = _vectors()
    own = vectors.chunk(2)[distributed.get_rank()].clone().requires_grad_()
    loss = sigreg(own, directions)
    (gradient,) = torch.autograd.grad(loss, own)
    save_file({"loss": loss.detach(), "gradient": gradient}, folder / f"{distributed.get_rank()}.safetensors")


def _vectors() -> tuple[Tensor, Tensor]:
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(5)), unit_columns(5, 40)


@pytest.mark.slow
def test_two_processes_compare_the_vectors_of_both(tmp_path: Path) -> None:
    run_ranks(_half_of_the_batch, tmp_path)
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1)]
    vectors, directions = _vectors()
    vectors.requires_grad_()
    whole = sigreg(vectors, directions)
    (gradient,) = torch.autograd.grad(whole, vectors)
    for rank, own in enumerate(gradient.chunk(2)):
        assert float(found[rank]["loss"]) == pytest.approx(float(whole.detach()), rel=1e-5)
        # Data-parallel training takes the mean over processes, which the sum over both of them is to come from.
        torch.testing.assert_close(found[rank]["gradient"] / 2, own, rtol=1e-4, atol=1e-6)


def test_the_exported_encoder_is_the_one_that_learns() -> None:
    encoder = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(16, 8)), 1, 8)
    method = LejepaSpec(hidden=8, output=4, slices=8).build(encoder, (2,), 0)
    assert method.exported is method.target_encoder is method.encoder is encoder
