"""The classification head of RS-BYOL (Jain et al. 2022, section IV-B): one hidden layer on frozen vectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.probes.probe import Features, Labelled, Labels, Probe, check_labelled
from terrasieve.probes.standardising import fit_scaler, standardise, standardise_chunks
from terrasieve.streams import Stream, torch_generator, torch_seed


class MlpProbe(Probe):
    """Linear, BatchNorm, ReLU, Linear, softmax; cross-entropy; the weights after the last epoch.

    Width, layers and epochs are the paper's. It does not state optimiser, learning rate and batch size:
    Adam with 1e-3 and 256 are this project's. Vectors are standardised by the train split.
    The validation split is not used.

    Args:
        hidden: Width of the hidden layer.
        epochs: Passes over the train split.
        learning_rate: Learning rate of Adam, above 0, the same in every step.
        batch_size: Most samples in a step; the steps of an epoch are of nearly equal size.
        seed: Seed of the initial weights and of the order of samples.
        device: The device that the fit runs on.
    """

    name: ClassVar[str] = "MLP"

    def __init__(
        self,
        hidden: int = 128,
        epochs: int = 100,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.seed = seed
        self.device = device

    @property
    def settings(self) -> str:
        """Every setting in one line."""
        return (
            f"{self.hidden} hidden, BatchNorm, ReLU, {self.epochs} epochs of Adam at {self.learning_rate:g}, "
            f"batch {self.batch_size}, seed {self.seed}, vectors standardised on train, last epoch"
        )

    def fit(self, features: Features, labels: Labels, validation: Labelled | None = None) -> Self:
        """Train the head; see :meth:`Probe.fit`."""
        check_labelled(features, labels)
        self.scaler_ = fit_scaler(features)
        train, codes = torch.from_numpy(standardise(self.scaler_, features)), torch.tensor(labels, device=self.device)
        self.head_ = self._build(train.shape[1], int(labels.max()) + 1)
        with _one_thread():
            self._train(train.to(self.device), codes)
        self.head_.eval()
        return self

    @torch.inference_mode()
    def predict(self, features: Features) -> Labels:
        """Class codes, shape ``(n,)``."""
        predicted = np.empty(len(features), dtype=np.int64)
        for rows, part in standardise_chunks(self.scaler_, features):
            scores = self.head_(torch.from_numpy(part.astype(np.float32)).to(self.device))
            predicted[rows] = scores.argmax(dim=1).cpu().numpy()
        return predicted

    def _train(self, train: Tensor, codes: Tensor) -> None:
        optimiser = torch.optim.Adam(self.head_.parameters(), lr=self.learning_rate)
        generator = torch_generator(Stream.MLP_BATCHES, self.seed)
        # Equal parts, because BatchNorm cannot train on a remainder of one sample.
        steps = -(-len(codes) // self.batch_size)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(codes), generator=generator).tensor_split(steps):
                optimiser.zero_grad()
                functional.cross_entropy(self.head_(train[rows]), codes[rows]).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimiser.step()

    def _build(self, features: int, classes: int) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(Stream.MLP_WEIGHTS, self.seed))
            head = nn.Sequential(
                nn.Linear(features, self.hidden),
                nn.BatchNorm1d(self.hidden),
                nn.ReLU(),
                nn.Linear(self.hidden, classes),
            )
        return head.to(self.device)


@contextmanager
def _one_thread() -> Iterator[None]:
    # The matrices of a step are so small that threads wait for each other longer than they compute,
    # and with one thread the weights do not depend on the number of cores.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
