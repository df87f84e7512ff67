"""Attention is the network's own, rows sum to one, and rollout is the product that the paper defines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from terrasieve.errors import ConfigError
from terrasieve.explain.maps import attention_maps, block_attentions, rollout
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder


def vit(channels: int = 2) -> Encoder:
    encoder = build_encoder(BackboneSpec(name="test_vit", channels=channels, image_size=32), seed=0)
    # As initialised the queries hardly differ, and every row of attention would be flat.
    for block in encoder.model.blocks:
        block.attn.qkv.weight.data *= 20
    return encoder


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 48), (32, 64)])
def test_rows_sum_to_one_at_any_size(height: int, width: int) -> None:
    encoder = vit()
    pixels = torch.randn(2, 2, height, width)
    attentions = block_attentions(encoder, pixels)
    tokens = height * width // 256 + 1
    assert len(attentions) == len(encoder.model.blocks)
    for attention in attentions:
        assert attention.shape == (2, encoder.model.blocks[0].attn.num_heads, tokens, tokens)
        assert torch.allclose(attention.sum(dim=-1), torch.ones(()), atol=1e-5)
        assert attention.min() >= 0
    found = attention_maps(encoder, pixels)
    assert found.heads.shape[2:] == (height // 16, width // 16)
    assert found.mean.shape == found.rollout.shape == (2, height, width)


def test_last_block_equals_queries_times_keys() -> None:
    encoder = vit().eval()
    attn, seen = encoder.model.blocks[-1].attn, []
    handle = attn.qkv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    pixels = torch.randn(3, 2, 32, 32)
    encoder(pixels)
    handle.remove()
    heads = attn.num_heads
    queries, keys, _ = seen[0].detach().reshape(3, 5, 3, heads, -1).permute(2, 0, 3, 1, 4).numpy()
    logits = np.einsum("nhqd,nhkd->nhqk", queries, keys)[:, :, 0] / np.sqrt(queries.shape[-1])
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    expected = (weights / weights.sum(axis=-1, keepdims=True))[:, :, 1:].reshape(3, heads, 2, 2)
    found = attention_maps(encoder, pixels).heads
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.ptp(found) > 0.05


def test_rollout_by_hand() -> None:
    """Two tokens, two blocks; the first has two heads' worth of mean already taken apart."""
    first = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]])
    second = torch.tensor([[[[0.2, 0.8], [0.0, 1.0]], [[0.2, 0.8], [0.0, 1.0]]]])
    halves = [np.array([[0.75, 0.25], [0.25, 0.75]]), np.array([[0.6, 0.4], [0.0, 1.0]])]
    assert rollout([first, second])[0].numpy() == pytest.approx(halves[1] @ halves[0])


def test_rollout_keeps_rows_and_follows_the_blocks() -> None:
    attentions = [torch.rand(2, 3, 5, 5).softmax(dim=-1) for _ in range(4)]
    rolled = rollout(attentions)
    assert torch.allclose(rolled.sum(dim=-1), torch.ones(()), atol=1e-6)
    assert not torch.allclose(rolled, rollout(attentions[::-1]), atol=1e-4)


def test_encoder_stays_as_it_is(snapshot: Any, unchanged: Any) -> None:
    encoder = vit().train()
    before = snapshot(encoder)
    attention_maps(encoder, torch.randn(1, 2, 32, 32))
    unchanged(encoder, before)


def test_refuses_what_is_no_vit_and_broken_patches() -> None:
    with pytest.raises(ConfigError, match="FullGrad or Grad-CAM"):
        attention_maps(build_encoder(BackboneSpec(name="test_resnet"), seed=0), torch.randn(1, 1, 32, 32))
    with pytest.raises(ConfigError, match="FullGrad or Grad-CAM"):
        block_attentions(build_encoder(BackboneSpec(name="test_resnet"), seed=0), torch.randn(1, 1, 32, 32))
    with pytest.raises(ConfigError, match=r"40x40.*16x16"):
        attention_maps(vit(), torch.randn(1, 2, 40, 40))
