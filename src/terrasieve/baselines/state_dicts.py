"""State dicts of other code bases under timm's names: one function a format, pure and strict.

A function gives a key a new name or leaves it out because it stands on the format's list; any other key is an error.
Whether the result is complete and of the right shapes is for :func:`terrasieve.baselines.weights.fill` to say.
Names are facts of the formats; their sources are named at each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from terrasieve.baselines.weights import first, rename
from terrasieve.errors import CheckpointError

_TRUNK = re.compile(r"(?:conv1|bn1|layer[1-4])\..+")
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Of torchvision's ResNet as ``nn.Sequential(*children)``; 2 is the ReLU, 3 the pooling."""

_HUGGING_FACE_STEM = re.compile(r"embedder\.embedder\.(convolution|normalization)\.(.+)")
_HUGGING_FACE_LAYER = re.compile(
    r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|(shortcut))\.(convolution|normalization)\.(.+)"
)

_DEPTHS: Mapping[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}


def byol_imagenet_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The online encoder in the ``model`` entry of a checkpoint of yaox12/BYOL-PyTorch.

    Keys are ``module.online_network.encoder.<child>...``, the prefix ``module.`` only where it was trained on several
    GPUs (model/basic_modules.py, trainer/byol_trainer.py there). Left out: the projector (spelled ``projetion``), the
    target network and the predictor.

    Raises:
        CheckpointError: A key is not of that format.
    """
    return rename(
        without_prefix(tensors, "module."),
        lambda key: _child_name(key, "online_network.encoder."),
        ("online_network.projetion.", "target_network.", "predictor."),
        "a BYOL-PyTorch model",
    )


def byol_imagenet_legacy_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ``online_backbone`` entry of the file that yaox12/BYOL-PyTorch publishes (300 epochs).

    It was written by older code: torchvision's names after ``module.``. Left out: ``fc``.

    Raises:
        CheckpointError: A key is not of that format.
    """
    return rename(without_prefix(tensors, "module."), _torchvision_name, ("fc.",), "BYOL-PyTorch's online_backbone")


def seco_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The query encoder in the ``state_dict`` entry of a checkpoint of ServiceNow/seasonal-contrast.

    Keys are ``encoder_q.<child>...`` (models/moco2_module.py there). Left out: the key encoder, both projection heads
    and the queue.

    Raises:
        CheckpointError: A key is not of that format.
    """
    return rename(
        tensors,
        lambda key: _child_name(key, "encoder_q."),
        ("encoder_k.", "heads_q.", "heads_k.", "queue"),
        "a SeCo checkpoint",
    )


def deeplabv3_backbone_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ResNet in torchvision's DeepLabV3; left out: both classifiers.

    Raises:
        CheckpointError: A key is not of that format.
    """
    return rename(
        tensors,
        lambda key: _torchvision_name(key.removeprefix("backbone.")) if key.startswith("backbone.") else None,
        ("classifier.", "aux_classifier."),
        "a torchvision DeepLabV3",
    )


def hugging_face_resnet_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ResNet of Hugging Face's ``ResNetModel`` or, with the prefix ``resnet.``, ``ResNetForImageClassification``.

    Left out: ``classifier``.

    Raises:
        CheckpointError: A key is not of that format.
    """
    return rename(tensors, _hugging_face_name, ("classifier.",), "a Hugging Face ResNet")


def resnet_of(tensors: Mapping[str, Tensor]) -> str:
    """Name of the ResNet that a state dict under timm's names belongs to.

    Args:
        tensors: Tensors by timm's keys, such as ``layer1.0.conv1.weight``.

    Raises:
        CheckpointError: It is none of ResNet-18, 34, 50, 101 and 152.
    """
    blocks = {(int(m[1]), int(m[2])) for key in tensors if (m := re.match(r"layer(\d)\.(\d+)\.", key))}
    depths = tuple(sum(stage == wanted for stage, _ in blocks) for wanted in (1, 2, 3, 4))
    name = _DEPTHS.get(("layer1.0.conv3.weight" in tensors, depths))
    if name is None:
        raise CheckpointError(
            f"No ResNet-18, 34, 50, 101 or 152 has {depths} blocks in its stages; keys start with {first(tensors)}. "
            "Download the file again."
        )
    return name


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors without a prefix that every key has; unchanged if one lacks it."""
    # All or none: a key that lacks it would otherwise come to stand beside keys of another part.
    shared = all(key.startswith(prefix) for key in tensors)
    return {key.removeprefix(prefix) if shared else key: tensor for key, tensor in tensors.items()}


def _torchvision_name(key: str) -> str | None:
    return key if _TRUNK.fullmatch(key) else None


def _child_name(key: str, prefix: str) -> str | None:
    number, _, rest = key.removeprefix(prefix).partition(".")
    child = _CHILDREN.get(number)
    return f"{child}.{rest}" if key.startswith(prefix) and child and rest else None


def _hugging_face_name(key: str) -> str | None:
    key = key.removeprefix("resnet.")
    stem = _HUGGING_FACE_STEM.fullmatch(key)
    if stem:
        return f"{'conv1' if stem[1] == 'convolution' else 'bn1'}.{stem[2]}"
    layer = _HUGGING_FACE_LAYER.fullmatch(key)
    if not layer:
        return None
    stage, block, number, shortcut, kind, rest = layer.groups()
    convolution = kind == "convolution"
    if shortcut:
        part = f"downsample.{0 if convolution else 1}"
    else:
        part = f"{'conv' if convolution else 'bn'}{int(number) + 1}"
    return f"layer{int(stage) + 1}.{block}.{part}.{rest}"
