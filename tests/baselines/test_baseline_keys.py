"""State dicts of other code bases give the features that their own networks give, and nothing passes unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.segmentation import DeepLabV3

from terrasieve.baselines import state_dicts as keys
from terrasieve.baselines.baseline import Baseline
from terrasieve.baselines.loading import load_baseline
from terrasieve.baselines.weights import fill
from terrasieve.errors import CheckpointError
from terrasieve.models.backbone import BackboneSpec, build_encoder

Pooled = Callable[[nn.Module, Tensor], Tensor]


def _children(model: nn.Module) -> dict[str, Tensor]:
    """The names that both BYOL-PyTorch and SeCo give: a sequence of torchvision's children without the last."""
    return nn.Sequential(*list(model.children())[:-1]).state_dict()


def _prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def _mlp(prefix: str, kind: str) -> dict[str, Tensor]:
    names = {"byol": ("l1.weight", "bn1.running_mean", "l2.bias"), "seco": ("0.0.weight", "0.2.bias", "2.2.weight")}
    return {prefix + name: torch.zeros(2) for name in names[kind]}


def _byol(model: nn.Module, module: str = "module.") -> dict[str, Tensor]:
    other = {key: torch.full_like(tensor, 9) for key, tensor in _children(model).items()}
    return (
        _prefixed(_children(model), f"{module}online_network.encoder.")
        | _mlp(f"{module}online_network.projetion.", "byol")
        | _prefixed(other, f"{module}target_network.encoder.")
        | _mlp(f"{module}target_network.projetion.", "byol")
        | _mlp(f"{module}predictor.predictor.", "byol")
    )


def _seco(model: nn.Module) -> dict[str, Tensor]:
    other = {key: torch.full_like(tensor, 9) for key, tensor in _children(model).items()}
    queue = {"queue": torch.zeros(3, 4, 8), "queue_ptr": torch.zeros(3, 1, dtype=torch.long)}
    heads = _mlp("heads_q.", "seco") | _mlp("heads_k.", "seco")
    return _prefixed(_children(model), "encoder_q.") | _prefixed(other, "encoder_k.") | heads | queue


def _same(text: str, expected: Tensor, pixels: Tensor) -> Baseline:
    baseline = load_baseline(text)
    assert not any(module.training for module in baseline.encoder.modules())
    with torch.no_grad():
        torch.testing.assert_close(baseline.encoder(pixels), expected, rtol=1e-4, atol=1e-4)
    return baseline


@pytest.mark.slow
def test_torchvision_weights_of_imagenet(resnet18: nn.Module, pooled: Pooled, tmp_path: Path) -> None:
    save_file(resnet18.state_dict(), tmp_path / "resnet18.safetensors")
    pixels = torch.randn(2, 3, 64, 64)
    text = f"imagenet:resnet18.tv_in1k:{tmp_path / 'resnet18.safetensors'}"
    baseline = _same(text, pooled(resnet18, pixels), pixels)
    assert baseline.name == "imagenet resnet18.tv_in1k"
    assert baseline.notes == ("left out: fc.bias, fc.weight",)
    assert (baseline.channels, baseline.bands) == (3, ("red", "green", "blue"))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["module.", ""], ids=["several GPUs", "one GPU"])
def test_byol_imagenet(resnet18: nn.Module, pooled: Pooled, module: str, tmp_path: Path) -> None:
    state = {"config": {"stage": "train"}, "epoch": 300, "steps": 9, "model": _byol(resnet18, module), "amp": {}}
    torch.save(state, tmp_path / "byol.pth.tar")
    pixels = torch.randn(2, 3, 48, 48)
    _same(f"byol-imagenet:{tmp_path / 'byol.pth.tar'}", pooled(resnet18, pixels), pixels)


@pytest.mark.slow
def test_byol_imagenet_as_it_is_published(resnet50: nn.Module, pooled: Pooled, tmp_path: Path) -> None:
    online = {key: tensor for key, tensor in resnet50.state_dict().items() if not key.startswith("fc.")}
    assert len(online) == 318  # the number that the repository's readme states
    target = {key: torch.zeros(1) for key in online}
    state = {"online_backbone": _prefixed(online, "module."), "target_backbone": _prefixed(target, "module.")}
    # The format of torch before 1.6, in which the published file was written.
    torch.save(state, tmp_path / "byol.pth.tar", _use_new_zipfile_serialization=False)
    pixels = torch.randn(1, 3, 32, 32)
    _same(f"byol-imagenet:{tmp_path / 'byol.pth.tar'}", pooled(resnet50, pixels), pixels)


