"""Backbones: any timm network, for any number of bands, with weights that depend on a seed alone."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import timm
import torch
from pydantic import Field
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from terrasieve.errors import BandError, ConfigError, nearest
from terrasieve.models.layers import spare_padding
from terrasieve.schema import Spec
from terrasieve.streams import Stream, torch_seed

COMMON = ("resnet18", "resnet50", "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")
"""Names to suggest; every name of ``timm.list_models()`` is accepted."""


class BackboneSpec(Spec):
    """Which network, and for what pixels.

    Attributes:
        name: Name of a timm architecture, for example ``resnet50`` or ``vit_tiny_patch16_224``.
        channels: Number of bands of one view.
        image_size: Height and width, in pixels, that a ViT's position embedding is laid out for; other sizes
            are interpolated. Null takes timm's own. Networks that take any size have none.
        drop_path: Largest rate of stochastic depth, 0 up to but not including 1 (Huang et al. 2016).
        patch_size: Height and width, in pixels, of the patches that a ViT cuts images into; null takes the network's
            own, which its name says.
        registers: Number of tokens beside class and patches in which a ViT may keep what belongs to no place (Darcet
            et al. 2024, arXiv 2309.16588); null takes the network's own, which is mostly none.
    """

    name: str = "resnet50"
    channels: int = Field(default=1, ge=1, le=10_000)
    image_size: int | None = Field(default=None, ge=1, le=16_384)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    patch_size: int | None = Field(default=None, ge=1, le=1024)
    registers: int | None = Field(default=None, ge=0, le=1024)


class Encoder(nn.Module):
    """A network that maps pixels to one vector an image.

    Attributes:
        model: Maps ``(n, channels, height, width)`` to ``(n, features)``; from :func:`build_encoder` a timm
            network without classifier, whose ``state_dict`` plain timm loads.
        channels: Number of bands that the network takes.
        features: Length of the vector that it gives.
    """

    def __init__(self, model: nn.Module, channels: int, features: int) -> None:
        super().__init__()
        self.model = model
        self.channels = channels
        self.features = features

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(n, features)`` of normalised pixels ``(n, channels, height, width)``.

        A convolutional network averages over the image, a ViT gives its class token, as timm does by default.

        Raises:
            BandError: The pixels have another number of bands than the network.
        """
        if pixels.shape[1] != self.channels:
            raise BandError(
                f"The encoder takes {self.channels} band(s), but was given {pixels.shape[1]}. "
                "Give it views of that many bands, or set model.channels to what the views have."
            )
        features: Tensor = self.model(pixels)
        return features


def build_encoder(spec: BackboneSpec, seed: int) -> Encoder:
    """An untrained encoder on the CPU.

    Args:
        spec: Architecture, number of bands, and the settings that only some networks have.
        seed: Decides the initial weights, 0 or more; torch's global generator is left as it was.

    Raises:
        ConfigError: timm has no network of that name, or the network does not take a setting.
    """
    known = timm.list_models()
    if spec.name not in known:
        close = get_close_matches(spec.name, COMMON, cutoff=0.8) or get_close_matches(spec.name, known) or COMMON
        raise ConfigError(
            f"timm has no network {spec.name!r}.{nearest(spec.name, close)} "
            "Set model.name to a name that timm.list_models() gives."
        )
    published = timm.get_pretrained_cfg(spec.name)
    sized = published is not None and published.fixed_input_size
    if spec.image_size is not None and not sized:
        raise ConfigError(
            f"{spec.name} takes images of any size, so model.image_size={spec.image_size} means nothing to it. "
            "Set model.image_size=null."
        )
    model = _create(spec, sized, seed)
    spare_padding(model)
    features: Any = model.head_hidden_size  # an int, but nn.Module types its attributes as tensors and modules
    return Encoder(model, spec.channels, features)


def _create(spec: BackboneSpec, sized: bool, seed: int) -> nn.Module:
    # timm draws initial weights from torch's global generator and takes no other. Only the CPU's is seeded and put
    # back: torch.manual_seed would reseed the accelerators' as well.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(torch_seed(Stream.ENCODER_WEIGHTS, seed))
        try:
            model: nn.Module = timm.create_model(
                spec.name,
                pretrained=False,
                in_chans=spec.channels,
                num_classes=0,
                # timm leaves out what is None, so that a network need not know it.
                drop_path_rate=spec.drop_path or None,
                img_size=spec.image_size,
                patch_size=spec.patch_size,
                reg_tokens=spec.registers,
                dynamic_img_size=True if sized else None,
            )
        except TypeError as error:
            raise ConfigError(
                f"{spec.name} does not take one of model.drop_path={spec.drop_path}, "
                f"model.image_size={spec.image_size}, model.patch_size={spec.patch_size}, "
                f"model.registers={spec.registers} or images of varying size: {error}. "
                f"Choose another network, for example {COMMON[0]}."
            ) from error
    return model


def layer_depths(encoder: Encoder) -> dict[str, int]:
    """The depth of every parameter: that of the layer that it is part of, as timm divides the network.

    Args:
        encoder: An encoder around a timm network.

    Returns:
        Depth from 0, the first layer, upwards without gaps, by the name of the parameter in ``encoder.model``.

    Raises:
        ConfigError: timm does not say what the layers of the network are.
    """
    matcher: Any = getattr(encoder.model, "group_matcher", None)
    if matcher is None:
        raise ConfigError(
            f"timm does not divide {type(encoder.model).__name__} into layers, so their learning rates cannot differ. "
            f"Set train.optimiser.layer_decay=null, or choose another network, for example {COMMON[0]}."
        )
    depths: dict[str, int] = group_parameters(encoder.model, matcher(coarse=False), reverse=True)
    return depths


def checkpoint_activations(encoder: Encoder) -> None:
    """Let the backward pass compute a network's blocks a second time, in place of keeping what they made.

    Args:
        encoder: An encoder around a timm network; gradients stay as they are.

    Raises:
        ConfigError: The network has batch normalisation, which would count each batch twice, or timm cannot do it.
    """
    able: Any = getattr(encoder.model, "set_grad_checkpointing", None)
    normed = any(isinstance(module, _BatchNorm) for module in encoder.model.modules())
    if able is None or normed:
        reason = "has batch normalisation, which would count each batch twice" if normed else "has no such setting"
        raise ConfigError(
            f"model.checkpoint=true computes blocks a second time, but {type(encoder.model).__name__} {reason}. Set "
            "model.checkpoint=false, and train.accumulate to what fits in memory."
        )
    able(True)


def patch_size_of(model: nn.Module) -> tuple[int, int] | None:
    """Height and width in pixels of the patches that a ViT cuts images into; None for other networks."""
    patch: tuple[int, int] | None = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    return patch


def check_sizes(encoder: Encoder, sizes: Mapping[str, int]) -> None:
    """Refuse views that a ViT cannot cut into whole patches.

    Args:
        encoder: Any encoder; one that does not cut its input into patches takes every size.
        sizes: Height and width in pixels of each kind of view, by name.

    Raises:
        ConfigError: A size is no multiple of the patch size.
    """
    patch = patch_size_of(encoder.model)
    if patch is None:
        return
    for name, size in sizes.items():
        if size % patch[0] or size % patch[1]:
            closest = max(1, round(size / patch[0])) * patch[0]
            raise ConfigError(
                f"View {name!r} is {size} pixels wide, but the backbone cuts images into patches of {patch[0]} pixels. "
                f"Set views.branches.{name}.size={closest}, or choose a backbone with other patches."
            )
