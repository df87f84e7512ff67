"""Training a whole encoder on labels: fine-tuning, and from scratch as the baseline that labels alone reach."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.console import progress_bar
from terrasieve.draws import stratified_subset
from terrasieve.embeddings.stream import BATCHES_AHEAD, device_of, prepare_batch, read_batches
from terrasieve.models.backbone import Encoder
from terrasieve.probes.compare import ProbeTask, result_row
from terrasieve.probes.metrics import Task, score_predictions
from terrasieve.probes.models import Candidate, Showing
from terrasieve.probes.probe import ProbeResult, Protocol
from terrasieve.probes.results import InputRow, Measured
from terrasieve.processes.parallel import read_ahead
from terrasieve.schema import Spec
from terrasieve.streams import Stream, generator, torch_seed
from terrasieve.views.dihedral import apply_dihedral_each, dihedral_codes

NAME = "end-to-end"
VERSION = 1
_SELECT_BY: Mapping[Task, tuple[str, float]] = {
    "classification": ("accuracy", 1.0),
    "multilabel": ("macro_map", 1.0),
    "regression": ("rmse", -1.0),
}
"""The validation metric that chooses the epoch, and its sign."""


class EndToEndSettings(Spec):
    """How a network is trained on labels. The papers do not say how they did; these are this project's.

    Attributes:
        epochs: Passes over the train split.
        batch_size: Most samples in a step; the steps of a pass are of nearly equal size.
        learning_rate: Learning rate of AdamW at the start, above 0; it falls to 0 along a cosine.
        weight_decay: Decoupled weight decay of AdamW, 0 or more, the same for every parameter.
    """

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)

    def protocol(self, seed: int) -> Protocol:
        """Name, version and every setting."""
        return Protocol(
            NAME,
            VERSION,
            f"encoder and one linear layer trained together, {self.epochs} epochs of AdamW at {self.learning_rate:g} "
            f"falling along a cosine, weight decay {self.weight_decay:g}, batch {self.batch_size}, random flips and "
            f"quarter turns, epoch chosen on validation, seed {seed}, in float32",
        )


@dataclass(frozen=True)
class _Part:
    """Samples of one part of the split and their targets, in the same order."""

    indices: NDArray[np.int64]
    targets: NDArray[Any]


def train_end_to_end(
    name: str,
    encoder: Encoder,
    row: InputRow,
    task: ProbeTask,
    settings: EndToEndSettings | None = None,
    share: float = 1.0,
) -> Measured:
    """Train a copy of an encoder on the train split, keep the best epoch on validation, score it on test.

    Args:
        name: The model's name, which heads its column.
        encoder: Where the weights start; untrained for a network from scratch. Left exactly as it is.
        row: What it is shown; the vectors of several inputs are joined before the linear layer.
        task: What every model of the comparison shares.
        settings: How it is trained; ``EndToEndSettings()`` when None.
        share: Share of the train split to train on, above 0 and at most 1.

    Raises:
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    settings, splits = settings or EndToEndSettings(), task.splits
    kept = stratified_subset(splits.target.strata()[splits.train], share, task.seed)
    train, val, test = (_Part(part, splits.labels[part]) for part in (splits.train[kept], splits.val, splits.test))
    outputs = 1 if splits.target.task == "regression" else len(splits.classes)
    model = _Joint(encoder, len(row.members), outputs, task.seed)
    trainer = _Trainer(model, row, task, settings, _Scale.of(splits.target.task, train.targets))
    chosen = trainer.fit(train, val, f"train: {name}, {row.name}")
    predicted = trainer.predict(test)
    score = score_predictions(splits.target.task, test.targets, predicted)
    result = ProbeResult(score, predicted, settings.protocol(task.seed), chosen)
    candidate, shown = Candidate(name, encoder, encoder.channels), Showing(encoder, row)
    return Measured(result_row(candidate, shown, NAME, result, task, len(train.indices), share), predicted)


