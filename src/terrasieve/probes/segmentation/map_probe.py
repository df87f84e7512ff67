"""What every segmentation probe is: fitted on maps of a frozen model, able to state its protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.probes.metrics.segmentation import IGNORE
from terrasieve.probes.probe import Protocol
from terrasieve.probes.segmentation.maps import FeatureMaps, label_places

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
        classes: Number of classes.
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


class SegmentationProbe(ABC):
    """A predictor of one class a pixel from frozen maps; whatever it learns, it learns from the train images.

    Attributes:
        on_pixels: Whether it is also fitted on the pixels themselves, as a floor.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    on_pixels: ClassVar[bool] = False

    @property
    @abstractmethod
    def settings(self) -> str:
        """Every setting that a reader needs to repeat the probe, in one line."""

    @property
    def protocol(self) -> Protocol:
        """Name, version and settings."""
        return Protocol(self.name, self.version, self.settings)

    @abstractmethod
    def fit(self, maps: FeatureMaps, train: LabelledImages, report: Report = silent) -> Self:
        """Learn from the train images.

        Args:
            maps: Frozen; runs on the device that it is on.
            train: What to learn from.
            report: Is told how far the fit is.

        Raises:
            ConfigError: The images cannot be fitted, for example because they hold one class only.
        """

    @abstractmethod
    def predict(self, maps: FeatureMaps, pixels: Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """Class codes ``(n, *size)`` of images ``(n, parts, channels, height, width)``."""
