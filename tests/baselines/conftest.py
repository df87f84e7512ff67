"""Networks of torchvision whose every weight and running statistic is its own."""

from __future__ import annotations

from collections.abc import Callable

import terrasieve._torchvision  # noqa: F401  (must come first: torchvision may need it)

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.segmentation import DeepLabV3, deeplabv3_resnet50


def _shake(model: nn.Module) -> nn.Module:
    """Give every normalisation statistics and weights of its own, so that no two layers can be exchanged unseen."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(std=0.1, generator=generator)
            module.num_batches_tracked.fill_(7)
    return model.eval()


@pytest.fixture(scope="session")
def resnet18() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return _shake(torchvision.models.resnet18())


@pytest.fixture(scope="session")
def resnet50() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return _shake(torchvision.models.resnet50())


@pytest.fixture(scope="session")
def deeplab() -> DeepLabV3:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True)
        _shake(model)
        return model


@pytest.fixture(scope="session")
def pooled() -> Callable[[nn.Module, Tensor], Tensor]:
    """Pooled features of a torchvision ResNet: all but its classifier."""

    @torch.no_grad()
    def features(model: nn.Module, pixels: Tensor) -> Tensor:
        return nn.Sequential(*list(model.children())[:-1])(pixels).flatten(1)

    return features
