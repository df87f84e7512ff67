"""Measured statistics are those of the pixels, and nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.calibration import batch_norms, calibrated, calibrated_each
from terrasieve.models.layers import SplitBatchNorm2d
from terrasieve.models.teacher import Teacher

EPS = 1e-5
KINDS = [nn.BatchNorm2d, SplitBatchNorm2d, BatchNormAct2d]


def pixels(batches: int = 3, level: float = 4.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [level + 3 * torch.rand(8, 2, 4, 4, generator=generator, dtype=torch.float64) for _ in range(batches)]


def network(kind: Callable[[int], nn.Module]) -> nn.Sequential:
    """Two layers of batch normalisation with a rectifier after each, which timm's kind has in itself."""
    torch.manual_seed(0)
    after = nn.Identity() if kind is BatchNormAct2d else nn.ReLU()
    return nn.Sequential(nn.Conv2d(2, 3, 1), kind(3), after, nn.Conv2d(3, 2, 1), kind(2), nn.Dropout(0.5)).double()


def moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return values.mean(axis=(0, 2, 3)), values.var(axis=(0, 2, 3), ddof=1)


def convolve(layer: nn.Module, values: NDArray[np.float64]) -> NDArray[np.float64]:
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    kernel = layer.weight.detach().numpy()[:, :, 0, 0]
    return np.einsum("oc,nchw->nohw", kernel, values) + layer.bias.detach().numpy()[:, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_equal_those_computed_by_hand(kind: Callable[[int], nn.Module]) -> None:
    model = network(kind)
    first, second = [], []
    for batch in pixels():
        hidden = convolve(model[0], batch.numpy())
        first.append(moments(hidden))
        spread = np.sqrt(hidden.var(axis=(0, 2, 3), keepdims=True) + EPS)
        hidden = np.maximum((hidden - hidden.mean(axis=(0, 2, 3), keepdims=True)) / spread, 0)
        second.append(moments(convolve(model[3], hidden)))
    found = batch_norms(calibrated(model, pixels()))
    for norm, measured in zip(found, (first, second), strict=True):
        mean, variance = (np.mean([batch[i] for batch in measured], axis=0) for i in (0, 1))
        np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(norm.running_var, variance, rtol=1e-12)


def test_the_network_stays_as_it_is_and_its_copy_can_be_trained_on() -> None:
    model = network(nn.BatchNorm2d)
    model[4].eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state = torch.get_rng_state()
    found = calibrated(model, pixels())
    # Dropout is a layer that would draw.
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in found.modules())
    assert [norm.momentum for norm in batch_norms(found)] == [0.1, 0.1]
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_a_teacher_is_measured_and_keeps_statistics_of_its_own() -> None:
    model = network(nn.BatchNorm2d)
    teacher = Teacher(model).train().model
    teacher(pixels()[0] + 5)
    own = copy.deepcopy(teacher.state_dict())
    found, expected = calibrated(teacher, pixels()), calibrated(model, pixels())
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in found.state_dict().items())
    assert all(torch.equal(value, own[name]) for name, value in teacher.state_dict().items())


def test_each_copy_has_the_statistics_of_its_own_pixels() -> None:
    model = network(nn.BatchNorm2d)
    dark, bright = pixels(), pixels(level=9.0)
    found = calibrated_each(model, zip(dark, bright, strict=True), 2)
    for one, shown in zip(found, (dark, bright), strict=True):
        alone = calibrated(model, shown).state_dict()
        assert all(torch.equal(value, alone[name]) for name, value in one.state_dict().items())
    means = [batch_norms(one)[0].running_mean for one in found]
    assert not torch.equal(means[0], means[1])


def test_a_network_without_batch_normalisation_is_given_back_and_nothing_is_read() -> None:
    model = build_encoder(BackboneSpec(name="test_vit", channels=1), seed=0)
    assert all(one is model for one in calibrated_each(model, iter(()), 3))