class _Joint(nn.Module):
    """An encoder over each input, and one linear layer over all its vectors."""

    def __init__(self, encoder: Encoder, inputs: int, outputs: int, seed: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(Stream.FINETUNE_HEAD, seed))
            self.head = nn.Linear(inputs * encoder.features, outputs).to(device_of(encoder))

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Scores ``(n, outputs)``."""
        scores: Tensor = self.head(torch.cat([self.encoder(view) for view in views], dim=1))
        return scores


@dataclass(frozen=True)
class _Scale:
    """Numbers are regressed with zero mean and unit variance on train; classes are as they are."""

    task: Task
    mean: float
    std: float

    @classmethod
    def of(cls, task: Task, targets: NDArray[Any]) -> _Scale:
        if task != "regression":
            return cls(task, 0.0, 1.0)
        return cls(task, float(targets.mean()), float(targets.std()) or 1.0)

    def loss(self, scores: Tensor, targets: NDArray[Any]) -> Tensor:
        if self.task == "classification":
            return functional.cross_entropy(scores, torch.from_numpy(targets).to(scores.device))
        wanted = torch.from_numpy(np.asarray((targets - self.mean) / self.std, dtype=np.float32)).to(scores.device)
        if self.task == "multilabel":
            return functional.binary_cross_entropy_with_logits(scores, wanted)
        return functional.mse_loss(scores[:, 0], wanted)

    def predictions(self, scores: NDArray[np.float32]) -> NDArray[Any]:
        if self.task == "classification":
            return np.asarray(scores.argmax(axis=1), dtype=np.int64)
        return scores if self.task == "multilabel" else scores[:, 0].astype(np.float64) * self.std + self.mean


@dataclass(frozen=True)
class _Trainer:
    """A network in training, with what it is shown and how."""

    model: _Joint
    row: InputRow
    task: ProbeTask
    settings: EndToEndSettings
    scale: _Scale

    def fit(self, train: _Part, val: _Part, title: str) -> dict[str, float]:
        """Train, and leave the model with the weights of its best epoch on validation; say which that was."""
        rng, settings = generator(Stream.FINETUNE_BATCHES, self.task.seed), self.settings
        steps = -(-len(train.indices) // settings.batch_size)
        optimiser = torch.optim.AdamW(
            self.model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs * steps)
        metric, sign = _SELECT_BY[self.scale.task]
        best, chosen, weights = -np.inf, {}, self.model.state_dict()
        with progress_bar() as bar:
            running = bar.add_task(title, total=settings.epochs, note="")
            for epoch in range(1, settings.epochs + 1):
                for loss in self._losses(train, rng, -(-len(train.indices) // steps)):
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                    optimiser.step()
                    schedule.step()
                reached = score_predictions(self.scale.task, val.targets, self.predict(val)).metrics[metric]
                if sign * reached > best:
                    best, chosen = sign * reached, {"epoch": float(epoch), f"validation_{metric}": reached}
                    weights = copy.deepcopy(self.model.state_dict())
                bar.update(running, advance=1, note=f"validation {metric} {reached:.3f}")
        self.model.load_state_dict(weights)
        return chosen

    @torch.inference_mode()
    def predict(self, part: _Part) -> NDArray[Any]:
        """Class codes, scores by label or numbers of the samples of a part."""
        self.model.eval()
        batches = self._batches(part, self.task.settings.batch_size)
        return self.scale.predictions(np.concatenate([self.model(views).float().cpu().numpy() for views, _ in batches]))

    def _losses(self, part: _Part, generator: np.random.Generator, batch_size: int) -> Iterator[Tensor]:
        """One pass in a new order: the loss of each step, of samples mirrored and turned at random."""
        self.model.train()
        order = generator.permutation(len(part.indices))
        for views, targets in self._batches(_Part(part.indices[order], part.targets[order]), batch_size):
            way = generator.integers(8, size=len(targets))
            yield self.scale.loss(self.model([laid_down(view, way) for view in views]), targets)

    def _batches(self, part: _Part, size: int) -> Iterator[tuple[list[Tensor], NDArray[Any]]]:
        device, members, task = device_of(self.model), self.row.members, self.task
        settings, read = task.settings.model_copy(update={"batch_size": size}), 0
        for batch in read_ahead(read_batches(task.archive, members, part.indices, settings), depth=BATCHES_AHEAD):
            views = prepare_batch(batch, members, task.normaliser, settings.size, device)
            yield views, part.targets[read : read + len(batch.indices)]
            read += len(batch.indices)


def laid_down(pixels: Tensor, way: NDArray[np.int64]) -> Tensor:
    """Each sample laid down in one of the eight ways that a square has; one that is no square, in one of four.

    Args:
        pixels: Shape ``(n, channels, height, width)``.
        way: Codes from 0 to 7, shape ``(n,)``: quarter turns, and from 4 on mirrored after them.
    """
    square = pixels.shape[-2] == pixels.shape[-1]
    turns, mirrored = way % 4 if square else way % 2 * 2, way >= 4
    # To mirror after a turn is to mirror before a turn the other way round.
    flips = np.stack([np.zeros_like(mirrored), mirrored], axis=1)
    return apply_dihedral_each(pixels, dihedral_codes(flips, np.where(mirrored, -turns, turns) % 4))
