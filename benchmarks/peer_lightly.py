"""The peer of ``pretrain_step.py``: rs-byol-1 put together from lightly, torchvision and rasterio.

Written as a careful user of these libraries would write it: GeoTIFF scenes read by window in a torch data
set, torchvision transforms on tensors with one band, lightly's projection and prediction heads, loss and
momentum update, bf16 autocast where the CPU is fast at it, channels_last, worker processes as many as are fastest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import terrasieve._torchvision  # noqa: F401  (must come before torchvision)

import numpy as np
import rasterio
import timm
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from rasterio.windows import Window
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from terrasieve.device import bf16_is_fast
from terrasieve.views.recipe import Augmentation


class QuarterTurn(nn.Module):
    """Rotate by 0, 90, 180 or 270 degrees."""

    def forward(self, image: Tensor) -> Tensor:
        """Turn one image of shape ``(channels, height, width)``."""
        return torch.rot90(image, int(torch.randint(4, ())), dims=(-2, -1))


def transform(augmentation: Augmentation, size: int, mean: float, std: float) -> v2.Compose:
    """The recipe's augmentation in torchvision's terms."""
    kernel = max(3, int(0.1 * size) // 2 * 2 + 1)
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                size,
                scale=augmentation.crop_scale,
                ratio=augmentation.crop_ratio,
                interpolation=InterpolationMode.BICUBIC,
                antialias=True,
            ),
            v2.RandomHorizontalFlip(augmentation.horizontal_flip),
            v2.RandomVerticalFlip(augmentation.vertical_flip),
            v2.RandomApply([QuarterTurn()], p=augmentation.quarter_turn),
            v2.RandomApply([v2.GaussianBlur(kernel, augmentation.blur_sigma)], p=augmentation.blur),
            v2.Normalize([mean], [std]),
            v2.RandomErasing(augmentation.erase, augmentation.erase_area, augmentation.erase_ratio),
        ]
    )


class ScenePairs(Dataset[tuple[Tensor, Tensor]]):
    """One random optical band and the radar band of a tile, read by window from GeoTIFF scenes."""

    def __init__(self, root: Path, tile: int, size: int, augmentation: Augmentation) -> None:
        self.optical = sorted((root / "s2").glob("*.tif"))
        self.radar = [root / "s1" / path.name for path in self.optical]
        with rasterio.open(self.optical[0]) as scene:
            self.across, self.down = scene.width // tile, scene.height // tile
        self.tile = tile
        self.transform = transform(augmentation, size, 100.0, 50.0)
        self._open: dict[Path, rasterio.DatasetReader] = {}

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.optical) * self.across * self.down

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Two augmented views of shape ``(1, size, size)``."""
        scene, place = divmod(index, self.across * self.down)
        row, column = divmod(place, self.across)
        window = Window(column * self.tile, row * self.tile, self.tile, self.tile)
        band = int(torch.randint(1, 4, ()))
        return self._view(self.optical[scene], band, window), self._view(self.radar[scene], 1, window)

    def _view(self, path: Path, band: int, window: Window) -> Tensor:
        if path not in self._open:
            self._open[path] = rasterio.open(path)
        pixels = self._open[path].read([band], window=window)
        return self.transform(torch.from_numpy(pixels.astype(np.float32)))


class SceneBatches(Iterator[list[Tensor]]):
    """Shuffled batches of a data set without end, read by so many worker processes."""

    def __init__(self, dataset: ScenePairs, batch_size: int, workers: int) -> None:
        self.loader = DataLoader(
            dataset,
            batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self._batches = self._endless()

    def __next__(self) -> list[Tensor]:
        """The next batch: two views ``(batch_size, 1, size, size)``."""
        return next(self._batches)

    def _endless(self) -> Iterator[list[Tensor]]:
        while True:
            yield from self.loader


class LightlyByol(nn.Module):
    """BYOL from lightly's parts, as in its documentation."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = timm.create_model(backbone, in_chans=1, num_classes=0)
        self.projection = BYOLProjectionHead(self.backbone.num_features, 256, 256)
        self.prediction = BYOLPredictionHead(256, 256, 256)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_momentum = copy.deepcopy(self.projection)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_momentum)
        self.criterion = NegativeCosineSimilarity()

    def student(self, view: Tensor) -> Tensor:
        """The student's prediction of one view."""
        return self.prediction(self.projection(self.backbone(view)))

    def teacher(self, view: Tensor) -> Tensor:
        """The teacher's projection of one view."""
        with torch.no_grad():
            return self.projection_momentum(self.backbone_momentum(view))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The symmetric loss."""
        one = self.criterion(self.student(first), self.teacher(second))
        return one + self.criterion(self.student(second), self.teacher(first))


class Peer:
    """The peer's training, one call of ``step`` at a time."""

    def __init__(self, dataset: ScenePairs, backbone: str, batch_size: int, workers: int) -> None:
        self.model = LightlyByol(backbone).to(memory_format=torch.channels_last)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.SGD(trainable, lr=0.05, momentum=0.9, weight_decay=1e-5)
        self.batches = SceneBatches(dataset, batch_size, workers)
        self.bf16 = bf16_is_fast(torch.device("cpu"))

    def step(self) -> None:
        """One optimiser step, reading and augmentation included."""
        first, second = (view.to(memory_format=torch.channels_last) for view in next(self.batches))
        update_momentum(self.model.backbone, self.model.backbone_momentum, m=0.9)
        update_momentum(self.model.projection, self.model.projection_momentum, m=0.9)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.model(first, second)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
