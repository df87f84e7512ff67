"""What a segmentation probe sees of an image, and what every such probe is.

It sees feature maps of a frozen encoder, or the pixels themselves; it is fitted on them and states its protocol.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.baselines.baseline import Repeated
from terrasieve.device import Precision
from terrasieve.embeddings.stream import device_of, inference_copy
from terrasieve.models.backbone import Encoder
from terrasieve.models.dense import dense_encoder, sample_maps
from terrasieve.probes.probe import StatesProtocol
from terrasieve.probes.segmentation.pixel_metrics import IGNORE


class FeatureMaps(nn.Module):
    """Maps of an image that was shown to a frozen model in one or several parts.

    Attributes:
        stride: Pixels of the image from one cell of the maps to the next.
        first: Row and column, in pixels, of the centre of the first cell.
    """

    stride: int
    first: float

    @abstractmethod
    def forward(self, pixels: Tensor) -> Tensor:
        """Maps ``(n, features, rows, columns)`` of standardised pixels ``(n, parts, channels, height, width)``."""

    def at(self, maps: Tensor, places: Tensor) -> Tensor:
        """Bilinear values ``(n, features, a, b)`` of such maps at places ``(n or 1, a, b, 2)``, in pixels."""
        return sample_maps(maps, places, self.stride, self.first)


class EncoderMaps(FeatureMaps):
    """Maps of a frozen encoder; of several parts, each scaled to unit length per cell and joined.

    The joining is that of :func:`terrasieve.embeddings.inputs.join`, cell by cell.

    Args:
        encoder: The encoder, of which a frozen copy is made; left as it is.
        stride: Stride of a ResNet's maps in pixels of the image; see :func:`terrasieve.models.dense.dense_encoder`.
        precision: ``bf16`` or ``32``.
        copies: How often a single band is shown side by side, for an encoder of as many channels.
    """

    def __init__(self, encoder: Encoder, stride: int, precision: Precision, copies: int = 1) -> None:
        super().__init__()
        dense = dense_encoder(encoder, stride)
        self.stride, self.first = dense.stride, dense.first
        self.features = dense.features
        self.copies = copies
        self.precision = precision
        self.dense = inference_copy(dense, precision)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """See :meth:`FeatureMaps.forward`; computed and returned on the encoder's device."""
        device = device_of(self)
        parts = pixels.shape[1]
        shown = pixels.flatten(0, 1).to(device).repeat(1, self.copies, 1, 1)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            maps: Tensor = self.dense(shown.contiguous(memory_format=torch.channels_last)).float()
        if parts == 1:
            return maps
        return functional.normalize(maps, dim=1).reshape(len(pixels), -1, *maps.shape[-2:])


class PixelValues(FeatureMaps):
    """The standardised pixels in place of feature maps: what any encoder has to beat."""

    stride = 1
    first = 0.0

    def forward(self, pixels: Tensor) -> Tensor:
        """Bands one after the other, ``(n, parts * channels, height, width)``."""
        return pixels.flatten(1, 2)


def feature_maps(model: nn.Module, stride: int, precision: Precision) -> FeatureMaps:
    """The maps of a candidate's model.

    Args:
        model: An encoder, an encoder that is shown one band several times, or :class:`PixelValues`.
        stride: Stride of a ResNet's maps in pixels of the image.
        precision: ``bf16`` or ``32``.

    Raises:
        ConfigError: The encoder gives no feature maps.
    """
    if isinstance(model, PixelValues):
        return model
    if isinstance(model, Repeated):
        return EncoderMaps(model.encoder, stride, precision, model.copies)
    assert isinstance(model, Encoder), f"{type(model).__name__} has no feature maps"
    return EncoderMaps(model, stride, precision)


def label_places(labels: tuple[int, int], image: tuple[int, int]) -> Tensor:
    """Centres of a label map's pixels in pixels of the image that it covers, shape ``(1, height, width, 2)``.

    Args:
        labels: Height and width of the label map.
        image: Height and width of the image.
    """
    sides = [(torch.arange(count) + 0.5) * (size / count) - 0.5 for count, size in zip(labels, image, strict=True)]
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)[None]


# ---------------------------------------------------------------------- probes
# What is fitted on the maps.

Report = Callable[[str], None]
"""Takes a word on how far a fit is, for a progress bar."""


def silent(note: str) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with their label maps; every image has a pixel that counts.

    Attributes:
        pixels: Standardised, shape ``(n, parts, channels, height, width)``; parts are shown to a model one by one.
        labels: Class codes, shape ``(n, label height, label width)``; :data:`IGNORE` where a pixel does not count.
        classes: Number of classes, whose codes are 0 to one less.
    """

    pixels: Tensor
    labels: NDArray[np.int16]
    classes: int

    def __post_init__(self) -> None:
        assert len(self.pixels) == len(self.labels), "one label map an image"
        assert (self.labels != IGNORE).any(axis=(1, 2)).all(), "an image without a label cannot be learnt from"

    @property
    def places(self) -> Tensor:
        """Where the labels lie in the images; see :func:`label_places`."""
        height, width = self.labels.shape[1:]
        return label_places((height, width), (self.pixels.shape[-2], self.pixels.shape[-1]))


class SegmentationProbe(StatesProtocol):
    """A predictor of one class a pixel from frozen maps; whatever it learns, it learns from the train images.

    Attributes:
        on_pixels: Whether it is also fitted on the pixels themselves, as a floor.
    """

    on_pixels: ClassVar[bool] = False

    @abstractmethod
    def fit(self, maps: FeatureMaps, train: LabelledImages, report: Report = silent) -> Self:
        """Learn from the train images.

        Args:
            maps: Frozen; runs on the device that it is on.
            train: The images to learn from, with their label maps.
            report: Is told how far the fit is.

        Raises:
            ConfigError: The images cannot be fitted, for example because they hold one class only.
        """

    @abstractmethod
    def predict(self, maps: FeatureMaps, pixels: Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """Class codes ``(n, *size)`` of images ``(n, parts, channels, height, width)``."""
