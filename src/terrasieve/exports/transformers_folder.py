"""A folder that transformers' ``AutoModel`` loads as one of its own classes, without code of ours.

A ResNet becomes a ``ResNetModel``, a ViT a ``ViTModel`` or, with registers, a ``Dinov2WithRegistersModel``. Tensors
have the names under which these classes are published. The model's ``pooler_output`` is the vector that the encoder
gives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import torch
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from terrasieve.baselines.hugging_face import CONFIG, WEIGHTS, ResNetConfig, build_resnet
from terrasieve.errors import CheckpointError, ConfigError
from terrasieve.exports.prepared import PreparedEncoder

CLOSE = 1e-4
"""The largest difference of features, of vectors whose numbers are about 1, that the order of summation explains."""

_RESNET = (
    (re.compile(r"conv1\.(.+)"), r"embedder.embedder.convolution.\1"),
    (re.compile(r"bn1\.(.+)"), r"embedder.embedder.normalization.\1"),
    (re.compile(r"layer(\d)\.(\d+)\.conv(\d)\.(.+)"), r"encoder.stages.{}.layers.\2.layer.{}.convolution.\4"),
    (re.compile(r"layer(\d)\.(\d+)\.bn(\d)\.(.+)"), r"encoder.stages.{}.layers.\2.layer.{}.normalization.\4"),
    (re.compile(r"layer(\d)\.(\d+)\.downsample\.0\.(.+)"), r"encoder.stages.{}.layers.\2.shortcut.convolution.\3"),
    (re.compile(r"layer(\d)\.(\d+)\.downsample\.1\.(.+)"), r"encoder.stages.{}.layers.\2.shortcut.normalization.\3"),
)
"""timm's names of a ResNet's tensors, counted from 1, and those of transformers, counted from 0."""
_BLOCK = {
    "norm1": ("layernorm_before", "norm1"),
    "attn.proj": ("attention.output.dense", "attention.output.dense"),
    "norm2": ("layernorm_after", "norm2"),
    "mlp.fc1": ("intermediate.dense", "mlp.fc1"),
    "mlp.fc2": ("output.dense", "mlp.fc2"),
}
"""timm's names in a block of a ViT, and those of ``ViTModel`` and of ``Dinov2WithRegistersModel``."""


def transformers_folder(prepared: PreparedEncoder) -> dict[str, bytes]:
    """The content of ``config.json`` and ``model.safetensors``.

    Args:
        prepared: The encoder; standardising its input is left to the caller of the model, and described in the
            configuration under ``terrasieve``.

    Raises:
        ConfigError: transformers has no class that computes what the encoder does.
    """
    network = prepared.network
    try:
        vit = isinstance(network, VisionTransformer)
        config, tensors = (_vit if vit else _resnet)(prepared, network)
    except (CheckpointError, RuntimeError, ValueError, KeyError) as error:
        raise _no_class(prepared) from error
    described = {
        **config,
        "dtype": "float32",
        "terrasieve": prepared.interface("before").model_dump(mode="json"),
    }
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return {
        WEIGHTS[0]: save(contiguous, metadata={"format": "pt"}),
        CONFIG: json.dumps(described, indent=1).encode(),
    }


def _no_class(prepared: PreparedEncoder) -> ConfigError:
    return ConfigError(
        f"transformers has no class of its own for {prepared.card.backbone.name}: only plain ResNets and ViTs can be "
        "exported to it. Take --format timm, torch or onnx."
    )


def _same(prepared: PreparedEncoder, plain: nn.Module) -> None:
    """Refuse a network that is not the plain one of the same tensors, as those with other activations are."""
    plain.load_state_dict(prepared.network.state_dict())
    pixels = prepared.standardised(prepared.example(2))
    with torch.inference_mode():
        expected, found = prepared.network(pixels), plain.eval()(pixels)
    if not torch.allclose(found, expected, rtol=CLOSE, atol=CLOSE):
        raise _no_class(prepared)


# --------------------------------------------------------------------- ResNet


