"""What every registered method promises, whoever wrote it.

A method of another distribution is tested by the same file, in an environment where it is installed. What a method
promises beside this stands in a test of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: lightly imports torchvision)

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from terrasieve.errors import BandError, CollapseError, ConfigError
from terrasieve.methods.base import METHODS, Method, MethodSpec
from terrasieve.methods.collapse import CollapseMonitor
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder

SMALL: Mapping[str, Mapping[str, Any]] = {
    "byol": {"hidden": 16, "output": 8, "momentum": 0.7, "global_branches": 1},
    "dino": {"hidden": 12, "bottleneck": 6, "prototypes": 10, "freeze_last_layer": 0.0, "momentum": 0.7},
    "dinov2": {"hidden": 12, "bottleneck": 6, "prototypes": 10, "freeze_last_layer": 0.0, "momentum": 0.7},
}
"""Settings under which a method is quick, and under which its teacher moves fast, where its defaults are not so."""

BRANCHES = ((2, 3), (1, 1))
"""Numbers of views of each branch; a method takes the first that it can compare."""

SIZES = (32, 16)

every_method = pytest.mark.parametrize("name", list(METHODS))
MakeEncoder = Callable[[], Encoder]


def plain_encoder() -> Encoder:
    """Each row independent of the others in its batch."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return Encoder(model, channels=1, features=24)


def resnet() -> Encoder:
    return build_encoder(BackboneSpec(name="test_resnet"), seed=0)


def vit() -> Encoder:
    return build_encoder(BackboneSpec(name="test_vit"), seed=0)


