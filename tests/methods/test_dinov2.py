"""DINOv2: what student, teacher, masks and heads do in a step and over a run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: lightly imports torchvision)

import pytest
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from lightly.loss.swav_loss import sinkhorn
from lightning_fabric import Fabric
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor, nn

from apart import run_ranks
from terrasieve.errors import ConfigError
from terrasieve.methods import patch_masks
from terrasieve.methods.dinov2 import DinoV2, DinoV2Spec
from terrasieve.methods.ibot_loss import IbotLoss, ibot_loss
from terrasieve.methods.patch_masks import PatchMasks
from terrasieve.models.backbone import BackboneSpec, build_encoder

SMALL = {"hidden": 12, "bottleneck": 6, "prototypes": 10, "freeze_last_layer": 0.0}


def _built(local: int = 3, drop_path: float = 0.0, **settings: Any) -> DinoV2:
    spec = BackboneSpec(name="test_vit", image_size=32, patch_size=8, registers=2, drop_path=drop_path)
    return DinoV2Spec(**{**SMALL, **settings}).build(build_encoder(spec, seed=0), (2, local), seed=0)


def _views(n: int = 4, local: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(n, 1, side, side, generator=generator) + i for i, side in enumerate([32, 32] + [16] * local)]


def _part_ways(method: DinoV2) -> DinoV2:
    """Teachers, mask token and centres as they may be in the middle of a run."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in (*method.parameters(), method.centre.value, method.patch_centre.value):
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return method


def _trainable(method: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in method.parameters() if parameter.requires_grad]


