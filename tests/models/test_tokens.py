"""Tokens of a ViT, seen and hidden."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from terrasieve.errors import BandError, ConfigError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.tokens import hidden_patches, patch_grid, require_vit, vit_tokens

PIXELS = torch.randn(3, 1, 32, 48, generator=torch.Generator().manual_seed(0))


def _encoder(**settings: int) -> Encoder:
    return build_encoder(BackboneSpec(name="test_vit", patch_size=8, **settings), seed=0)


@pytest.mark.parametrize("registers", [0, 4])
def test_tokens_are_the_image_and_the_patches_without_registers(registers: int) -> None:
    encoder = _encoder(registers=registers)
    tokens = vit_tokens(encoder, PIXELS)
    assert patch_grid(encoder, PIXELS) == (4, 6)
    assert tokens.patches.shape == (3, 24, 64)
    torch.testing.assert_close(tokens.image, encoder(PIXELS), rtol=0, atol=0)
    everything = encoder.model.forward_features(PIXELS)
    assert everything.shape == (3, 1 + registers + 24, 64)
    torch.testing.assert_close(tokens.patches, everything[:, 1 + registers :], rtol=0, atol=0)


def _by_hand(encoder: Encoder, pixels: Tensor, hidden: Tensor, stand_in: Tensor) -> Tensor:
    vit = encoder.model
    embedded = vit.patch_embed(pixels)
    for image, row, column in hidden.view(embedded.shape[:3]).nonzero().tolist():
        embedded[image, row, column] = stand_in
    return vit.norm(vit.blocks(vit._pos_embed(embedded)))


def test_a_hidden_patch_is_replaced_before_positions_are_added() -> None:
    encoder, hidden = _encoder(registers=2), torch.rand(3, 24, generator=torch.Generator().manual_seed(1)) < 0.3
    stand_in = torch.randn(64)
    with hidden_patches(encoder, hidden, stand_in):
        tokens = vit_tokens(encoder, PIXELS)
    with torch.no_grad():
        expected = _by_hand(encoder, PIXELS, hidden, stand_in)
    torch.testing.assert_close(tokens.image, expected[:, 0])
    torch.testing.assert_close(tokens.patches, expected[:, 3:])


def test_what_is_hidden_changes_nothing_and_what_is_seen_does() -> None:
    encoder, hidden = _encoder(), torch.zeros(1, 16, dtype=torch.bool)
    hidden[0, 5] = True  # the second row's second patch

    def seen(row: int, column: int) -> Tensor:
        pixels = torch.ones(1, 1, 32, 32)
        pixels[0, 0, row, column] = 50
        with hidden_patches(encoder, hidden, torch.zeros(64)):
            return vit_tokens(encoder, pixels).image

    plain = seen(0, 0)
    assert torch.equal(seen(9, 14), seen(15, 8))
    assert not torch.equal(seen(9, 16), plain)


def test_nothing_stays_hidden_afterwards() -> None:
    encoder, hidden = _encoder(), torch.ones(3, 24, dtype=torch.bool)
    before = encoder(PIXELS)
    with pytest.raises(BandError), hidden_patches(encoder, hidden, torch.zeros(64)):
        vit_tokens(encoder, PIXELS.expand(-1, 2, -1, -1))
    torch.testing.assert_close(encoder(PIXELS), before, rtol=0, atol=0)


def test_a_network_without_tokens_is_refused_with_the_remedy() -> None:
    encoder = build_encoder(BackboneSpec(name="test_resnet"), seed=0)
    with pytest.raises(ConfigError, match=r"^It masks patches: choose a ViT, for example model\.name=vit_small"):
        require_vit(encoder, "It masks patches")
    require_vit(_encoder(), "It masks patches")
