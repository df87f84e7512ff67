"""Tokens of a ViT: beside the features of the image those of every patch, some of which the network may not see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from terrasieve.errors import ConfigError
from terrasieve.models.backbone import Encoder


class Tokens(NamedTuple):
    """What a ViT makes of a batch.

    Attributes:
        image: What the encoder gives, ``(n, features)``: by default the class token.
        patches: After the last norm, ``(n, patches, features)``, row by row; class and register tokens are left out.
    """

    image: Tensor
    patches: Tensor


def require_vit(encoder: Encoder, reason: str) -> None:
    """Refuse an encoder that has no tokens.

    Args:
        encoder: Any encoder.
        reason: What needs them, as the beginning of the error.

    Raises:
        ConfigError: The network is none of timm's plain ViTs.
    """
    if not isinstance(encoder.model, VisionTransformer):
        raise ConfigError(
            f"{reason}: choose a ViT, for example model.name=vit_small_patch16_224, instead of "
            f"{type(encoder.model).__name__}."
        )


def patch_grid(encoder: Encoder, pixels: Tensor) -> tuple[int, int]:
    """Rows and columns of patches into which a ViT cuts images ``(n, channels, height, width)``."""
    vit = _vit(encoder)
    rows, columns = vit.patch_embed.dynamic_feat_size((pixels.shape[-2], pixels.shape[-1]))
    return rows, columns


def vit_tokens(encoder: Encoder, pixels: Tensor) -> Tokens:
    """Tokens of normalised pixels ``(n, channels, height, width)``, by one pass of the encoder.

    Raises:
        BandError: The pixels have another number of bands than the network.
    """
    vit, normed = _vit(encoder), []
    with vit.norm.register_forward_hook(lambda module, inputs, output: normed.append(output)):
        image = encoder(pixels)
    return Tokens(image, normed[0][:, vit.num_prefix_tokens :])


@contextmanager
def hidden_patches(encoder: Encoder, hidden: Tensor, stand_in: Tensor) -> Iterator[None]:
    """Context in which a ViT does not see some patches: what it embeds of them is replaced, their positions stay.

    Args:
        encoder: An encoder around a ViT.
        hidden: Of every image and patch whether it is hidden, boolean, ``(n, patches)``, for passes of n images.
        stand_in: What takes the place of a hidden patch, ``(features,)``.
    """

    def replace(module: nn.Module, inputs: tuple[Tensor], embedded: Tensor) -> Tensor:
        # timm keeps rows and columns apart until it has added positions for images of that size.
        places = hidden.view(embedded.shape[:-1]).unsqueeze(-1)
        return torch.where(places, stand_in.to(embedded.dtype), embedded)

    with _vit(encoder).patch_embed.register_forward_hook(replace):
        yield


def _vit(encoder: Encoder) -> VisionTransformer:
    assert isinstance(encoder.model, VisionTransformer), "the caller refuses other networks by require_vit"
    return encoder.model