def _optimiser(method: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(_trainable(method), lr=0.05, momentum=0.9)


def _step(
    method: DinoV2, optimiser: torch.optim.Optimizer, views: Sequence[Tensor], progress: float, parts: int = 1
) -> None:
    for micro in zip(*(view.chunk(parts) for view in views), strict=True):
        (method(list(micro)).loss / parts).backward()
    method.before_step(float(method.progress))
    optimiser.step()
    optimiser.zero_grad()
    method.after_step(progress)


def _masks(method: DinoV2, n: int = 4) -> list[Tensor]:
    """Those of the next forward pass."""
    return copy.deepcopy(method.masks).draw(n, [(4, 4)] * 2)


def _tokens(encoder: nn.Module, view: Tensor, mask: Tensor | None = None, token: Tensor | None = None) -> Tensor:
    """Class token and patches, by timm's own parts."""
    vit = encoder.model
    embedded = vit.patch_embed(view)
    if mask is not None:
        shape = embedded.shape
        embedded = torch.where(mask[..., None], token, embedded.flatten(1, 2)).view(shape)
    tokens = vit.norm(vit.blocks(vit._pos_embed(embedded)))
    return torch.cat([tokens[:, :1], tokens[:, vit.num_prefix_tokens :]], dim=1)


# --------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("centring", ["sinkhorn", "centre"])
def test_the_loss_equals_lightlys(separate: bool, centring: str) -> None:
    method = _part_ways(_built(separate_heads=separate, centring=centring, koleo=0.3, ibot=0.7))
    method, views = method.double(), [view.double() for view in _views()]
    masks = _masks(method)
    seen = [_tokens(method.encoder, view, mask, method.mask_token) for view, mask in zip(views[:2], masks, strict=True)]
    features = [tokens[:, 0] for tokens in seen] + [method.encoder(view) for view in views[2:]]
    outputs = [method.head(feature) for feature in features]
    patch_head = method.patch_head if separate else method.head
    patches = patch_head(torch.cat([tokens[:, 1:][mask] for tokens, mask in zip(seen, masks, strict=True)]))
    with torch.no_grad():
        whole = [_tokens(method.target_encoder, view) for view in views[:2]]
        taught = [method.teacher.model.head(tokens[:, 0]) for tokens in whole]
        taught_head = method.patch_teacher if separate else method.teacher.model.head
        taught_patches = taught_head(torch.cat([t[:, 1:][mask] for t, mask in zip(whole, masks, strict=True)]))

    # lightly's losses centre and sharpen; the logarithm of a distribution passes both unchanged.
    dino, ibot = (DINOLoss(output_dim=10, student_temp=0.1), IBOTPatchLoss(output_dim=10, student_temp=0.1))
    temperature = 0.04
    if centring == "sinkhorn":
        taught = list(sinkhorn(torch.cat(taught), epsilon=0.04).log().chunk(2))
        taught_patches, temperature = sinkhorn(taught_patches, epsilon=0.04).log(), 1.0
    else:
        dino.center.copy_(method.centre.value)
        ibot.center.center.copy_(method.patch_centre.value)
    expected = (
        dino.double()(taught, outputs, teacher_temp=temperature)
        + 0.7 * ibot.double()(taught_patches, patches, torch.cat(masks).view(-1, 4, 4), teacher_temp=temperature)
        + 0.3 * sum(KoLeoLoss()(feature) for feature in features[:2])
    )
    torch.testing.assert_close(method(views).loss, expected.float(), rtol=1e-4, atol=1e-4, check_dtype=False)


def test_metrics_are_what_the_loss_is_made_of() -> None:
    method, views = _part_ways(_built(koleo=0.2, ibot=3.0)), _views()
    loss, metrics, _ = method(views)
    parts = metrics["teacher_entropy"] + metrics["divergence"] + 3 * metrics["ibot"] + 0.2 * 2 * metrics["koleo"]
    torch.testing.assert_close(loss.detach(), parts)
    assert 0 < float(metrics["patch_entropy"]) < 2.31


def test_only_hidden_patches_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = _built(), []

    def noted(taught: Tensor, outputs: Tensor, counts: Tensor, *others: Any) -> IbotLoss:
        seen.append((len(taught), len(outputs), counts.tolist()))
        return ibot_loss(taught, outputs, counts, *others)

    monkeypatch.setattr("terrasieve.methods.dinov2.ibot_loss", noted)
    hidden = torch.cat(_masks(method)).sum(dim=1)
    method(_views())
    assert seen == [(int(hidden.sum()), int(hidden.sum()), hidden.tolist())]


# ---------------------------------------------------------------------- who sees what


def test_the_student_sees_masked_global_views_and_the_teacher_whole_ones() -> None:
    method = _part_ways(_built())
    masks, seen = _masks(method), {"student": [], "teacher": []}
    for who, encoder in (("student", method.encoder), ("teacher", method.target_encoder)):
        encoder.model.patch_drop.register_forward_pre_hook(lambda module, inputs, who=who: seen[who].append(inputs[0]))
    views = _views()
    method(views)
    prefix, positions = 3, method.encoder.model.pos_embed[:, 3:]
    for got, mask in zip(seen["student"][:2], masks, strict=True):
        is_token = ((got[:, prefix:] - positions - method.mask_token).abs() < 1e-5).all(dim=-1)
        assert torch.equal(is_token, mask)
    assert [tuple(got.shape[:2]) for got in seen["student"][2:3]] == [(12, prefix + 4)], "local views, in one pass"
    own = method.target_encoder.model
    assert len(seen["teacher"]) == 2
    for got, view in zip(seen["teacher"], views[:2], strict=True):
        torch.testing.assert_close(got, own._pos_embed(own.patch_embed(view)))


def test_gradient_reaches_the_mask_token_and_both_heads() -> None:
    method = _part_ways(_built())
    method(_views()).loss.backward()
    for part in (method.mask_token, method.head.prototypes, method.patch_head.prototypes):
        assert part.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(parameter.grad is None for parameter in method.patch_teacher.parameters())


def test_the_embedding_is_of_the_whole_first_view() -> None:
    method, views = _part_ways(_built()), _views()
    assert _masks(method)[0].any(), "else there is nothing to see"
    torch.testing.assert_close(method(views).embedding, method.encoder(views[0]).detach())


def test_global_views_may_differ_in_size() -> None:
    method = DinoV2Spec(**SMALL, global_branches=2).build(_built().encoder, (1, 1), seed=0)
    wide = torch.randn(4, 1, 32, 32), torch.randn(4, 1, 48, 32)
    assert torch.isfinite(method(list(wide)).loss)


# ------------------------------------------------------------------------- over a run


def test_the_teachers_follow_at_one_momentum_and_prototypes_are_held_together() -> None:
    method = _part_ways(_built(momentum=0.75, momentum_end=0.75, freeze_last_layer=0.5))
    before = {name: p.clone() for name, p in method.patch_teacher.model.named_parameters()}
    method.after_step(0.2)
    for name, parameter in method.patch_head.named_parameters():
        expected = 0.75 * before[name] + 0.25 * parameter.detach()
        torch.testing.assert_close(method.patch_teacher.model.get_parameter(name), expected)
    for progress, held in ((0.2, True), (0.6, False)):
        method(_views()).loss.backward()
        method.before_step(progress)
        assert [head.prototypes.grad is None for head in (method.head, method.patch_head)] == [held, held]


def test_the_centres_move_where_they_are_asked_for() -> None:
    for centring, moves in (("centre", True), ("sinkhorn", False)):
        method = _built(centring=centring)
        method(_views())
        method.after_step(0.1)
        assert [bool(centre.value.any()) for centre in (method.centre, method.patch_centre)] == [moves, moves]
        assert ("centre_norm" in method(_views()).metrics) is moves


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_equal_one_batch_where_samples_are_not_compared(parts: int) -> None:
    whole = _part_ways(_built(centring="centre", koleo=0.0))
    assert not whole.mixes_samples
    split, views = copy.deepcopy(whole), _views(n=8)
    optimisers = _optimiser(whole), _optimiser(split)
    for progress in (0.3, 0.4):
        _step(whole, optimisers[0], views, progress)
        _step(split, optimisers[1], views, progress, parts)
    torch.testing.assert_close(dict(split.state_dict()), dict(whole.state_dict()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{"koleo": 0.1, "centring": "centre"}, {"koleo": 0.0, "centring": "sinkhorn"}])
def test_samples_are_said_to_be_compared(settings: dict[str, Any]) -> None:
    assert _built(**settings).mixes_samples


@pytest.mark.parametrize("settings", [{}, {"separate_heads": False, "centring": "centre"}])
def test_a_resumed_run_takes_the_same_steps(settings: dict[str, Any]) -> None:
    views, straight = _views(), _built(momentum=0.7, **settings)
    first = _optimiser(straight)
    for done in range(3):
        _step(straight, first, views, (done + 1) / 8)
    resumed = _part_ways(_built(momentum=0.7, **settings))
    resumed(views)
    resumed.after_step(0.9)
    resumed.load_state_dict(load(save(straight.state_dict())))
    second = _optimiser(resumed)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for done in range(3, 6):
        _step(straight, first, views, (done + 1) / 8)
        _step(resumed, second, views, (done + 1) / 8)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(straight.state_dict()), rtol=0, atol=0)


