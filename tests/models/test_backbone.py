from __future__ import annotations

import pytest
import torch

from terrasieve.errors import BandError, ConfigError
from terrasieve.models.backbone import BackboneSpec, build_encoder


@pytest.mark.parametrize(
    ("spec", "features"),
    [
        (BackboneSpec(name="resnet18", channels=1), 512),
        (BackboneSpec(name="resnet18", channels=13), 512),
        (BackboneSpec(name="resnet50", channels=2), 2048),
        (BackboneSpec(name="vit_tiny_patch16_224", channels=3, image_size=32), 192),
        (BackboneSpec(name="mobilenetv3_small_050", channels=2), 1024),  # its head is wider than its trunk
    ],
    ids=lambda value: f"{value.name}-{value.channels}" if isinstance(value, BackboneSpec) else str(value),
)
def test_any_number_of_bands_gives_one_vector_an_image(spec: BackboneSpec, features: int) -> None:
    encoder = build_encoder(spec, seed=0).eval()
    vectors = encoder(torch.randn(2, spec.channels, 32, 32))
    assert encoder.features == features
    assert vectors.shape == (2, features)
    assert not torch.equal(vectors[0], vectors[1])


def test_vit_takes_sizes_that_it_was_not_laid_out_for() -> None:
    encoder = build_encoder(BackboneSpec(name="vit_tiny_patch16_224", image_size=32), seed=0)
    assert encoder.model.pos_embed.shape[1] == 1 + 2 * 2
    assert encoder(torch.randn(1, 1, 48, 64)).shape == (1, 192)


def test_patch_size_and_registers_reach_a_vit() -> None:
    spec = BackboneSpec(name="vit_tiny_patch16_224", image_size=32, patch_size=8, registers=3)
    vit = build_encoder(spec, seed=0).model
    assert (vit.patch_embed.patch_size, vit.patch_embed.grid_size) == ((8, 8), (4, 4))
    assert (vit.reg_token.shape[1], vit.pos_embed.shape[1]) == (3, 1 + 3 + 16)
    plain = build_encoder(BackboneSpec(name="vit_tiny_patch16_224"), seed=0).model
    assert (plain.patch_embed.patch_size, plain.reg_token) == ((16, 16), None), "the network's own"


@pytest.mark.parametrize("settings", [{"patch_size": 8}, {"registers": 4}])
def test_a_network_without_patches_refuses_them(settings: dict[str, int]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ConfigError, match=rf"resnet18 does not take one of .*model\.{name}={value}"):
        build_encoder(BackboneSpec(name="resnet18", **settings), seed=0)


def test_weights_depend_on_the_seed_alone() -> None:
    spec = BackboneSpec(name="resnet18")
    one = build_encoder(spec, seed=3).state_dict()
    torch.randn(5)
    again, other = build_encoder(spec, seed=3).state_dict(), build_encoder(spec, seed=4).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["model.conv1.weight"], other["model.conv1.weight"])


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build_encoder(BackboneSpec(name="resnet18"), seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_drop_path_reaches_the_network() -> None:
    pixels = torch.randn(4, 1, 32, 32)
    for rate, varies in ((0.0, False), (0.9, True)):
        encoder = build_encoder(BackboneSpec(name="vit_tiny_patch16_224", image_size=32, drop_path=rate), seed=0)
        assert torch.equal(encoder(pixels), encoder(pixels)) is not varies


def test_wrong_number_of_bands_names_both() -> None:
    encoder = build_encoder(BackboneSpec(name="resnet18", channels=3), seed=0)
    with pytest.raises(BandError, match=r"takes 3 band\(s\), but was given 2"):
        encoder(torch.randn(2, 2, 32, 32))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BackboneSpec(name="resnet_50"), "Did you mean 'resnet50'"),
        (BackboneSpec(name="vit_tiny_patch16"), "Did you mean 'vit_tiny_patch16_224'"),
        (BackboneSpec(name="qqq"), "Known: resnet18, resnet50, vit_base"),
        (BackboneSpec(name="hf-hub:timm/resnet18.a1_in1k"), "no network 'hf-hub"),
        (BackboneSpec(name="resnet18", image_size=64), "model.image_size=null"),
        (BackboneSpec(name="vgg11", drop_path=0.1), "does not take one of model.drop_path=0.1"),
    ],
    ids=lambda value: value.name if isinstance(value, BackboneSpec) else "",
)
def test_what_timm_cannot_build_is_explained(spec: BackboneSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder(spec, seed=0)