def _resnet(prepared: PreparedEncoder, network: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = network.state_dict()
    bottleneck = "layer1.0.conv3.weight" in tensors
    last = "conv3" if bottleneck else "conv2"
    blocks = [{key.split(".")[1] for key in tensors if key.startswith(f"layer{stage}.")} for stage in (1, 2, 3, 4)]
    config = ResNetConfig(
        model_type="resnet",
        num_channels=prepared.channels,
        hidden_sizes=tuple(len(tensors[f"layer{stage}.0.{last}.weight"]) for stage in (1, 2, 3, 4)),
        depths=tuple(map(len, blocks)),
        layer_type="bottleneck" if bottleneck else "basic",
    )
    _same(prepared, build_resnet(config))
    named = {_resnet_name(key): tensor for key, tensor in tensors.items()}
    return {"architectures": ["ResNetModel"], **config.model_dump(mode="json")}, named


def _resnet_name(key: str) -> str:
    for pattern, name in _RESNET:
        if found := pattern.fullmatch(key):
            # Stages and layers of a block are counted from 1 in timm, whose first groups are the stage and the layer.
            numbers = [int(found[1]) - 1, int(found[3]) - 1 if name.count("{}") == 2 else 0] if "{}" in name else []
            return found.expand(name.format(*numbers))
    raise KeyError(key)


# ------------------------------------------------------------------------ ViT


def _vit(prepared: PreparedEncoder, network: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors: Mapping[str, Tensor] = network.state_dict()
    width, hidden = network.embed_dim, network.blocks[0].mlp.fc1.out_features
    patch, registers = network.patch_embed.patch_size[0], network.num_reg_tokens
    plain = VisionTransformer(
        img_size=prepared.size,
        patch_size=patch,
        in_chans=prepared.channels,
        num_classes=0,
        embed_dim=width,
        depth=len(network.blocks),
        num_heads=network.blocks[0].attn.num_heads,
        mlp_ratio=hidden / width,
        reg_tokens=registers,
        no_embed_class=network.no_embed_class,
    )
    _same(prepared, plain)
    if registers and hidden % width:
        raise _no_class(prepared)
    shared = {
        "hidden_size": width,
        "num_hidden_layers": len(network.blocks),
        "num_attention_heads": network.blocks[0].attn.num_heads,
        "image_size": prepared.size,
        "patch_size": patch,
        "num_channels": prepared.channels,
        "layer_norm_eps": network.norm.eps,
        "hidden_act": "gelu",
        "qkv_bias": True,
    }
    if registers:
        own = {"model_type": "dinov2_with_registers", "mlp_ratio": hidden // width, "num_register_tokens": registers}
        return {"architectures": ["Dinov2WithRegistersModel"], **own, **shared}, _vit_tensors(tensors, network, 1)
    # The pooler is left without effect: features are what timm gives, the class token after the last normalisation.
    own = {"model_type": "vit", "intermediate_size": hidden, "pooler_output_size": width, "pooler_act": "linear"}
    pooler = {"pooler.dense.weight": torch.eye(width), "pooler.dense.bias": torch.zeros(width)}
    return {"architectures": ["ViTModel"], **own, **shared}, {**_vit_tensors(tensors, network, 0), **pooler}


def _vit_tensors(tensors: Mapping[str, Tensor], network: Any, form: int) -> dict[str, Tensor]:
    """A ViT's tensors as ``ViTModel`` (form 0) or ``Dinov2WithRegistersModel`` (form 1) has them."""
    width, registers = network.embed_dim, network.num_reg_tokens
    place = tensors["pos_embed"]
    if network.no_embed_class:
        place = torch.cat([torch.zeros(1, 1 + registers, width), place], dim=1)
    found = {
        "embeddings.cls_token": tensors["cls_token"],
        # transformers gives registers no place of their own, so that theirs is added here.
        "embeddings.position_embeddings": torch.cat([place[:, :1], place[:, 1 + registers :]], dim=1),
        "embeddings.patch_embeddings.projection.weight": tensors["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": tensors["patch_embed.proj.bias"],
        "layernorm.weight": tensors["norm.weight"],
        "layernorm.bias": tensors["norm.bias"],
    }
    if form:
        found["embeddings.register_tokens"] = tensors["reg_token"] + place[:, 1 : 1 + registers]
        found["embeddings.mask_token"] = torch.zeros(1, width)
    for number in range(len(network.blocks)):
        for kind in ("weight", "bias"):
            joined = tensors[f"blocks.{number}.attn.qkv.{kind}"].chunk(3)
            for name, tensor in zip(("query", "key", "value"), joined, strict=True):
                found[f"encoder.layer.{number}.attention.attention.{name}.{kind}"] = tensor
            for name, names in _BLOCK.items():
                found[f"encoder.layer.{number}.{names[form]}.{kind}"] = tensors[f"blocks.{number}.{name}.{kind}"]
        if form:
            for scale in ("layer_scale1", "layer_scale2"):
                found[f"encoder.layer.{number}.{scale}.lambda1"] = torch.ones(width)
    return found
