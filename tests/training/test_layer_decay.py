"""Learning rates that decay from the last layer of the encoder to the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig
from terrasieve.errors import ConfigError
from terrasieve.methods.byol import ByolSpec
from terrasieve.methods.dino import DinoSpec
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder, layer_depths
from terrasieve.pretraining import make_job
from terrasieve.training.loop import make_fabric, train
from terrasieve.training.optimisation import build_optimiser, set_rates
from terrasieve.training.spec import AdamW, Sgd, TrainSpec

# test_resnet has a stem and four stages of one block each, test_vit a stem and six blocks.
LAYERS = {"test_resnet": ("conv1.0", "layer1", "layer2", "layer3", "layer4"), "test_vit": ("patch_embed", "blocks.0")}
LAST = {"test_resnet": 4, "test_vit": 6}


def rates_by_name(method: nn.Module, optimiser: torch.optim.Optimizer) -> Mapping[str, tuple[float, float]]:
    """Learning rate and weight decay of every trained parameter."""
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}
    return {name: settings[id(p)] for name, p in method.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", [Sgd, AdamW])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_each_layer_has_its_rate_and_heads_the_whole(name: str, kind: type[Sgd] | type[AdamW]) -> None:
    method = ByolSpec().build(build_encoder(BackboneSpec(name=name), seed=0), (1, 1), seed=0)
    optimiser = build_optimiser(
        method, TrainSpec(optimiser=kind(layer_decay=0.5, weight_decay=0.1)), torch.device("cpu")
    )
    set_rates(optimiser, 0.8, 0.2)
    rates = rates_by_name(method, optimiser)
    for depth, layer in enumerate(LAYERS[name]):
        of_layer = [rate for key, rate in rates.items() if key.startswith(f"encoder.model.{layer}.")]
        assert of_layer
        assert {lr for lr, _ in of_layer} == {0.8 * 0.5 ** (LAST[name] - depth)}
    for key, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert rates[key][1] == (0.2 if parameter.ndim > 1 else 0.0)
    heads = {lr for key, (lr, _) in rates.items() if not key.startswith("encoder.")}
    last = {lr for key, (lr, _) in rates.items() if key.startswith(("encoder.model.layer4", "encoder.model.norm."))}
    assert heads == last == {0.8}


def test_every_trained_parameter_is_in_one_group() -> None:
    method = DinoSpec(prototypes=8, hidden=8, bottleneck=4).build(
        build_encoder(BackboneSpec(name="test_vit"), seed=0), (2,), seed=0
    )
    optimiser = build_optimiser(method, TrainSpec(optimiser=AdamW(layer_decay=0.7)), torch.device("cpu"))
    grouped = [id(p) for group in optimiser.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in method.parameters() if p.requires_grad}


@pytest.mark.parametrize("decay", [None, 1.0])
def test_without_decay_there_are_the_two_groups_of_before(decay: float | None) -> None:
    method = ByolSpec().build(build_encoder(BackboneSpec(name="test_resnet"), seed=0), (1, 1), seed=0)
    optimiser = build_optimiser(method, TrainSpec(optimiser=Sgd(layer_decay=decay)), torch.device("cpu"))
    trained = [p for p in method.parameters() if p.requires_grad]
    weights, rest = ([p for p in trained if (p.ndim > 1) is wide] for wide in (True, False))
    first, second = optimiser.param_groups
    assert [id(p) for p in first["params"]] == [id(p) for p in weights]
    assert [id(p) for p in second["params"]] == [id(p) for p in rest]
    set_rates(optimiser, 0.3, 0.1)
    assert [(group["lr"], group["weight_decay"]) for group in optimiser.param_groups] == [(0.3, 0.1), (0.3, 0.0)]


def test_depths_have_no_gaps() -> None:
    for name in ("test_resnet", "test_vit", "resnet18", "vit_tiny_patch16_224"):
        encoder = build_encoder(BackboneSpec(name=name), seed=0)
        depths = layer_depths(encoder)
        assert depths.keys() == dict(encoder.model.named_parameters()).keys()
        assert set(depths.values()) == set(range(max(depths.values()) + 1))


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"layer_decay=null"):
        layer_depths(Encoder(nn.Sequential(nn.Linear(1, 1)), 1, 1))


@pytest.mark.slow
def test_the_first_layer_moves_less(archive: Archive, plain_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    travelled = {}
    for decay in ("null", "0.1"):
        config = plain_config("train.epochs=1", f"train.optimiser.layer_decay={decay}")
        job = make_job(config, archive, tmp_path / decay)
        before = {key: tensor.clone() for key, tensor in job.method.encoder.model.state_dict().items()}
        train(job, make_fabric(config.train, "cpu"))
        after = job.method.encoder.model.state_dict()
        travelled[decay] = {
            key: float((after[key] - before[key]).norm()) for key in ("conv1.0.weight", "layer1.0.conv1.weight")
        }
    assert all(0 < travelled["0.1"][key] < travelled["null"][key] / 10 for key in travelled["null"])
