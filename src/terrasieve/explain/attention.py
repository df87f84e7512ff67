"""Where a ViT's class token looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.embeddings.stream import inference_copy
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import Encoder


@dataclass(frozen=True)
class AttentionMaps:
    """The class token's attention to the patches of an image.

    Attributes:
        heads: Of each head of the last block, on the grid of patches, shape ``(n, heads, rows, columns)``; shares of
            the head's attention, 0 to 1.
        mean: Their mean, brought to the size of the image bilinearly, shape ``(n, height, width)``.
        rollout: Attention rolled out over all blocks, brought to the size of the image as ``mean`` is.
    """

    heads: NDArray[np.float64]
    mean: NDArray[np.float64]
    rollout: NDArray[np.float64]


def attention_maps(encoder: Encoder, pixels: Tensor) -> AttentionMaps:
    """The class token's attention in the last block (Caron et al. 2021, figure 1) and rolled out over all blocks.

    Args:
        encoder: A timm ViT with a class token; stays as it is.
        pixels: ``(n, channels, height, width)``, standardised, on the encoder's device.

    Raises:
        ConfigError: The encoder is no ViT with a class token, or does not cut the images into whole patches.
    """
    rows, columns, prefix = _grid(encoder.model, (pixels.shape[2], pixels.shape[3]))
    attentions = block_attentions(encoder, pixels)
    heads = attentions[-1][:, :, 0, prefix:].reshape(len(pixels), -1, rows, columns)
    rolled = rollout(attentions)[:, 0, prefix:].reshape(-1, rows, columns)
    size = (pixels.shape[2], pixels.shape[3])
    return AttentionMaps(as_array(heads), as_array(upsample(heads.mean(dim=1), size)), as_array(upsample(rolled, size)))


def block_attentions(encoder: Encoder, pixels: Tensor) -> list[Tensor]:
    """Softmax attention of each block, first to last, shape ``(n, heads, tokens, tokens)``; rows sum to 1.

    Args:
        encoder: A timm ViT; stays as it is.
        pixels: ``(n, channels, height, width)``, standardised, on the encoder's device.

    Raises:
        ConfigError: The encoder has no attention.
    """
    frozen = inference_copy(encoder, "32")
    layers = attention_layers(frozen)
    if not layers:
        raise ConfigError(
            "Attention maps need a ViT, and this encoder has no attention; explain a convolutional network by FullGrad "
            "or Grad-CAM."
        )
    attentions: list[Tensor] = []
    for layer in layers:
        # The fused kernel never holds the attention itself.
        layer.fused_attn = False
        layer.attn_drop.register_forward_hook(lambda module, inputs, output: attentions.append(output))
    with torch.no_grad():
        frozen(pixels)
    return attentions


def rollout(attentions: Sequence[Tensor]) -> Tensor:
    """Attention rollout: how much of each input token reaches each output token.

    Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers, section 3: of each block the mean over heads,
    half of it given to the residual path, multiplied through the blocks.

    Args:
        attentions: Of each block, first to last, ``(n, heads, tokens, tokens)``, rows summing to 1.

    Returns:
        Shape ``(n, tokens, tokens)``, row per output token; rows sum to 1.
    """
    tokens = attentions[0].shape[-1]
    identity = torch.eye(tokens, dtype=attentions[0].dtype, device=attentions[0].device)
    rolled = identity.expand(len(attentions[0]), tokens, tokens)
    for attention in attentions:
        rolled = (attention.mean(dim=1) + identity) / 2 @ rolled
    return rolled


def attention_layers(network: nn.Module) -> list[Any]:
    """Timm's attention layers, in the order in which they stand."""
    return [module for module in network.modules() if hasattr(module, "fused_attn") and hasattr(module, "attn_drop")]


def _grid(model: nn.Module, size: tuple[int, int]) -> tuple[int, int, int]:
    """Rows and columns of patches, and how many tokens stand before them."""
    # nn.Module types its attributes as tensors and modules.
    vit: Any = model
    if getattr(vit, "cls_token", None) is None or not hasattr(vit, "patch_embed"):
        raise ConfigError(
            f"Attention maps are those of a ViT's class token, and {type(model).__name__} has none; explain a "
            "convolutional network by FullGrad or Grad-CAM."
        )
    patch = vit.patch_embed.patch_size
    if size[0] % patch[0] or size[1] % patch[1]:
        raise ConfigError(
            f"Images of {size[0]}x{size[1]} pixels are no whole number of patches of {patch[0]}x{patch[1]}; "
            "resize them."
        )
    return size[0] // patch[0], size[1] // patch[1], vit.num_prefix_tokens


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resampling of maps ``(n, height, width)`` to the height and width of an image."""
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def as_array(values: Tensor) -> NDArray[np.float64]:
    """Values of a tensor without gradient, in float64 on the CPU."""
    return np.asarray(values.detach().cpu().double().numpy())
