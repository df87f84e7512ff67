"""What a segmentation probe sees of an image, and what every such probe is.

It sees feature maps of a frozen encoder, or the pixels themselves; it is fitted on them and states its protocol.
"""

from __future__ import annotations

import copy
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
from terrasieve.embeddings.stream import calibration_batch, device_of, inference_copy
from terrasieve.models.backbone import Encoder
from terrasieve.models.calibration import CALIBRATION_SAMPLES, batch_norms, calibrated_each
from terrasieve.models.dense import cell_places, dense_encoder, sample_maps
from terrasieve.probes.probe import StatesProtocol
from terrasieve.probes.segmentation.pixel_metrics import IGNORE
from terrasieve.streams import Stream, generator


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

    def measured(self, pixels: Tensor, seed: int) -> FeatureMaps:
        """These maps with batch normalisation measured on images, for each part; the same ones where there is none.

        Args:
            pixels: Standardised images ``(n, parts, channels, height, width)``.
            seed: Seed of the draw among them, 0 or more.
        """
        return self

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
        # One for all parts, or one for each.
        self.dense = nn.ModuleList([inference_copy(dense, precision)])

    def measured(self, pixels: Tensor, seed: int) -> FeatureMaps:
        """See :meth:`FeatureMaps.measured`."""
        if not batch_norms(self) or len(pixels) < 2:
            return self
        order = generator(Stream.CALIBRATION, seed).permutation(len(pixels))[:CALIBRATION_SAMPLES]
        size = calibration_batch(len(order))
        rows = (order[start : start + size] for start in range(0, len(order) - size + 1, size))
        shown = ([self._shown(part) for part in pixels[batch].unbind(1)] for batch in rows)
        found = copy.copy(self)
        # A copy of the module's table alone: both hold the same layers until this one is given its own.
        found._modules = dict(self._modules)
        with self._autocast():
            found.dense = nn.ModuleList(calibrated_each(self.dense[0], shown, pixels.shape[1]))
        return found

    def _shown(self, part: Tensor) -> Tensor:
        pixels = part.to(device_of(self)).repeat(1, self.copies, 1, 1)
        return pixels.contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(device_of(self).type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """See :meth:`FeatureMaps.forward`; computed and returned on the encoder's device."""
        parts = pixels.unbind(1)
        encoders = list(self.dense) * (len(parts) // len(self.dense))
        with self._autocast():
            maps = [encoder(self._shown(part)).float() for encoder, part in zip(encoders, parts, strict=True)]
        return maps[0] if len(maps) == 1 else torch.cat([functional.normalize(one, dim=1) for one in maps], dim=1)


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
        """Where the labels lie in the images; see :func:`cell_places`."""
        height, width = self.labels.shape[1:]
        return cell_places((height, width), (self.pixels.shape[-2], self.pixels.shape[-1]))


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