class _Constant(nn.Module):
    """The same vector whatever the input, and a weight for the optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.linspace(-1, 1, 24))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vector.expand(len(pixels), -1)


def constant_encoder() -> Encoder:
    return Encoder(_Constant(), 1, 24)


def constant_vit() -> Encoder:
    encoder = vit()
    # Long, so that what it learns in a few steps hardly turns it.
    encoder.model.norm.register_forward_hook(lambda module, inputs, output: (module.weight + 9).expand_as(output))
    return encoder


every_backbone = pytest.mark.parametrize("encoder", [resnet, vit])


def spec_of(name: str) -> MethodSpec:
    return METHODS[name](**SMALL.get(name, {}))


def takes_vits_only(name: str) -> bool:
    with suppress(ConfigError):
        spec_of(name).build(vit(), BRANCHES[0], 0)
        try:
            spec_of(name).build(plain_encoder(), BRANCHES[0], 0)
        except ConfigError as error:
            return "choose a ViT" in str(error)
    return False


def suited(name: str, encoder: MakeEncoder) -> MakeEncoder:
    """A ViT in place of the plain encoder for a method that takes ViTs only: its rows are independent as well."""
    if encoder is vit or not takes_vits_only(name):
        return encoder
    if encoder is resnet:
        pytest.skip("it takes ViTs only")
    return vit if encoder is plain_encoder else constant_vit


def built(name: str, encoder: MakeEncoder, seed: int = 0) -> tuple[Method, tuple[int, ...]]:
    encoder = suited(name, encoder)
    for counts in BRANCHES:
        try:
            method = spec_of(name).build(encoder(), counts, seed)
        except ConfigError:
            continue
        if method.view_count == sum(counts):
            return method, counts
    raise AssertionError(f"{name} compares none of {BRANCHES} views; add the numbers that it takes")


def views_of(counts: Sequence[int], n: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    sizes = [size for count, size in zip(counts, SIZES, strict=True) for _ in range(count)]
    return [torch.randn(n, 1, size, size, generator=generator) + i for i, size in enumerate(sizes)]


def trainable(method: Method) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in method.named_parameters() if parameter.requires_grad}


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in (*module.named_parameters(), *module.named_buffers())}


def optimiser_of(method: Method) -> torch.optim.Optimizer:
    return torch.optim.SGD(trainable(method).values(), lr=0.1, momentum=0.9)


def step(
    method: Method, optimiser: torch.optim.Optimizer, views: Sequence[Tensor], progress: float, parts: int = 1
) -> None:
    for micro in zip(*(view.chunk(parts) for view in views), strict=True):
        (method(list(micro)).loss / parts).backward()
    method.before_step(progress)
    optimiser.step()
    optimiser.zero_grad()
    method.after_step(progress)


def in_the_middle(name: str, encoder: MakeEncoder, seed: int = 0) -> tuple[Method, tuple[int, ...]]:
    """A method as it may be in the middle of a run: all that it learnt, and a teacher that went another way."""
    method, counts = built(name, encoder, seed)
    torch.manual_seed(5 + seed)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    step(method, optimiser_of(method), views_of(counts), 0.1)
    return method, counts


# -------------------------------------------------------------------------------- building


@every_method
def test_it_is_built_around_the_encoder_with_heads_that_the_seed_decides(name: str) -> None:
    encoder = suited(name, plain_encoder)()
    counts = built(name, plain_encoder)[1]
    assert spec_of(name).build(encoder, counts, 0).encoder is encoder
    one, again, other = (tensors(built(name, plain_encoder, seed)[0]) for seed in (1, 1, 2))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert any(not torch.equal(one[part], other[part]) for part in one)


@every_method
def test_its_settings_survive_being_written_down(name: str) -> None:
    spec = spec_of(name)
    assert spec.name == name
    assert METHODS[name].model_validate(spec.model_dump(mode="json")) == spec


# ------------------------------------------------------------------------ student and teacher


@every_method
@every_backbone
def test_whatever_is_not_trained_starts_as_a_copy_and_shares_nothing(name: str, encoder: MakeEncoder) -> None:
    method, _ = built(name, encoder)
    own = {parameter.data_ptr() for parameter in trainable(method).values()}
    assert not own & {parameter.data_ptr() for parameter in method.parameters() if not parameter.requires_grad}
    assert {id(parameter) for parameter in method.encoder.parameters()} <= {id(p) for p in trainable(method).values()}
    if method.target_encoder is not method.encoder:
        torch.testing.assert_close(tensors(method.target_encoder), tensors(method.encoder), rtol=0, atol=0)
        shared = {t.data_ptr() for t in (*method.encoder.parameters(), *method.encoder.buffers())}
        assert not shared & {
            t.data_ptr() for t in (*method.target_encoder.parameters(), *method.target_encoder.buffers())
        }
    assert method.exported in (method.encoder, method.target_encoder)


@every_method
def test_whichever_of_student_and_teacher_is_not_exported_is_known_by_its_role(name: str) -> None:
    method, _ = built(name, plain_encoder)
    if method.target_encoder is method.encoder:
        assert method.counterpart is None
        assert spec_of(name).memory(5) is None
        return
    assert method.counterpart is not None
    role, other = method.counterpart
    assert other is {"student": method.encoder, "teacher": method.target_encoder}[role]
    assert {id(other), id(method.exported)} == {id(method.encoder), id(method.target_encoder)}


@every_method
@every_backbone
def test_the_teachers_memory_is_what_its_steps_leave_of_its_start(name: str, encoder: MakeEncoder) -> None:
    method, _ = built(name, encoder)
    memory, steps = spec_of(name).memory(5), 5
    if memory is None:
        pytest.skip("it has no teacher")
    before = {part: p.detach().clone() for part, p in method.target_encoder.named_parameters()}
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.zero_()
    for step in range(steps):
        method.after_step((step + 1) / steps)
        for part, parameter in method.target_encoder.named_parameters():
            torch.testing.assert_close(parameter.detach(), float(memory[step + 1]) * before[part], rtol=1e-5, atol=1e-7)


@every_method
@every_backbone
def test_gradient_flows_to_all_that_is_trained_and_to_nothing_else(name: str, encoder: MakeEncoder) -> None:
    method, counts = in_the_middle(name, encoder)
    method(views_of(counts)).loss.backward()
    still = [part for part, p in trainable(method).items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []
    assert all(parameter.grad is None for parameter in method.parameters() if not parameter.requires_grad)


@every_method
def test_only_batch_statistics_move_before_the_step(name: str) -> None:
    method, counts = in_the_middle(name, resnet)
    student = {id(tensor) for tensor in trainable(method).values()} | {id(b) for b in method.encoder.buffers()}
    heads = {id(b) for m in method.modules() if isinstance(m, _BatchNorm) and m.training for b in m.buffers()}
    before, optimiser = tensors(method), optimiser_of(method)
    method.train()(views_of(counts)).loss.backward()
    optimiser.step()
    moved = {
        part: tensor
        for part, tensor in (*method.named_parameters(), *method.named_buffers())
        if not torch.equal(tensor, before[part])
    }
    assert moved
    assert {part for part, tensor in moved.items() if id(tensor) not in student | heads} == set()


@every_method
@every_backbone
def test_a_teacher_is_a_moving_average_with_one_momentum(name: str, encoder: MakeEncoder) -> None:
    method, counts = in_the_middle(name, encoder)
    if method.target_encoder is method.encoder:
        pytest.skip("it has no teacher")
    before = {part: p.detach().double().clone() for part, p in method.target_encoder.named_parameters()}
    optimiser = optimiser_of(method)
    method(views_of(counts)).loss.backward()
    optimiser.step()
    for part, parameter in method.target_encoder.named_parameters():
        assert torch.equal(parameter.double(), before[part]), "it moves in after_step only"
    method.after_step(0.3)
    gaps = torch.cat([(p.detach().double() - before[part]).flatten() for part, p in method.encoder.named_parameters()])
    moves = torch.cat([(p.double() - before[part]).flatten() for part, p in method.target_encoder.named_parameters()])
    share = float((moves @ gaps) / (gaps @ gaps))
    assert 0 < share < 1
    torch.testing.assert_close(moves, share * gaps, rtol=1e-3, atol=1e-7)


# ------------------------------------------------------------------------------ one step


@every_method
def test_a_step_gives_a_loss_metrics_and_the_students_embedding(name: str) -> None:
    method, counts = in_the_middle(name, plain_encoder)
    views = views_of(counts)
    expected = method.encoder(views[0])
    output = method(views)
    assert output.loss.shape == ()
    assert output.loss.dtype == torch.float32
    assert torch.isfinite(output.loss)
    assert set(output.metrics) <= set(method.metric_names)
    assert not any(value.requires_grad or value.ndim for value in output.metrics.values())
    torch.testing.assert_close(output.embedding, expected)
    assert not output.embedding.requires_grad


@every_method
def test_every_view_is_looked_at(name: str) -> None:
    method, counts = in_the_middle(name, plain_encoder)
    for i in range(sum(counts)):
        views = views_of(counts)
        views[i].fill_(torch.nan)
        assert torch.isnan(copy.deepcopy(method)(views).loss), i


@every_method
@pytest.mark.parametrize("encoder", [plain_encoder, resnet])
def test_the_loss_is_float32_under_autocast(name: str, encoder: MakeEncoder) -> None:
    method, counts = built(name, encoder)
    views = views_of(counts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # A ViT ends in a norm, which autocast leaves at full precision.
        part = getattr(method.encoder.model, "patch_embed", method.encoder)
        assert part(views[0]).dtype == torch.bfloat16
        output = method(views)
    assert output.loss.dtype == output.embedding.dtype == torch.float32


@every_method
@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_equal_one_batch(name: str, parts: int) -> None:
    """Where no batch normalisation mixes samples; whatever moves by itself moves once a step."""
    whole, counts = in_the_middle(name, plain_encoder)
    if whole.mixes_samples:
        pytest.skip("its loss compares the samples of a micro-batch")
    for module in whole.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    split = copy.deepcopy(whole)
    initial = {encoder: tensors(getattr(whole, encoder)) for encoder in ("encoder", "target_encoder")}
    optimisers, views = (optimiser_of(whole), optimiser_of(split)), views_of(counts)
    for progress in (0.3, 0.4):
        step(whole, optimisers[0], views, progress)
        step(split, optimisers[1], views, progress, parts)
    torch.testing.assert_close(tensors(split), tensors(whole), rtol=1e-5, atol=1e-6)
    for encoder, before in initial.items():
        now = tensors(getattr(split, encoder))
        assert max(float((now[part] - tensor).abs().max()) for part, tensor in before.items()) > 1e-3, encoder


@every_method
@pytest.mark.slow
@pytest.mark.parametrize("encoder", [plain_encoder, resnet, vit])
def test_a_resumed_run_takes_the_same_steps(name: str, encoder: MakeEncoder) -> None:
    straight, counts = built(name, encoder)
    first, views = optimiser_of(straight), views_of(counts)
    for done in range(3):
        step(straight, first, views, (done + 1) / 8)
    resumed, _ = in_the_middle(name, encoder, seed=9)
    resumed.load_state_dict(load(save(straight.state_dict())))
    second = optimiser_of(resumed)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for done in range(3, 6):
        step(straight, first, views, (done + 1) / 8)
        step(resumed, second, views, (done + 1) / 8)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(straight.state_dict()), rtol=0, atol=0)


@every_method
def test_a_constant_encoder_is_noticed(name: str) -> None:
    method, counts = built(name, constant_encoder)
    monitor, optimiser = CollapseMonitor(), optimiser_of(method)

    def train() -> None:
        for done in range(10):
            output = method(views_of(counts, n=16))
            output.loss.backward()
            optimiser.step()
            method.after_step(done / 10)
            monitor.update(output.embedding)
            monitor.judge(monitor.measure())

    with pytest.raises(CollapseError, match="all inputs give nearly the same vector"):
        train()


@every_method
def test_an_untrained_method_shows_no_sign_of_collapse(name: str) -> None:
    method, counts = built(name, plain_encoder)
    metrics = {key: float(value) for key, value in method(views_of(counts, n=16)).metrics.items()}
    for sign in method.collapse_signs:
        assert set(sign.ranges) <= set(method.metric_names)
        assert not sign.is_shown(metrics)


# ------------------------------------------------------------------------------ wrong use


@every_method
def test_wrong_numbers_of_views_and_bands_are_refused(name: str) -> None:
    method, counts = built(name, plain_encoder)
    views, wanted = views_of(counts), sum(counts)
    for count in (0, wanted - 1, wanted + 1):
        with pytest.raises(ConfigError, match=f"compares {wanted} views of a sample, but was given {count}"):
            method((views * 2)[:count])
    for wrong in range(wanted):
        other = [view.expand(-1, 3, -1, -1) if i == wrong else view for i, view in enumerate(views)]
        with pytest.raises(BandError, match=r"takes 1 band\(s\), but was given 3"):
            method(other)


# -------------------------------------------------------------------------------- oracles


def byol_oracle(method: Any, views: Sequence[Tensor]) -> Tensor:
    """By lightly's loss, over every pair of a global view and another; two global views make two such pairs."""
    prediction = [method.predictor(method.projector(method.encoder(view))) for view in views]
    similarity = NegativeCosineSimilarity()
    pairs = [
        similarity(predicted, method.teacher(views[i]))
        for i in range(2)
        for j, predicted in enumerate(prediction)
        if j != i
    ]
    assert len(pairs) == 2 * (len(views) - 1)
    return 4 + 4 * sum(pairs[1:], pairs[0]) / len(pairs)


