"""Grad-CAM equals its formula, and refuses what has no feature maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from terrasieve.errors import ConfigError
from terrasieve.explain.maps import grad_cam
from terrasieve.models.backbone import BackboneSpec, build_encoder


def test_equals_the_formula_by_hand() -> None:
    """With global average pooling the weight of a map is its weight in the head over the number of pixels."""
    features = nn.Conv2d(1, 2, 1, bias=False)
    features.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    head = nn.Linear(2, 2)
    head.weight.data = torch.tensor([[3.0, 1.0], [-2.0, 5.0]])
    network = nn.Sequential(features, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    pixels = torch.tensor([[[[1.0, -2.0], [0.5, -4.0]]]]).expand(2, 1, 2, 2)
    found = grad_cam(network, pixels, np.array([0, 1]))
    assert found[0] == pytest.approx(np.array([[3 * 1.0, 1 * 2.0], [3 * 0.5, 1 * 4.0]]) / 4)
    assert found[1] == pytest.approx(np.array([[0.0, 5 * 2.0], [0.0, 5 * 4.0]]) / 4)


def test_last_map_is_the_last_of_more_than_one_pixel(shake: Callable[..., nn.Module]) -> None:
    """Layer 4 of a ResNet is one pixel of an image of 32; the map is that of layer 3, with 2 by 2."""
    encoder = build_encoder(BackboneSpec(name="resnet18", channels=2), seed=0)
    network = shake(nn.Sequential(encoder, nn.Linear(encoder.features, 2))).eval()
    network[1].weight.data.abs_()
    pixels, body = torch.randn(2, 2, 32, 32), encoder.model
    features = body.layer3(body.layer2(body.layer1(body.maxpool(body.act1(body.bn1(body.conv1(pixels)))))))
    assert features.shape[2:] == (2, 2)
    features = features.detach().requires_grad_()
    score = network[1](body.global_pool(body.layer4(features)))[[0, 1], [1, 0]].sum()
    (gradient,) = torch.autograd.grad(score, features)
    coarse = (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).clamp(min=0)
    expected = functional.interpolate(coarse[:, None], size=(32, 32), mode="bilinear")[:, 0].detach().numpy()
    found = grad_cam(network, pixels, np.array([1, 0]))
    assert expected.max() > 0
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5 * float(expected.max()))


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 64, 64), (12, 48, 64)])
def test_covers_the_image_and_is_never_negative(channels: int, height: int, width: int) -> None:
    encoder = build_encoder(BackboneSpec(name="test_resnet", channels=channels), seed=0)
    network = nn.Sequential(encoder, nn.Linear(encoder.features, 3))
    network[1].weight.data.abs_()
    network[1].weight.data[2] *= -1
    found = grad_cam(network, torch.randn(3, channels, height, width), np.array([0, 1, 2]))
    assert found.shape == (3, height, width)
    assert found.min() >= 0
    assert (found[:2].max(axis=(1, 2)) > 0).all()
    assert (found[2] == 0).all()


def test_refuses_attention_and_single_pixels() -> None:
    vit = build_encoder(BackboneSpec(name="test_vit", channels=1), seed=0)
    with pytest.raises(ConfigError, match="attention maps"):
        grad_cam(nn.Sequential(vit, nn.Linear(vit.features, 2)), torch.randn(1, 1, 32, 32), np.array([0]))
    with pytest.raises(ConfigError, match=r"1x1.*larger images"):
        grad_cam(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten()), torch.randn(1, 1, 1, 1), np.array([0]))