def _learn_with_another(folder: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="32-true")
    fabric.launch()
    method = _part_ways(_built(koleo=0.0))
    module, optimiser = fabric.setup(method, _optimiser(method))
    for progress in (0.1, 0.2):
        rows = slice(4 * fabric.global_rank, 4 * fabric.global_rank + 4)
        fabric.backward(module([view[rows] for view in _views(n=8)]).loss)
        optimiser.step()
        optimiser.zero_grad()
        method.after_step(progress)
    save_file(method.state_dict(), folder / f"{fabric.global_rank}.safetensors")


@pytest.mark.slow
def test_two_ranks_equal_one_process_with_their_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sinkhorn-Knopp is over both ranks together, though they hide unequal numbers of patches."""
    run_ranks(_learn_with_another, tmp_path)
    one, masks, counts = _part_ways(_built(koleo=0.0)), [PatchMasks(0), PatchMasks(0)], []

    def draw(samples: int, grids: Sequence[tuple[int, int]]) -> list[Tensor]:
        drawn = []
        for rank in range(2):
            monkeypatch.setattr(patch_masks, "own_rank", lambda rank=rank: rank)
            drawn.append(masks[rank].draw(samples // 2, grids))
            masks[rank].step()
        counts.append([int(torch.cat(own).sum()) for own in drawn])
        return [torch.cat(both) for both in zip(*drawn, strict=True)]

    monkeypatch.setattr(one.masks, "draw", draw)
    optimiser = _optimiser(one)
    for progress in (0.1, 0.2):
        _step(one, optimiser, _views(n=8), progress)
    assert any(first != second for first, second in counts)
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        torch.testing.assert_close(found, dict(one.state_dict()), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_steps_bring_the_student_closer() -> None:
    method, views = _built(momentum=1.0, koleo=0.0), _views(n=8)
    optimiser = torch.optim.AdamW(_trainable(method), lr=3e-3)
    before = float(method(views).loss.detach())
    for step in range(30):
        _step(method, optimiser, views, step / 30)
    assert float(method(views).loss.detach()) < before - 0.3


# ------------------------------------------------------------------------- building


def test_heads_are_shared_or_apart() -> None:
    apart, shared = _built(), _built(separate_heads=False)
    assert apart.patch_head.prototypes.shape == apart.head.prototypes.shape
    assert not torch.equal(apart.patch_head.prototypes, apart.head.prototypes)
    assert shared.patch_head is shared.patch_teacher is None
    assert len(shared.state_dict()) < len(apart.state_dict())
    for method in (apart, shared):
        state = method.state_dict()
        assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


def test_another_network_than_a_vit_is_refused_with_the_remedy() -> None:
    encoder = build_encoder(BackboneSpec(name="test_resnet"), seed=0)
    with pytest.raises(ConfigError, match=r"^DINOv2 masks patches: choose a ViT, for example model\.name=vit_.*ResNet"):
        DinoV2Spec(**SMALL).build(encoder, (2, 3), seed=0)


@pytest.mark.parametrize("ratio", [(0.0, 0.5), (0.5, 0.1), (0.1, 1.1)])
def test_a_mask_ratio_is_a_range_of_shares(ratio: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"mask_ratio"):
        DinoV2Spec(mask_ratio=ratio)