def dino_oracle(method: Any, views: Sequence[Tensor]) -> Tensor:
    """By the formula in float64, over every pair of a global view and another."""
    student = [method.head(method.encoder(view)) for view in views]
    temperature = float(method._teacher_temperature())
    pairs = []
    for i in range(2):
        shares = ((method.teacher(views[i]) - method.centre.value) / temperature).exp()
        shares = shares / shares.sum(1, keepdim=True)
        for j, output in enumerate(student):
            if j != i:
                odds = (output / 0.1).exp()
                pairs.append(-(shares * (odds / odds.sum(1, keepdim=True)).log()).sum(1).mean())
    assert len(pairs) == 2 * (len(views) - 1)
    return sum(pairs[1:], pairs[0]) / len(pairs)


ORACLES: Mapping[str, Callable[[Any, Sequence[Tensor]], Tensor]] = {"byol": byol_oracle, "dino": dino_oracle}


@pytest.mark.parametrize("name", list(ORACLES))
def test_the_loss_equals_an_independent_oracle(name: str) -> None:
    method, counts = in_the_middle(name, plain_encoder)
    views, double = views_of(counts), copy.deepcopy(method).double()
    expected = ORACLES[name](double, [view.double() for view in views])
    torch.testing.assert_close(method(views).loss.double(), expected, rtol=1e-5, atol=1e-5)
