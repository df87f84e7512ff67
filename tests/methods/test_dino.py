"""DINO: what teacher, student, centre and prototypes do in a step and over a run."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load, save, save_file
from torch import Tensor, nn

from apart import run_ranks
from terrasieve.errors import ConfigError
from terrasieve.methods.dino import Dino, DinoSpec, warmed_up
from terrasieve.methods.dino_loss import dino_loss
from terrasieve.methods.koleo import koleo_loss
from terrasieve.methods.pair_entropies import Sharpening
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.heads import dino_head

SMALL = {"hidden": 12, "bottleneck": 6, "prototypes": 10}
LEARNING = {**SMALL, "freeze_last_layer": 0.0}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _views(n: int = 4, local: int = 3, size: int = 16, local_size: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    sizes = [size] * 2 + [local_size] * local
    return [torch.randn(n, 1, side, side, generator=generator) + i for i, side in enumerate(sizes)]


def _plain(local: int = 3, **settings: float) -> Dino:
    """Small, and each row independent of the others in its batch."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    spec = DinoSpec(**{**LEARNING, **settings})
    return spec.build(Encoder(model, channels=1, features=24), (2, local), seed=0)


def _backbone(name: str = "test_resnet", local: int = 3, drop_path: float = 0.0, **settings: float) -> Dino:
    encoder = build_encoder(BackboneSpec(name=name, drop_path=drop_path), seed=0)
    return DinoSpec(**{**LEARNING, **settings}).build(encoder, (2, local), seed=0)


