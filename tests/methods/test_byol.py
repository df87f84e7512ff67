"""BYOL: its loss, and what student and teacher do beside what every method promises."""

from __future__ import annotations

import copy
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: lightly imports torchvision)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import NegativeCosineSimilarity
from torch import Tensor, nn

from terrasieve.errors import ConfigError
from terrasieve.methods.byol import Byol, ByolSpec, byol_loss
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder


def _views(n: int = 4, channels: int = 1, size: int = 32) -> list[Tensor]:
    return [torch.randn(n, channels, size, size), torch.randn(n, channels, size, size) * 2]


def _resnet(spec: ByolSpec | None = None) -> Byol:
    return (spec or ByolSpec()).build(build_encoder(BackboneSpec(name="resnet18"), seed=0), (1, 1), seed=0)


def _without_norm(momentum: float = 0.9) -> Byol:
    """Small, and each row independent of the others in its batch."""
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    projector = nn.Sequential(nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 5))
    predictor = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 5))
    return Byol(Encoder(model, channels=1, features=24), projector, predictor, momentum)


def _trainable(method: Byol) -> dict[str, nn.Parameter]:
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


def _teacher(method: Byol) -> dict[str, Tensor]:
    model = method.teacher.model
    return copy.deepcopy({**dict(model.named_parameters()), **dict(model.named_buffers())})


