"""Collapse: when an encoder maps every input to nearly the same vector, or onto a line.

A joint-embedding loss is smallest at exactly that point, so a falling loss says nothing about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from terrasieve.errors import CollapseError, NonFiniteError

_ENOUGH_ROWS = 32
"""Rows below which a rank is low for want of rows, not of directions."""


def feature_std(features: Tensor) -> Tensor:
    """Standard deviation of unit vectors per dimension, averaged, times ``sqrt(d)``.

    The measure of Chen and He 2021 (SimSiam, section 4.1), scaled so that it does not depend on ``d``.

    Args:
        features: ``(n, d)``; rows are normalised to unit length first.

    Returns:
        Scalar from 0 (all rows point the same way) to 1 (spread evenly over the sphere); 0 without two rows.
    """
    if len(features) < 2:
        return features.new_zeros((), dtype=torch.float32)
    unit = functional.normalize(features.detach().float(), dim=-1)
    return unit.std(dim=0, correction=0).mean() * math.sqrt(features.shape[1])


def effective_rank(features: Tensor) -> Tensor:
    """Number of directions in which vectors vary (Roy and Vetterli 2007, definition 1, of the centred rows).

    The exponential of the entropy of the singular values, normalised to sum 1. Directions in which the rows
    vary by less than float32 resolves are left out, so that rounding is not taken for variety.

    Args:
        features: ``(n, d)``, for any ``n`` and ``d``.

    Returns:
        Scalar float64 from 1 (one direction) to ``min(n - 1, d)`` (all directions evenly); 0 where the rows are
        all equal.
    """
    rows = features.detach().double()
    if len(rows) < 2:
        return rows.new_zeros(())
    return _rank(rows - rows.mean(dim=0), float(rows.norm()))


def _rank(centred: Tensor, scale: float) -> Tensor:
    """The rank of rows that are centred, of which those that were not had this norm in all."""
    # Its eigenvalues are the squared singular values; of both products the smaller has all that are not 0.
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    values = values[values > torch.finfo(torch.float32).eps * scale]
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp() if len(values) else centred.new_zeros(())


class CollapseSign(NamedTuple):
    """What the metrics of a method show when it has collapsed in a way that the embedding need not show.

    Attributes:
        meaning: What has happened, as the end of a sentence that begins with "the method may have collapsed".
        ranges: Of each metric that tells, its lowest and highest value in that state; all have to lie within.
    """

    meaning: str
    ranges: Mapping[str, tuple[float, float]]

    def is_shown(self, metrics: Mapping[str, float]) -> bool:
        """Whether every metric that tells is among these and lies in its range."""
        return all(name in metrics and low <= metrics[name] <= high for name, (low, high) in self.ranges.items())


class CollapseReading(NamedTuple):
    """What the monitor saw.

    Attributes:
        std: :func:`feature_std` within updates, 0 to about 1; NaN where the rows hold NaN or infinity.
        rank: :func:`effective_rank` within updates, from 1 to the length of the vectors; 0 where the rows of each
            update are all equal; NaN where the rows hold NaN or infinity.
    """

    std: float
    rank: float


class CollapseMonitor:
    """Watches the embeddings of the last images and stops a run that collapsed.

    Rows are compared with those of the same update only: an encoder that gives one vector for all inputs, and another
    one after each step, has collapsed as well, though its vectors of several steps vary.

    The default limits separate two states that lie far apart. On single bands of Sentinel-1 and Sentinel-2, untrained
    ResNet18, ResNet50 and ViT-Tiny show a feature std of 0.2 to 0.8 and an effective rank above 60, and ResNet18
    stays there while BYOL trains it; a collapsed network shows rounding, or one direction. Limits near the ideal
    (1 and ``d``) would stop healthy runs, whose features are never spread evenly.

    The signs of a method warn and do not stop: an untrained head may show them for a while and then learn.

    Args:
        min_std: Feature standard deviation, 0 to 1, below which a reading is bad.
        min_rank: Effective rank, 1 up to the number of features, below which a reading is bad.
        patience: Number of bad readings in a row that stop the run, and of readings in a row that show a sign before
            it is told; a single one may be chance.
        capacity: Number of rows that are kept and measured together, at least 2.
        signs: What the method's metrics show when it has collapsed.
    """

    def __init__(
        self,
        min_std: float = 0.02,
        min_rank: float = 2.0,
        patience: int = 3,
        capacity: int = 512,
        signs: Sequence[CollapseSign] = (),
    ) -> None:
        self.min_std = min_std
        self.min_rank = min_rank
        self.patience = patience
        self.capacity = capacity
        self.signs = tuple(signs)
        # The rows of each update, the oldest first; they are joined by a reading, as most are dropped before one.
        self._updates: list[Tensor] = []
        self._bad_readings = 0
        self._shown = [0] * len(self.signs)

    def update(self, embedding: Tensor) -> None:
        """Keep these rows and drop the oldest; stays on their device, so that nothing waits for it.

        Args:
            embedding: ``(n, d)``, of the encoder as it is now.
        """
        self._updates.append(embedding.detach().to(torch.float32, copy=True))
        surplus = sum(map(len, self._updates)) - self.capacity
        while surplus >= len(self._updates[0]):
            surplus -= len(self._updates.pop(0))
        if surplus > 0:
            self._updates[0] = self._updates[0][surplus:]

    def measure(self) -> CollapseReading:
        """The variety of the rows that are kept."""
        rows = self._rows().cpu()
        if not torch.isfinite(rows).all():
            return CollapseReading(math.nan, math.nan)
        unit, free = self._centred(functional.normalize(rows, dim=-1)), len(rows) - len(self._updates)
        # Each update took its own mean away, and with it one row's worth of variety.
        std = unit.square().sum(dim=0).div(max(1, free)).sqrt().sum() / math.sqrt(max(1, rows.shape[1]))
        return CollapseReading(float(std), float(_rank(self._centred(rows.double()), float(rows.double().norm()))))

    def judge(self, reading: CollapseReading) -> None:
        """Stop the run for what was measured, or let it go on; below 32 rows nothing is judged.

        Args:
            reading: What :meth:`measure` gave, here or on average over processes.

        Raises:
            CollapseError: The reading is bad, and so were the ``patience - 1`` before it.
            NonFiniteError: A row holds NaN or infinity.
        """
        if math.isnan(reading.std):
            raise NonFiniteError(
                "The embedding holds NaN or infinite values: the weights diverged. Lower the learning rate, clip the "
                "gradient, or train in float32; then go on from the checkpoint before."
            )
        bad = reading.std < self.min_std or reading.rank < self.min_rank
        rows = sum(map(len, self._updates))
        if rows >= min(_ENOUGH_ROWS, self.capacity):
            self._bad_readings = self._bad_readings + 1 if bad else 0
        if self._bad_readings >= self.patience:
            raise CollapseError(self._explain(reading, rows))

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """A sentence for each sign that was shown ``patience`` times running; told once, until it has gone and come.

        Args:
            metrics: The method's metrics by name, each a mean over the steps since the last call.
        """
        told = []
        for i, sign in enumerate(self.signs):
            self._shown[i] = self._shown[i] + 1 if sign.is_shown(metrics) else 0
            if self._shown[i] == self.patience:
                seen = ", ".join(f"{name} {metrics[name]:.4g}" for name in sign.ranges)
                told.append(
                    f"the method may have collapsed: {sign.meaning} ({seen}, in {self.patience} readings running). "
                    "If that does not pass, start again with a lower learning rate or a slower teacher."
                )
        return told

    def _rows(self) -> Tensor:
        """What is kept, the oldest first, ``(rows, d)``, where the last update was."""
        if not self._updates:
            return torch.empty(0, 0)
        return torch.cat([rows.to(self._updates[-1].device) for rows in self._updates])

    def _centred(self, rows: Tensor) -> Tensor:
        """Rows less the mean of the rows of their update."""
        parts = torch.split(rows, [len(own) for own in self._updates]) if self._updates else [rows]
        return torch.cat([part - part.mean(dim=0) for part in parts])

    def _explain(self, reading: CollapseReading, rows: int) -> str:
        kind = "all inputs give nearly the same vector" if reading.std < self.min_std else "it varies along a line"
        return (
            f"The embedding collapsed ({kind}): feature std {reading.std:.4f} (limit {self.min_std:g}), effective "
            f"rank {reading.rank:.2f} (limit {self.min_rank:g}) over the last {rows} images, in "
            f"{self._bad_readings} readings running. Lower the learning rate, raise the teacher's momentum, or make "
            "the batch larger, and start again."
        )

    def state_dict(self) -> dict[str, Any]:
        """``ring``, a tensor ``(rows, d)``, oldest first; numbers and lists of numbers under the other names."""
        sizes = [len(rows) for rows in self._updates]
        return {"ring": self._rows(), "sizes": sizes, "bad_readings": self._bad_readings, "shown": self._shown}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        ring = state["ring"].clone()
        # Older checkpoints know neither updates nor signs.
        self._updates = list(torch.split(ring, state.get("sizes", [len(ring)]))) if len(ring) else []
        self._bad_readings = int(state["bad_readings"])
        self._shown = list(state.get("shown", [0] * len(self.signs)))
