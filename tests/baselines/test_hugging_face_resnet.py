"""OceanSAR-1's format: what transformers computes, computed by timm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from terrasieve.baselines.loading import load_baseline
from terrasieve.errors import CheckpointError

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 2, 1, 2], "layer_type": "bottleneck", "num_channels": 1}


def _shaken(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(std=0.1, generator=generator)
    return model.eval()


def _saved(path: Path, **changes: object) -> nn.Module:
    model = _shaken(transformers.ResNetModel(transformers.ResNetConfig(**{**SMALL, **changes})))
    model.save_pretrained(path)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"layer_type": "basic"}, {"hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3]}],
    ids=["small bottleneck", "basic", "ResNet-50 as released"],
)
def test_features_are_transformers_pooler_output(changes: dict[str, object], tmp_path: Path) -> None:
    model = _saved(tmp_path, **changes)
    baseline = load_baseline(f"oceansar-1:{tmp_path}")
    pixels = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = model(pixels).pooler_output.flatten(1)
        torch.testing.assert_close(baseline.encoder(pixels), expected, rtol=1e-4, atol=1e-4)
    assert baseline.encoder.features == expected.shape[1]
    assert (baseline.channels, baseline.bands, baseline.facts.licence) == (1, ("VV",), "Apache-2.0")


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_a_model_with_a_classifier(safe: bool, tmp_path: Path) -> None:
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(**SMALL, num_labels=1))
    _shaken(model).save_pretrained(tmp_path)
    if not safe:
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    pixels = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = model.resnet(pixels).pooler_output.flatten(1)
        features = load_baseline(f"oceansar-1:{tmp_path}").encoder(pixels)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"downsample_in_bottleneck": True},
        {"downsample_in_first_stage": True},
        {"hidden_act": "gelu"},
        {"embedding_size": 32},
        {"hidden_sizes": [16, 32, 64], "depths": [1, 1, 1]},
        {"model_type": "vit"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_network_that_timm_cannot_reproduce_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    config = {**SMALL, "model_type": "resnet", **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="cannot reproduce") as caught:
        load_baseline(f"oceansar-1:{tmp_path}")
    assert next(iter(changes)) in str(caught.value)


def test_refused_settings_would_have_changed_the_features(tmp_path: Path) -> None:
    """The strides' place is invisible in names and shapes: only the configuration tells."""
    model = _saved(tmp_path, downsample_in_bottleneck=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["downsample_in_bottleneck"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "downsample_in_bottleneck": False}))
    pixels = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = model(pixels).pooler_output.flatten(1)
        assert not torch.allclose(load_baseline(f"oceansar-1:{tmp_path}").encoder(pixels), expected, atol=1e-2)


def test_what_is_missing_in_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_baseline(f"oceansar-1:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, "model_type": "resnet"}))
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_baseline(f"oceansar-1:{tmp_path}")


def test_weights_of_another_configuration_are_refused(tmp_path: Path) -> None:
    _saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "depths": [1, 3, 1, 2]}))
    with pytest.raises(CheckpointError, match=r"missing layer2\.2\."):
        load_baseline(f"oceansar-1:{tmp_path}")


@pytest.mark.slow
def test_a_resnet_of_three_channels_is_not_oceansar(tmp_path: Path) -> None:
    _saved(tmp_path, num_channels=3)
    with pytest.raises(CheckpointError, match=r"takes 3 channel\(s\)"):
        load_baseline(f"oceansar-1:{tmp_path}")