def _student(method: Byol) -> dict[str, Tensor]:
    modules = {"encoder": method.encoder, "projector": method.projector}
    return {
        f"{prefix}.{name}": tensor.detach().clone()
        for prefix, module in modules.items()
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


# ------------------------------------------------------------------------- loss


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 8), d=st.integers(2, 40), seed=st.integers(0, 999), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_loss_equals_lightly_and_the_formula(n: int, d: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    p, z = torch.randn(n, d, generator=generator) * scale, torch.randn(n, d, generator=generator)
    loss = byol_loss(p, z)
    torch.testing.assert_close(loss, 2 + 2 * NegativeCosineSimilarity()(p, z), rtol=1e-5, atol=1e-5)
    p64, z64 = p.double(), z.double()
    cosine = (p64 * z64).sum(1) / (p64.square().sum(1) * z64.square().sum(1)).sqrt()
    torch.testing.assert_close(loss.double(), (2 - 2 * cosine).mean(), rtol=1e-5, atol=1e-5)


def test_loss_ranges_from_zero_to_four() -> None:
    x = torch.randn(4, 8)
    assert float(byol_loss(x, 3 * x)) == pytest.approx(0, abs=1e-6)
    assert float(byol_loss(x, -x)) == pytest.approx(4, abs=1e-6)


def test_loss_sends_no_gradient_into_targets() -> None:
    p, z = torch.randn(4, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    byol_loss(p, z).backward()
    assert p.grad is not None
    assert z.grad is None


def test_the_metric_is_the_mean_cosine_of_both_directions() -> None:
    method = _without_norm()
    for p in method.teacher.parameters():
        p.data.add_(torch.randn_like(p) * 0.3)
    output = method(_views())
    torch.testing.assert_close(output.metrics["cosine"], 1 - output.loss.detach() / 4)


def test_low_precision_does_not_reach_the_loss() -> None:
    low = torch.randn(64, 256).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(byol_loss(low, low)) == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------- multi-crop


def _small(*counts: int, **settings: Any) -> Byol:
    encoder = _without_norm().encoder
    return ByolSpec(hidden=8, output=5, **settings).build(encoder, counts, seed=0)


@pytest.mark.parametrize("counts", [(1, 1), (2,)])
def test_two_views_give_the_sum_of_both_directions_to_the_last_bit(counts: tuple[int, ...]) -> None:
    method, views = _small(*counts), _views()
    first, second = (method.predictor(method.projector(method.encoder(view))) for view in views)
    targets = [method.teacher(view) for view in views]
    expected = byol_loss(first, targets[1]) + byol_loss(second, targets[0])
    assert torch.equal(method(views).loss, expected)


def test_the_teacher_sees_global_views_only() -> None:
    method = _small(1, 1, 2, global_branches=2)
    seen = []
    method.teacher.register_forward_hook(lambda _module, given, _output: seen.append(given[0]))
    views = [*_views(), *_views(size=16)]
    method(views)
    assert torch.equal(torch.cat(seen), torch.cat(views[:2]))


def test_every_view_predicts_every_global_view_but_itself() -> None:
    method = _small(1, 1, 2, global_branches=2)
    views = [*_views(), *_views(size=16)]
    for parameter in method.teacher.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    predictions = [method.predictor(method.projector(method.encoder(view))) for view in views]
    targets = [method.teacher(view) for view in views[:2]]
    pairs = [byol_loss(predictions[i], targets[j]) for i, j in [(0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]]
    torch.testing.assert_close(method(views).loss, 2 * sum(pairs, torch.zeros(())) / 6)


def test_without_a_setting_all_branches_are_global() -> None:
    assert (_small(1, 1).global_views, _small(1, 1, 2).global_views, _small(3).global_views) == (2, 4, 3)
    method = _small(2, 1)
    views = [*_views(), *_views()[:1]]
    method(views).loss.backward()
    assert all(parameter.grad is not None for parameter in method.predictor.parameters())


@pytest.mark.parametrize(
    ("counts", "branches", "message"),
    [
        ((1,), None, r"two or more global views .* given 1.*branches\.0\.count=2"),
        ((1, 4), 1, r"two or more global views .* given 1.*first branch of the views"),
        ((1, 1), 3, r"global_branches is 3, but the views have 2 branches\. Set method\.global_branches=2"),
    ],
)
def test_views_that_cannot_be_compared_are_refused(counts: tuple[int, ...], branches: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _small(*counts, global_branches=branches)


# ------------------------------------------------------------- student and teacher


def test_teacher_starts_equal_and_shares_nothing() -> None:
    method = _resnet()
    teacher, student = _teacher(method), _student(method)
    assert teacher.keys() == student.keys()
    assert all(torch.equal(teacher[name], student[name]) for name in teacher)
    own = {id(tensor) for tensor in (*method.teacher.parameters(), *method.teacher.buffers())}
    modules = (method.encoder, method.projector, method.predictor)
    assert not own & {id(tensor) for m in modules for tensor in (*m.parameters(), *m.buffers())}


@pytest.mark.slow
def test_teacher_moves_in_after_step_only() -> None:
    method = _resnet(ByolSpec(momentum=0.75))
    optimiser = torch.optim.SGD(_trainable(method).values(), lr=0.1)
    before = _teacher(method)
    method.train()(_views()).loss.backward()
    optimiser.step()
    seen = _teacher(method)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.teacher.model.named_parameters())
    assert not torch.equal(before["encoder.model.bn1.running_mean"], seen["encoder.model.bn1.running_mean"])
    method.after_step(progress=0.5)
    student = _student(method)
    for name, tensor in _teacher(method).items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(tensor, seen[name]), "these are of what it sees"
        elif tensor.is_floating_point():
            expected = 0.75 * before[name].double() + 0.25 * student[name].double()
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(tensor, student[name])
    assert not torch.equal(before["encoder.model.bn1.running_mean"], student["encoder.model.bn1.running_mean"])


def test_each_view_is_normalised_by_its_own_batch() -> None:
    method, views = _resnet(), _views()
    alone = copy.deepcopy(method)
    for view in views:
        alone.predictor(alone.projector(alone.encoder(view)))
    method(views)
    assert int(method.encoder.model.bn1.num_batches_tracked) == 2
    torch.testing.assert_close(method.encoder.model.bn1.running_var, alone.encoder.model.bn1.running_var)


# --------------------------------------------------------------------- momentum


@pytest.mark.parametrize(
    ("spec", "progress", "kept"),
    [
        (ByolSpec(), 0.0, 0.9),
        (ByolSpec(), 1.0, 0.9),
        (ByolSpec(momentum=0.5, momentum_end=1.0), 0.0, 0.5),
        (ByolSpec(momentum=0.5, momentum_end=1.0), 0.5, 0.75),
        (ByolSpec(momentum=0.5, momentum_end=1.0), 1.0, 1.0),
    ],
)
def test_after_step_uses_the_momentum_of_its_moment(spec: ByolSpec, progress: float, kept: float) -> None:
    method = _resnet(spec)
    with torch.no_grad():
        method.projector[0].weight.zero_()
    before = method.teacher.model.projector[0].weight.clone()
    method.after_step(progress)
    torch.testing.assert_close(method.teacher.model.projector[0].weight, kept * before)


# ------------------------------------------------------------------------ building


def test_heads_have_the_sizes_of_the_spec() -> None:
    method = _resnet(ByolSpec(hidden=24, output=12))
    shapes = [tuple(p.shape) for head in (method.projector, method.predictor) for p in head.parameters() if p.ndim > 1]
    assert shapes == [(24, 512), (12, 24), (24, 12), (12, 24)]


@pytest.mark.slow
def test_a_step_lowers_the_loss() -> None:
    method, views = _resnet(), _views(n=8)
    optimiser = torch.optim.SGD(_trainable(method).values(), lr=0.05, momentum=0.9)
    losses = []
    for step in range(8):
        output = method(views)
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
        method.after_step(step / 8)
        losses.append(float(output.loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
