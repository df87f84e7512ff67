"""State dicts of timm networks, from local files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import timm
from torch import Tensor

from terrasieve.baselines.weights import fill, find_entry, first, naming, own_keys, read_weights
from terrasieve.errors import CheckpointError, ConfigError, nearest
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder

POSITIONS = "pos_embed"


class LoadedFile(NamedTuple):
    """An encoder with the weights of a file.

    Attributes:
        encoder: The encoder, on the CPU.
        sha256: Hash of the file's bytes, in hexadecimal.
        notes: What was taken off to find the weights, a line each.
    """

    encoder: Encoder
    sha256: str
    notes: tuple[str, ...]


class PublishedWeights(NamedTuple):
    """Weights that timm publishes.

    Attributes:
        name: timm's name with its tag, for example ``resnet50.tv_in1k``.
        network: Name of the architecture, for example ``resnet50``.
        repository: Name of the repository on Hugging Face's hub; None where there are no weights.
        citation: Papers and addresses that timm names as their origin.
        licence: SPDX identifier of the weights' licence, None where timm names none.
        training: How they were trained, in one line.
        scaling: What became of pixels before the network was shown them.
    """

    name: str
    network: str
    repository: str | None
    citation: str
    licence: str | None
    training: str = "supervised on ImageNet"
    scaling: str = ""


_TRAININGS = {
    "sat493m": "DINOv3 on SAT-493M, satellite images in red, green and blue at 0.6 m",
    "lvd1689m": "DINOv3 on LVD-1689M, images from the web",
}
"""By the tag, where it is none of ImageNet's."""


def published_weights(name: str) -> PublishedWeights:
    """What timm knows of pretrained weights.

    Args:
        name: An architecture, or one with a tag; without one timm's default tag is meant.

    Raises:
        ConfigError: The architecture has no such tag.
    """
    network = name.partition(".")[0]
    try:
        found = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ConfigError(
            f"timm has no weights {name!r}.{nearest(name, timm.list_pretrained(f'{network}.*'))}"
        ) from error
    if found is None or not found.tag:
        return PublishedWeights(name, network, None, "timm", None)
    citation = ", ".join(str(part) for part in ("timm", found.paper_ids, found.origin_url) if part)
    training = _TRAININGS.get(found.tag, f"as timm's tag {found.tag} says")
    if re.search(r"in\d+k", found.tag):
        training = "supervised on ImageNet"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (found.mean, found.std))
    scaling = f"mean ({mean}) and standard deviation ({std}) of values from 0 to 1"
    name = f"{network}.{found.tag}"
    return PublishedWeights(name, network, found.hf_hub_id, citation, found.license, training, scaling)


def load_timm_file(network: str, path: Path, entry: str | None) -> LoadedFile:
    """Load a timm network from a local file; bands and, for a ViT, the image size follow from the weights.

    Args:
        network: Name of a timm architecture.
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote.
        entry: Name of the file's entry that holds the state dict; None where there is only one.

    Raises:
        ConfigError: timm has no such architecture.
        CheckpointError: The file cannot be read, or holds other weights.
    """
    spec = BackboneSpec(name=network, channels=3)
    encoder = build_encoder(spec, seed=0)
    file = read_weights(path)
    with naming(path):
        found = find_entry(file.content, entry)
        own = own_keys(found.tensors, encoder.model.state_dict())
        wanted = BackboneSpec(
            name=network,
            channels=_channels(encoder.model, own.tensors),
            image_size=_image_size(encoder.model, own.tensors),
        )
        if wanted != spec:
            encoder = build_encoder(wanted, seed=0)
        fill(encoder.model, own.tensors, f"{network} for {wanted.channels} channel(s)")
    return LoadedFile(encoder, file.sha256, (*found.notes, *own.notes))


def _channels(model: Any, tensors: Mapping[str, Tensor]) -> int:
    convolution = model.pretrained_cfg["first_conv"]
    key = f"{convolution if isinstance(convolution, str) else convolution[0]}.weight"
    if key not in tensors or tensors[key].ndim != 4:
        raise CheckpointError(
            f"The weights hold no first convolution {key}; keys start with {first(tensors)}. "
            "Name the architecture that the file was trained with."
        )
    return int(tensors[key].shape[1])


def _image_size(model: Any, tensors: Mapping[str, Tensor]) -> int | None:
    """The size that a ViT's position embedding is laid out for, where it is not timm's own."""
    own = getattr(model, POSITIONS, None)
    if own is None or POSITIONS not in tensors or tensors[POSITIONS].shape == own.shape:
        return None
    # Besides those of the square of patches there may be positions of class and register tokens.
    prefix = own.shape[1] - model.patch_embed.num_patches
    side = isqrt(max(0, tensors[POSITIONS].shape[1] - prefix))
    return side * int(model.patch_embed.patch_size[0]) or None
