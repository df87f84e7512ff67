"""Another peer of ``pretrain_step.py``: torchgeo's BYOL trainer on the same images.

torchgeo's task is used as it is: its model, its loss, its augmentations (a flip, a blur and a resized crop, on the
batch) and its optimiser. Its constructor resizes every image to 224 pixels and has heads of 4,096; here both have the
size that the other contenders have. Reading, bf16 autocast, channels_last and worker processes are those of
``peer_lightly.py``. Its steps are made without Lightning's trainer, whose bookkeeping would only add to them.
"""

from __future__ import annotations

import terrasieve._torchvision  # noqa: F401  (must come before torchvision)

import timm
import torch
from torch import Tensor
from torchgeo.trainers import BYOLTask
from torchgeo.trainers.byol import BYOL
from torchvision.transforms import v2

from peer_lightly import SceneBatches, ScenePairs
from terrasieve.device import bf16_is_fast


class SmallByol(BYOLTask):
    """torchgeo's task for single bands, at the size of the other contenders."""

    def __init__(self, backbone: str, size: int) -> None:
        self.size = (size, size)
        super().__init__(model=backbone, in_channels=1, lr=1e-3)

    def configure_models(self) -> None:
        """Build the model for views of this size."""
        backbone = timm.create_model(self.hparams["model"], in_chans=1)
        self.model = BYOL(backbone, self.size, in_channels=1, projection_size=256, hidden_size=256)

    def log(self, name: str, value: Tensor, batch_size: int) -> None:
        """Drop the loss, which there is no trainer to hand to."""


class TorchgeoPeer:
    """torchgeo's training, one call of ``step`` at a time."""

    def __init__(self, dataset: ScenePairs, backbone: str, size: int, batch_size: int, workers: int) -> None:
        # Its task augments batches, so that the data set only standardises.
        dataset.transform = v2.Compose([v2.Normalize([100.0], [50.0])])
        self.task = SmallByol(backbone, size).to(memory_format=torch.channels_last)
        self.optimiser = self.task.configure_optimizers()["optimizer"]
        self.batches = SceneBatches(dataset, batch_size, workers)
        self.bf16 = bf16_is_fast(torch.device("cpu"))

    def step(self) -> None:
        """One optimiser step, reading and augmentation included."""
        images = torch.cat(next(self.batches), dim=1)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.task.training_step({"image": images}, 0)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