def _part_ways(method: Dino) -> Dino:
    """Teacher and centre as they may be in the middle of a run."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        method.centre.value.copy_(torch.randn_like(method.centre.value) * 0.1)
    return method


def _trainable(method: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in (*module.named_parameters(), *module.named_buffers())}


def _optimiser(method: Dino, learning_rate: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(_trainable(method).values(), lr=learning_rate, momentum=0.9)


def _step(
    method: Dino, optimiser: torch.optim.Optimizer, views: Sequence[Tensor], progress: float, parts: int = 1
) -> None:
    for micro in zip(*(view.chunk(parts) for view in views), strict=True):
        (method(micro).loss / parts).backward()
    # As the loop does: before a step, the progress is that after the one before.
    method.before_step(float(method.progress))
    optimiser.step()
    optimiser.zero_grad()
    method.after_step(progress)


# -------------------------------------------------------------------------------- loss


def test_loss_is_float32_under_autocast() -> None:
    method, views = _part_ways(_backbone("test_vit", prototypes=4096)), _views(size=64, local_size=32)
    heads: list[Tensor] = []
    for module in (method.head, method.teacher.model.head):
        module.register_forward_hook(lambda module, inputs, output: heads.append(output.detach()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(views)
    assert {head.dtype for head in heads} == {torch.bfloat16}
    assert output.loss.dtype == output.embedding.dtype == torch.float32
    targets = [Sharpening(torch.zeros(4096), 0.04)(part.double()) for part in heads[1].chunk(2)]
    centred = [Sharpening(method.centre.value, 0.04)(part.double()) for part in heads[1].chunk(2)]
    expected = dino_loss(centred, list(heads[0].double().chunk(5)), 0.1).loss
    assert float(output.loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert not torch.equal(targets[0], centred[0])


def test_metrics_are_the_teachers_entropy_the_divergence_and_the_centre() -> None:
    method, views = _part_ways(_plain(teacher_temperature_warmup=0.0)), _views()
    output = method(views)
    targets = [Sharpening(method.centre.value, 0.07)(method.teacher(view)) for view in views[:2]]
    student = [(method.head(method.encoder(view)) / 0.1).softmax(1) for view in views]
    divergences = [
        (t * (t / s).log()).sum(1).mean() for i, t in enumerate(targets) for j, s in enumerate(student) if i != j
    ]
    entropy = torch.stack([-(target * target.log()).sum(1).mean() for target in targets]).mean()
    torch.testing.assert_close(output.metrics["teacher_entropy"], entropy)
    torch.testing.assert_close(output.metrics["divergence"], torch.stack(divergences).mean().detach())
    torch.testing.assert_close(output.metrics["centre_norm"], method.centre.value.square().sum().sqrt())
    assert not any(value.requires_grad for value in output.metrics.values())


def test_koleo_is_added_over_the_global_views() -> None:
    plain, spread, views = _plain(), _plain(koleo=0.3), _views()
    features = [spread.encoder(view) for view in views]
    expected = (koleo_loss(features[0]) + koleo_loss(features[1])) / 2
    output = spread(views)
    torch.testing.assert_close(output.loss - plain(views).loss, 0.3 * expected)
    torch.testing.assert_close(output.metrics["koleo"], expected.detach())
    torch.testing.assert_close(output.metrics["divergence"], plain(views).metrics["divergence"])


# ------------------------------------------------------------------- who sees what


def test_the_teacher_sees_the_global_views_only() -> None:
    method, views = _plain(), _views()
    seen: list[Tensor] = []
    method.target_encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    views[2:] = [view.fill_(torch.nan) for view in views[2:]]
    assert torch.isnan(method(views).loss), "the student sees them"
    assert torch.equal(torch.cat(seen), torch.cat(views[:2]))
    method.after_step(0.1)
    assert torch.isfinite(method.centre.value).all()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_views_of_one_size_are_one_pass(name: str) -> None:
    method, passes = _backbone(name), {"student": [], "teacher": []}
    for who, encoder in (("student", method.encoder), ("teacher", method.target_encoder)):
        encoder.register_forward_hook(
            lambda module, inputs, output, who=who: passes[who].append(tuple(inputs[0].shape))
        )
    method(_views(size=64, local_size=32))
    assert passes == {"student": [(8, 1, 64, 64), (12, 1, 32, 32)], "teacher": [(8, 1, 64, 64)]}


def test_each_view_is_normalised_by_its_own_batch() -> None:
    method, views = _backbone(), _views(size=64, local_size=32)
    alone = copy.deepcopy(method)
    for view in views:
        alone.head(alone.encoder(view))
    method(views)
    torch.testing.assert_close(_tensors(method.encoder), _tensors(alone.encoder))


def test_the_teacher_is_the_whole_network_at_every_step() -> None:
    method, views = _backbone("test_vit", drop_path=0.5), _views(n=8, size=64)
    assert not torch.equal(method.encoder(views[0]), method.encoder(views[0])), "the student drops paths"
    assert torch.equal(method.teacher(views[0]), method.teacher(views[0]))


def test_what_is_exported_and_what_curation_sees_is_the_teacher() -> None:
    method = _plain()
    assert method.exported is method.target_encoder is method.teacher.model.encoder
    assert method.exported is not method.encoder


# ------------------------------------------------------------------ once a step


def test_teacher_and_centre_move_in_after_step_only() -> None:
    method = _part_ways(_backbone(momentum=0.75, momentum_end=0.75))
    before = _tensors(method.teacher), method.centre.value.clone()
    optimiser = _optimiser(method)
    method(_views(size=64, local_size=32)).loss.backward()
    optimiser.step()
    now = _tensors(method.teacher)
    moved = {name for name in now if not torch.equal(now[name], before[0][name])}
    assert moved == {name for name in now if name.endswith(STATISTICS)}, "these are of what it sees"
    assert torch.equal(method.centre.value, before[1])
    method.after_step(0.5)
    student = {**_prefixed("encoder", method.encoder), **_prefixed("head", method.head)}
    for name, tensor in _tensors(method.teacher.model).items():
        if name.endswith(STATISTICS):
            assert torch.equal(tensor, now[f"model.{name}"])
        else:
            torch.testing.assert_close(tensor, 0.75 * before[0][f"model.{name}"] + 0.25 * student[name])
    assert not torch.equal(method.centre.value, before[1])


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in _tensors(module).items()}


def test_the_centre_moves_by_the_mean_of_the_teachers_outputs() -> None:
    method, views = _part_ways(_plain(centre_momentum=0.8)), _views()
    before = method.centre.value.double()
    mean = torch.cat([method.teacher(view) for view in views[:2]]).double().mean(0)
    method(views)
    method.after_step(0.1)
    torch.testing.assert_close(method.centre.value.double(), 0.8 * before + 0.2 * mean, rtol=1e-5, atol=1e-7)
    moved = method.centre.value.clone()
    method.after_step(0.2)
    assert torch.equal(method.centre.value, moved), "nothing was seen since"


def test_the_centre_takes_no_note_of_what_is_not_trained_on() -> None:
    method, views = _plain(), _views()
    before = method.centre.value.clone()
    method.eval()(views)
    method.after_step(0.1)
    assert torch.equal(method.centre.value, before)


def _learn_with_another(folder: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="32-true")
    fabric.launch()
    method = _part_ways(_plain(freeze_last_layer=0.15))
    module, optimiser = fabric.setup(method, _optimiser(method))
    for progress in (0.1, 0.2, 0.3):
        for part in range(2):
            # Of eight samples, the first two of each half make the first micro-batch.
            rows = slice(4 * fabric.global_rank + 2 * part, 4 * fabric.global_rank + 2 * part + 2)
            with fabric.no_backward_sync(module, enabled=part == 0):
                fabric.backward(module([view[rows] for view in _views(n=8)]).loss / 2)
        method.before_step(float(method.progress))
        optimiser.step()
        optimiser.zero_grad()
        method.after_step(progress)
    save_file(method.state_dict(), folder / f"{fabric.global_rank}.safetensors")


@pytest.mark.slow
def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    run_ranks(_learn_with_another, tmp_path)
    one = _part_ways(_plain(freeze_last_layer=0.15))
    optimiser = _optimiser(one)
    for progress in (0.1, 0.2, 0.3):
        _step(one, optimiser, _views(n=8), progress)
    for rank in range(2):
        found = load((tmp_path / f"{rank}.safetensors").read_bytes())
        torch.testing.assert_close(found, dict(one.state_dict()), rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------- over a run


@pytest.mark.parametrize(
    ("progress", "warmup", "expected"),
    [
        (0, 0.3, 0.04),
        (0.1, 0.3, 0.05),
        (0.15, 0.3, 0.055),
        (0.3, 0.3, 0.07),
        (0.9, 0.3, 0.07),
        (1, 0.3, 0.07),
        (0, 0.0, 0.07),
        (0.5, 0.0, 0.07),
        (0.5, 1.0, 0.055),
    ],
)
def test_the_teachers_temperature_rises_in_a_line(progress: float, warmup: float, expected: float) -> None:
    assert float(warmed_up(torch.tensor(float(progress)), 0.04, 0.07, warmup)) == pytest.approx(expected)


def test_a_step_uses_the_temperature_of_its_moment() -> None:
    method, views = _part_ways(_plain(momentum=1.0, teacher_temperature_warmup=0.5)), _views()
    centre, taught = method.centre.value.clone(), [method.teacher(view) for view in views[:2]]
    for progress, temperature in ((0.0, 0.04), (0.25, 0.055), (0.5, 0.07), (0.8, 0.07)):
        if progress:
            method.after_step(progress)
        method.centre.value.copy_(centre)
        shares = torch.cat([((output - centre) / temperature).softmax(1) for output in taught])
        found = method.eval()(views).metrics["teacher_entropy"]
        torch.testing.assert_close(found, -(shares * shares.log()).sum(1).mean())


@pytest.mark.parametrize(
    ("spec", "progress", "kept"),
    [
        (DinoSpec(**LEARNING), 0.0, 0.996),
        (DinoSpec(**LEARNING), 0.25, 1 - 0.004 * (1 + math.sqrt(0.5)) / 2),
        (DinoSpec(**LEARNING), 0.5, 0.998),
        (DinoSpec(**LEARNING), 1.0, 1.0),
        (DinoSpec(**LEARNING, momentum=0.5, momentum_end=0.5), 0.7, 0.5),
    ],
)
def test_the_teachers_momentum_rises_on_a_cosine(spec: DinoSpec, progress: float, kept: float) -> None:
    method = spec.build(_plain().encoder, (2, 3), seed=0)
    with torch.no_grad():
        method.head.prototypes.zero_()
    before = method.teacher.model.head.prototypes.clone()
    method.after_step(progress)
    torch.testing.assert_close(method.teacher.model.head.prototypes, kept * before, rtol=1e-6, atol=0)


def test_the_prototypes_are_held_at_first() -> None:
    method, views = _part_ways(_plain(freeze_last_layer=0.25)), _views()
    optimiser, held = _optimiser(method), []
    for step in range(8):
        before = _tensors(method.head)
        _step(method, optimiser, views, (step + 1) / 8)
        held.append(torch.equal(before["prototypes"], method.head.prototypes))
        assert not torch.equal(before["perceptron.0.weight"], method.head.perceptron[0].weight)
    assert held == [True] * 2 + [False] * 6


@pytest.mark.parametrize("optimiser", [torch.optim.AdamW, torch.optim.SGD])
def test_held_prototypes_leave_no_trace_in_the_optimiser(optimiser: type[torch.optim.Optimizer]) -> None:
    """Neither decay nor moments: Adam would take steps that are too long after moments of nothing."""
    method, views = _plain(freeze_last_layer=0.25), _views()
    taken = optimiser(_trainable(method).values(), lr=0.01, weight_decay=0.5)
    before = method.head.prototypes.clone()
    for step in range(2):
        _step(method, taken, views, (step + 1) / 8)
    assert torch.equal(method.head.prototypes, before)
    assert method.head.prototypes not in taken.state
    _step(method, taken, views, 3 / 8)
    assert not torch.equal(method.head.prototypes, before)


def test_held_prototypes_pass_the_same_gradient_on() -> None:
    held, free, views = _plain(freeze_last_layer=0.5), _plain(), _views()
    losses = [method(views).loss for method in (held, free)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(held.encoder.model[0].weight.grad, free.encoder.model[0].weight.grad)
    assert held.head.prototypes.grad is not None, "data-parallel training waits for it"
    for method in (held, free):
        method.before_step(0.0)
    assert held.head.prototypes.grad is None
    assert free.head.prototypes.grad.any()


@pytest.mark.parametrize("make", [_plain, _backbone])
def test_a_resumed_run_takes_the_same_steps(make: Callable[..., Dino]) -> None:
    settings = {"freeze_last_layer": 0.25, "teacher_temperature_warmup": 0.6, "momentum": 0.7}
    views, straight = _views(size=64, local_size=32), make(**settings)
    first = _optimiser(straight)
    for step in range(3):
        _step(straight, first, views, (step + 1) / 8)
    resumed = _part_ways(make(**settings))
    resumed.load_state_dict(load(save(straight.state_dict())))
    second = _optimiser(resumed)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in range(3, 6):
        _step(straight, first, views, (step + 1) / 8)
        _step(resumed, second, views, (step + 1) / 8)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(straight.state_dict()), rtol=0, atol=0)


@pytest.mark.slow
def test_steps_bring_the_student_closer() -> None:
    method, views = _backbone(momentum=1.0), _views(n=8, size=64, local_size=32)
    optimiser = torch.optim.AdamW(_trainable(method).values(), lr=1e-2)
    before = float(method(views).metrics["divergence"])
    for step in range(12):
        _step(method, optimiser, views, step / 12)
    assert float(method(views).metrics["divergence"]) < 0.7 * before


# ------------------------------------------------------------------------- building


def test_the_head_has_the_sizes_of_the_spec() -> None:
    shapes = [tuple(p.shape) for p in _plain().head.parameters() if p.ndim > 1]
    assert sorted(shapes) == sorted([(12, 24), (12, 12), (6, 12), (10, 6)])


def test_a_tensor_of_the_state_is_saved_once() -> None:
    method = _backbone()
    state = method.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert load(save(state)).keys() == state.keys()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_global_views_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"two or more global views .* given {count}.*branches\.0\.count=2"):
        DinoSpec(**SMALL).build(_plain().encoder, (count, 4), seed=0)


def test_the_first_branch_is_global_unless_a_setting_says_more() -> None:
    counts = [
        DinoSpec(**SMALL, global_branches=branches).build(_plain().encoder, (2, 1, 3), seed=0)
        for branches in (None, 1, 2, 3)
    ]
    assert [one.global_views for one in counts] == [2, 2, 3, 6]
    assert {one.view_count for one in counts} == {6}


def test_batch_normalisation_in_the_head_is_an_option() -> None:
    norms = [
        m for m in dino_head(8, 6, 4, 9, torch.Generator(), batch_norm=True).modules() if isinstance(m, nn.BatchNorm1d)
    ]
    assert len(norms) == 2
    assert not [m for m in _plain().head.modules() if isinstance(m, nn.BatchNorm1d)]


@pytest.mark.parametrize(
    ("entropy", "divergence", "shown"),
    [(0.001, 0.001, 0), (1.0, 1e-4, 1), (0.5, 0.001, None), (0.001, 0.3, None), (0.999, 0.3, None)],
)
def test_either_collapse_is_one_of_entropy_and_divergence_together(
    entropy: float, divergence: float, shown: int | None
) -> None:
    """Caron et al. 2021, section 5.3; entropies are shares of the highest."""
    method = _backbone()
    metrics = {"teacher_entropy": entropy * math.log(len(method.head.prototypes)), "divergence": divergence}
    assert [sign.is_shown(metrics) for sign in method.collapse_signs] == [shown == 0, shown == 1]
