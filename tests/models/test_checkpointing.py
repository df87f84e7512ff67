"""Activation checkpointing leaves loss and gradients as they are, and keeps less in memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from terrasieve.errors import ConfigError
from terrasieve.methods.dino import DinoSpec
from terrasieve.methods.dinov2 import DinoV2Spec
from terrasieve.models.backbone import BackboneSpec, build_encoder, checkpoint_activations

HEAD = {"hidden": 12, "bottleneck": 6, "prototypes": 10}


def _learnt(spec: DinoSpec, checkpoint: bool, views: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor], int]:
    encoder = build_encoder(BackboneSpec(name="test_vit", drop_path=0.5), 0)
    if checkpoint:
        checkpoint_activations(encoder)
    method, kept = spec.build(encoder, (2, 2), 0), {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(5)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = method(views).loss
    loss.backward()
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, sum(kept.values())


@pytest.mark.parametrize("spec", [DinoSpec(**HEAD), DinoV2Spec(**HEAD)])
def test_gradients_are_the_same_and_less_is_kept(spec: DinoSpec) -> None:
    views = [torch.randn(4, 1, size, size) for size in (32, 32, 16, 16)]
    plain, repeated = _learnt(spec, False, views), _learnt(spec, True, views)
    torch.testing.assert_close(repeated[0], plain[0])
    assert repeated[1].keys() == plain[1].keys()
    torch.testing.assert_close(repeated[1], plain[1])
    assert repeated[2] < plain[2]


def test_batch_normalisation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"would count each batch twice\. Set model\.checkpoint=false"):
        checkpoint_activations(build_encoder(BackboneSpec(name="test_resnet"), 0))
