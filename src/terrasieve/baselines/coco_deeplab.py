"""torchvision's DeepLabV3 trained on MS-COCO: its backbone as an encoder, its classifier for segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import timm  # isort: skip
from torch import nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from terrasieve.baselines.accounting import fill, naming
from terrasieve.baselines.state_dicts import deeplabv3_classifier_keys
from terrasieve.baselines.unwrapping import find_entry
from terrasieve.baselines.weights_files import read_weights
from terrasieve.errors import CheckpointError
from terrasieve.models.backbone import Encoder
from terrasieve.models.pixel import spare_padding

OUTPUT_STRIDE = 8
"""Pixels of the image to one of the last feature map (Chen et al. 2017, arXiv 1706.05587, section 4.1)."""


def dilated_resnet50() -> Encoder:
    """A ResNet-50 for three channels whose last two stages are dilated instead of strided, without weights yet."""
    model = timm.create_model("resnet50", num_classes=0, output_stride=OUTPUT_STRIDE)
    spare_padding(model)
    features: Any = model.head_hidden_size  # an int, but nn.Module types its attributes as tensors and modules
    return Encoder(model, 3, features)


def load_classifier(path: Path) -> nn.Module:
    """The classifier of torchvision's DeepLabV3, in eval mode.

    Args:
        path: The file that ``coco-deeplabv3`` is loaded from.

    Returns:
        Maps features ``(n, 2048, height, width)`` to class scores ``(n, classes, height, width)``.

    Raises:
        CheckpointError: The file cannot be read or is of another network.
    """
    content = read_weights(path).content
    with naming(path):
        tensors = deeplabv3_classifier_keys(find_entry(content, None).tensors)
        if "4.weight" not in tensors:
            raise CheckpointError("The file holds no classifier.4.weight, so the number of classes is unknown.")
        head: nn.Module = DeepLabHead(2048, tensors["4.weight"].shape[0])
        fill(head, tensors, "torchvision's DeepLabHead")
    return head.eval()