@pytest.mark.slow
def test_seco(resnet18: nn.Module, pooled: Pooled, tmp_path: Path) -> None:
    torch.save({"epoch": 199, "state_dict": _seco(resnet18)}, tmp_path / "seco.ckpt")
    pixels = torch.randn(2, 3, 48, 48)
    baseline = _same(f"seco:{tmp_path / 'seco.ckpt'}", pooled(resnet18, pixels), pixels)
    assert baseline.name == "seco resnet18"


@pytest.mark.slow
def test_deeplab_backbone(deeplab: DeepLabV3, tmp_path: Path) -> None:
    path = tmp_path / "deeplab.pth"
    torch.save(deeplab.state_dict(), path)
    pixels = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        features = deeplab.backbone(pixels)["out"]
        assert features.shape[-2:] == (6, 6)
        _same(f"coco-deeplabv3:{path}", features.mean(dim=(2, 3)), pixels)


def test_counters_of_batches_may_be_absent_and_are_taken_where_they_are(resnet18: nn.Module) -> None:
    tensors = keys.byol_imagenet_legacy_keys(resnet18.state_dict())
    model = build_encoder(BackboneSpec(name="resnet18", channels=3), seed=0).model
    fill(model, {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}, "resnet18")
    assert model.bn1.num_batches_tracked == 0
    torch.testing.assert_close(model.layer4[1].bn2.running_var, resnet18.layer4[1].bn2.running_var)
    fill(model, tensors, "resnet18")
    assert model.bn1.num_batches_tracked == 7


@pytest.mark.parametrize(
    ("name", "text"), [("missing", "missing layer3.1.conv2.weight"), ("shape", r"bn1.bias \(5,\) instead of \(64,\)")]
)
def test_what_is_missing_or_of_another_shape_is_named(
    resnet18: nn.Module, name: str, text: str, tmp_path: Path
) -> None:
    tensors = _seco(resnet18)
    if name == "missing":
        del tensors["encoder_q.6.1.conv2.weight"]
    else:
        tensors["encoder_q.1.bias"] = torch.zeros(5)
    torch.save({"state_dict": tensors}, tmp_path / "seco.ckpt")
    with pytest.raises(CheckpointError, match=text) as caught:
        load_baseline(f"seco:{tmp_path / 'seco.ckpt'}")
    assert str(tmp_path / "seco.ckpt") in str(caught.value)


@pytest.mark.parametrize(
    ("convert", "known", "foreign"),
    [
        (keys.byol_imagenet_keys, "module.online_network.encoder.0.weight", "module.online_network.encoder.9.weight"),
        (keys.byol_imagenet_legacy_keys, "module.bn1.bias", "module.layer5.0.weight"),
        (keys.seco_keys, "encoder_q.7.0.downsample.1.bias", "encoder_q.8.weight"),
        (keys.seco_keys, "encoder_q.0.weight", "layer1.0.conv1.weight"),
        (keys.deeplabv3_backbone_keys, "backbone.layer1.0.conv1.weight", "layer1.0.conv1.weight"),
        (keys.hugging_face_resnet_keys, "embedder.embedder.convolution.weight", "pooler.dense.weight"),
    ],
)
def test_a_key_of_no_known_part_is_refused(
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]], known: str, foreign: str
) -> None:
    assert len(convert({known: torch.zeros(1)})) == 1
    with pytest.raises(CheckpointError, match=f"do not belong to .*: {foreign.removeprefix('module.')}"):
        convert({known: torch.zeros(1), foreign: torch.zeros(1)})


def test_two_names_of_one_weight_are_refused() -> None:
    with pytest.raises(CheckpointError, match="mean the same"):
        keys.hugging_face_resnet_keys(
            {f"{p}embedder.embedder.convolution.weight": torch.zeros(1) for p in ("", "resnet.")}
        )


def test_a_superfluous_block_is_named(resnet18: nn.Module) -> None:
    tensors = keys.byol_imagenet_legacy_keys(resnet18.state_dict())
    tensors["layer1.0.conv9.weight"] = torch.zeros(1)
    model = build_encoder(BackboneSpec(name="resnet18", channels=3), seed=0).model
    with pytest.raises(CheckpointError, match=r"superfluous layer1\.0\.conv9\.weight"):
        fill(model, tensors, "resnet18")


def test_a_resnet_of_unknown_depth_is_refused(resnet18: nn.Module) -> None:
    tensors = {
        k: v for k, v in keys.byol_imagenet_legacy_keys(resnet18.state_dict()).items() if not k.startswith("layer4.1.")
    }
    with pytest.raises(CheckpointError, match=r"\(2, 2, 2, 1\) blocks"):
        keys.resnet_of(tensors)


def test_conversion_leaves_its_source_alone(resnet18: nn.Module) -> None:
    tensors = _seco(resnet18)
    before = dict(tensors)
    converted = keys.seco_keys(tensors)
    assert tensors.keys() == before.keys()
    assert converted["conv1.weight"] is tensors["encoder_q.0.weight"]
