"""The segmentation head of RS-BYOL (Jain et al. 2022): DeepLabV3 on a frozen, dilated backbone.

The paper states the head and the frozen backbone. Optimiser, schedule, batch and augmentation are this project's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import terrasieve._torchvision  # noqa: F401  (must come first: the installed builds may not match)

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import ASPP

from terrasieve.embeddings.stream import device_of
from terrasieve.errors import ConfigError
from terrasieve.models.dense import cell_places
from terrasieve.probes.segmentation.map_probe import (
    FeatureMaps,
    LabelledImages,
    Report,
    SegmentationProbe,
    silent,
)
from terrasieve.probes.segmentation.pixel_metrics import IGNORE
from terrasieve.streams import Stream, generator, torch_seed
from terrasieve.views.dihedral import ORDER, TRANSPOSE, apply_dihedral

RATES = (12, 24, 36)
"""Dilations of the pyramid at an output stride of 8 (Chen et al. 2017, arXiv 1706.05587, section 3.3)."""

POWER = 0.9
"""Of the polynomial decay of the learning rate (Chen et al. 2017, section 4.1)."""


class DeepLabProbe(SegmentationProbe):
    """Atrous spatial pyramid pooling, a 3x3 convolution and a classifier, trained; the backbone below is frozen.

    Chen et al. 2017, section 3.3. Cross-entropy over the pixels that count, of scores that are interpolated to the
    label map; Adam with polynomial decay; every batch is seen under one of the eight flips and quarter turns (of
    images that are not square, under one of the four that keep the shape). The weights are those after the last
    step.

    Args:
        steps: Steps of the optimiser.
        batch_size: Images in a step, at least two, for batch normalisation; the same may be drawn twice.
        learning_rate: Learning rate of Adam at the start, above 0; it falls to 0.
        width: Channels of the head; the paper's is 256.
        seed: Seed of the initial weights, dropout, batches and turns.

    Raises:
        ConfigError: The batch size is below two.
    """

    name: ClassVar[str] = "DeepLabV3"

    def __init__(
        self, steps: int = 300, batch_size: int = 8, learning_rate: float = 1e-3, width: int = 256, seed: int = 0
    ) -> None:
        if batch_size < 2:
            raise ConfigError(f"DeepLabV3 cannot normalise batches of {batch_size} image(s); take 2 or more.")
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.width = width
        self.seed = seed

    @property
    def settings(self) -> str:
        """Every setting in one line."""
        return (
            f"head of {self.width} channels, dilations {', '.join(map(str, RATES))}, on the frozen dilated backbone; "
            f"{self.steps} steps of Adam from {self.learning_rate:g}, polynomial decay {POWER:g}, "
            f"batch {self.batch_size}, cross-entropy, flips and quarter turns, seed {self.seed}, last step"
        )

    def fit(self, maps: FeatureMaps, train: LabelledImages, report: Report = silent) -> Self:
        """Train the head; see :meth:`SegmentationProbe.fit`."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(torch_seed(Stream.DEEPLAB_HEAD, self.seed))
            features = int(maps(train.pixels[:1]).shape[1])
            self.head_ = build_head(features, train.classes, self.width).to(device_of(maps))
            self._train(maps, train, report)
        self.head_.eval()
        return self

    @torch.inference_mode()
    def predict(self, maps: FeatureMaps, pixels: Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """See :meth:`SegmentationProbe.predict`."""
        places = cell_places(size, (pixels.shape[-2], pixels.shape[-1]))
        scores = (maps.at(self.head_(maps(batch)), places) for batch in torch.split(pixels, self.batch_size))
        return np.concatenate([part.argmax(dim=1).cpu().numpy() for part in scores])

    def _train(self, maps: FeatureMaps, train: LabelledImages, report: Report) -> None:
        optimiser = torch.optim.Adam(self.head_.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=self.steps, power=POWER)
        labels, places = torch.from_numpy(train.labels.astype(np.int64)), train.places
        square = train.pixels.shape[-2] == train.pixels.shape[-1] and labels.shape[-2] == labels.shape[-1]
        rng = generator(Stream.DEEPLAB_BATCHES, self.seed)
        rows = _rows(len(labels), self.batch_size, rng)
        for step in range(self.steps):
            report(f"step {step + 1}/{self.steps}")
            turn, drawn = int(rng.integers(ORDER if square else TRANSPOSE)), next(rows)
            features = maps(apply_dihedral(train.pixels[drawn], turn))
            scores = maps.at(self.head_(features), places)
            optimiser.zero_grad()
            truth = apply_dihedral(labels[drawn], turn).to(scores.device)
            functional.cross_entropy(scores, truth, ignore_index=IGNORE).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
            schedule.step()


def build_head(features: int, classes: int, width: int) -> nn.Sequential:
    """Torchvision's ``DeepLabHead``, whose width is 256, in any width; same layers, same names.

    Args:
        features: Number of channels of the maps.
        classes: Number of channels of the scores.
        width: Number of channels in between.
    """
    return nn.Sequential(
        ASPP(features, RATES, width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, classes, 1),
    )


def _rows(count: int, batch_size: int, generator: np.random.Generator) -> Iterator[Tensor]:
    """Batches of positions without end, every image once a pass."""
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.append(waiting, generator.permutation(count))
        yield torch.from_numpy(waiting[:batch_size])
        waiting = waiting[batch_size:]
