"""Collapse: when an encoder maps every input to nearly the same vector, or onto a line.

A joint-embedding loss is smallest at exactly that point, so a falling loss says nothing about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    centred = rows - rows.mean(dim=0)
    # Its eigenvalues are the squared singular values; of both products the smaller has all that are not 0.
    gram = centred @ centred.T if len(rows) < rows.shape[1] else centred.T @ centred
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    values = values[values > torch.finfo(torch.float32).eps * rows.norm()]
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp() if len(values) else rows.new_zeros(())


class CollapseReading(NamedTuple):
    """What the monitor saw.

    Attributes:
        std: :func:`feature_std`, 0 to 1.
        rank: :func:`effective_rank`, from 1 to the length of the vectors; 0 where all are equal.
    """

    std: float
    rank: float


class CollapseMonitor:
    """Watches the embeddings of the last images and stops a run that collapsed.

    The default limits separate two states that lie far apart. On single bands of Sentinel-1 and Sentinel-2, untrained
    ResNet18, ResNet50 and ViT-Tiny show a feature std of 0.2 to 0.8 and an effective rank above 60, and ResNet18
    stays there while BYOL trains it; a collapsed network shows rounding, or one direction. Limits near the ideal
    (1 and ``d``) would stop healthy runs, whose features are never spread evenly.

    Args:
        min_std: Feature standard deviation, 0 to 1, below which a reading is bad.
        min_rank: Effective rank, 1 up to the number of features, below which a reading is bad.
        patience: Number of bad readings in a row that stop the run; a single one may be chance.
        capacity: Number of rows that are kept and measured together, at least 2.
    """

    def __init__(self, min_std: float = 0.02, min_rank: float = 2.0, patience: int = 3, capacity: int = 512) -> None:
        self.min_std = min_std
        self.min_rank = min_rank
        self.patience = patience
        self.capacity = capacity
        self._ring = torch.empty(0, 0)
        self._bad_readings = 0

    def update(self, embedding: Tensor) -> None:
        """Keep these rows and drop the oldest; stays on their device, so that nothing waits for it.

        Args:
            embedding: ``(n, d)``, of the encoder as it is now.
        """
        rows = embedding.detach().float()
        kept = torch.cat([self._ring.to(rows.device), rows]) if len(self._ring) else rows.clone()
        self._ring = kept[-self.capacity :]

    def check(self) -> CollapseReading:
        """Measure the rows that are kept; fewer than 32 are measured, but not judged.

        Raises:
            CollapseError: The reading is bad, and so were the ``patience - 1`` before it.
            NonFiniteError: A row holds NaN or infinity.
        """
        rows = self._ring.cpu()
        if not torch.isfinite(rows).all():
            raise NonFiniteError(
                "The embedding holds NaN or infinite values: the weights diverged. Lower the learning rate, clip the "
                "gradient, or train in float32; then go on from the checkpoint before."
            )
        reading = CollapseReading(float(feature_std(rows)), float(effective_rank(rows)))
        bad = reading.std < self.min_std or reading.rank < self.min_rank
        if len(rows) >= min(_ENOUGH_ROWS, self.capacity):
            self._bad_readings = self._bad_readings + 1 if bad else 0
        if self._bad_readings >= self.patience:
            raise CollapseError(self._explain(reading, len(rows)))
        return reading

    def _explain(self, reading: CollapseReading, rows: int) -> str:
        kind = "all inputs give nearly the same vector" if reading.std < self.min_std else "it varies along a line"
        return (
            f"The embedding collapsed ({kind}): feature std {reading.std:.4f} (limit {self.min_std:g}), effective "
            f"rank {reading.rank:.2f} (limit {self.min_rank:g}) over the last {rows} images, in "
            f"{self._bad_readings} readings running. Lower the learning rate, raise the teacher's momentum, or make "
            "the batch larger, and start again."
        )

    def state_dict(self) -> dict[str, Any]:
        """``ring``, a tensor ``(rows, d)``, oldest first, and ``bad_readings``, a number."""
        return {"ring": self._ring, "bad_readings": self._bad_readings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self._ring = state["ring"].clone()
        self._bad_readings = int(state["bad_readings"])
