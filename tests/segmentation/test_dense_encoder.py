"""Dense features are the encoder's own, only at more places; the encoder is left alone."""

from __future__ import annotations

import copy

import pytest
import torch

from terrasieve.errors import BandError, ConfigError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.dense import dense_encoder, sample_maps


@pytest.fixture(scope="module")
def trained() -> Encoder:
    """A ResNet-18 whose running statistics are not those of a fresh network."""
    encoder = build_encoder(BackboneSpec(name="resnet18", channels=2), seed=1)
    encoder.train()
    with torch.no_grad():
        encoder(torch.randn(8, 2, 64, 64, generator=torch.Generator().manual_seed(0)) * 3 + 1)
    return encoder


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(2, 2, 64, 96, generator=torch.Generator().manual_seed(1))


def test_undilated_maps_average_to_the_encoder_s_features(trained: Encoder, pixels: torch.Tensor) -> None:
    dense = dense_encoder(trained, stride=32)
    maps = dense(pixels)
    assert maps.shape == (2, 512, 2, 3)
    expected = copy.deepcopy(trained).eval()(pixels)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stride", [8, 16])
def test_dilation_adds_places_and_changes_none(trained: Encoder, pixels: torch.Tensor, stride: int) -> None:
    # The algorithme a trous: every fourth (second) cell of the dilated maps is a cell of the strided ones.
    dense = dense_encoder(trained, stride)
    finer, step = dense(pixels), 32 // stride
    assert finer.shape == (2, 512, 64 // stride, 96 // stride)
    assert (dense.stride, dense.features, dense.first) == (stride, 512, 0.0)
    strided = dense_encoder(trained, 32)(pixels)
    torch.testing.assert_close(finer[:, :, ::step, ::step], strided, atol=1e-4, rtol=1e-4)


def test_dilation_keeps_every_weight(trained: Encoder) -> None:
    own, taken = trained.model.state_dict(), dense_encoder(trained, 8).model.state_dict()
    assert own.keys() == taken.keys()
    assert all(torch.equal(own[name], taken[name]) for name in own)
    assert not {tensor.data_ptr() for tensor in own.values()} & {tensor.data_ptr() for tensor in taken.values()}


def test_the_encoder_and_the_generator_are_left_alone(trained: Encoder, pixels: torch.Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    state = torch.random.get_rng_state()
    dense = dense_encoder(trained).train()
    assert not dense(pixels.requires_grad_()).requires_grad
    pixels.requires_grad_(False)
    assert not any(module.training for module in dense.modules())
    assert not any(parameter.requires_grad for parameter in dense.parameters())
    assert all(module.training for module in trained.modules())
    assert all(parameter.requires_grad for parameter in trained.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_cells_are_centred_where_they_say(trained: Encoder) -> None:
    dense = dense_encoder(trained, 8)
    for parameter in dense.model.parameters():
        parameter.abs_()
    pixels = torch.rand(1, 2, 160, 160, generator=torch.Generator().manual_seed(2)).requires_grad_()
    row, column = 9, 11
    dense.model.forward_features(pixels)[0, :, row, column].sum().backward()  # type: ignore[operator]
    seen = pixels.grad.abs().sum(dim=(0, 1))  # type: ignore[union-attr]
    for axis, cell in ((1, row), (0, column)):
        weights = seen.sum(dim=axis)
        centre = (weights * torch.arange(160)).sum() / weights.sum()
        assert abs(centre - (dense.first + dense.stride * cell)) < 1.5


def test_a_vit_gives_its_patch_tokens() -> None:
    encoder = build_encoder(BackboneSpec(name="vit_tiny_patch16_224", channels=1, image_size=64), seed=0)
    dense = dense_encoder(encoder, stride=8)
    assert (dense.stride, dense.first) == (16, 7.5)
    pixels = torch.randn(2, 1, 32, 64)
    tokens = copy.deepcopy(encoder.model).eval().forward_features(pixels)  # type: ignore[operator]
    maps = dense(pixels)
    assert maps.shape == (2, 192, 2, 4)
    torch.testing.assert_close(maps[:, :, 1, 2], tokens[:, 1 + 1 * 4 + 2])
    with pytest.raises(ConfigError, match="multiple of 16"):
        dense(torch.randn(1, 1, 40, 64))


def test_what_cannot_be_dilated_is_refused(trained: Encoder) -> None:
    with pytest.raises(ConfigError, match="stride of 4"):
        dense_encoder(trained, 4)
    with pytest.raises(ConfigError, match="Sequential"):
        dense_encoder(Encoder(torch.nn.Sequential(), 1, 1))
    with pytest.raises(BandError, match="takes 2"):
        dense_encoder(trained)(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(("stride", "first"), [(8, 0.0), (16, 7.5), (1, 0.0)])
def test_sampling_reproduces_a_linear_map_between_the_centres(stride: int, first: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    maps = torch.stack([rows, columns])[None].repeat(2, 1, 1, 1)
    places = torch.rand(1, 3, 4, 2) * torch.tensor([4.0, 6.0])
    found = sample_maps(maps, places * stride + first, stride, first)
    assert found.shape == (2, 2, 3, 4)
    torch.testing.assert_close(found, places.permute(0, 3, 1, 2).expand(2, -1, -1, -1), atol=1e-5, rtol=1e-5)
    beyond = sample_maps(maps, torch.full((1, 1, 1, 2), -50.0), stride, first)
    assert torch.equal(beyond, torch.zeros(2, 2, 1, 1))


def test_a_map_of_one_cell_is_the_same_everywhere() -> None:
    maps = torch.randn(1, 3, 1, 1)
    found = sample_maps(maps, torch.rand(1, 4, 4, 2) * 8, 8, 0.0)
    torch.testing.assert_close(found, maps.expand(-1, -1, 4, 4))
