"""A convolution to one pixel, against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.layers import PixelConv2d, spare_padding

sizes = st.integers(1, 6)


@given(
    height=sizes,
    width=sizes,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
)
def test_values_and_gradients_are_those_of_the_convolution(
    height: int, width: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], bias: bool
) -> None:
    if height + 2 * padding[0] < kernel[0] or width + 2 * padding[1] < kernel[1]:
        return
    torch.manual_seed(0)
    layer = PixelConv2d(3, 5, kernel, stride, padding, bias=bias).double()
    pixels = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    found = layer(pixels)
    expected = functional.conv2d(pixels, layer.weight, layer.bias, stride, padding)
    torch.testing.assert_close(found, expected)
    inputs = (pixels, *layer.parameters())
    wanted = torch.autograd.grad(expected.square().sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), inputs), wanted)


def test_padding_is_not_multiplied_where_the_output_is_one_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Conv2d, "forward", lambda layer, pixels: pytest.fail("convolved"))
    layer = PixelConv2d(3, 5, 3, padding=1)
    assert layer(torch.zeros(2, 3, 1, 1)).shape == (2, 5, 1, 1)


@pytest.mark.parametrize(
    "changed", [{"groups": 2}, {"dilation": 2, "padding": 2}, {"padding_mode": "reflect"}, {"padding": "same"}]
)
def test_other_kinds_of_convolution_stay_as_they_are(changed: dict[str, object]) -> None:
    layer = PixelConv2d(4, 4, 3, **{"padding": 1, **changed})  # type: ignore[arg-type]
    plain = nn.Conv2d(4, 4, 3, **{"padding": 1, **changed})  # type: ignore[arg-type]
    plain.load_state_dict(layer.state_dict())
    pixels = torch.randn(2, 4, 3, 3)
    assert torch.equal(layer(pixels), plain(pixels))


def test_an_encoder_of_small_views_spares_them_and_keeps_its_state() -> None:
    encoder = build_encoder(BackboneSpec(name="test_resnet", channels=1), seed=0)
    assert any(isinstance(module, PixelConv2d) for module in encoder.modules())
    plain = copy.deepcopy(encoder)
    for module in plain.modules():
        if isinstance(module, PixelConv2d):
            module.__class__ = nn.Conv2d
    assert list(plain.state_dict()) == list(encoder.state_dict())
    pixels = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(encoder.train()(pixels), plain.train()(pixels), rtol=1e-4, atol=1e-4)


def test_only_plain_convolutions_are_exchanged() -> None:
    class Own(nn.Conv2d):
        pass

    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 1), Own(1, 1, 3))
    first = model[0].weight
    spare_padding(model)
    assert [type(module) for module in model] == [PixelConv2d, PixelConv2d, Own]
    assert model[0].weight is first
