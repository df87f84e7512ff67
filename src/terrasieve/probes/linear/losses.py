"""What a linear model is fitted to: one class a sample, or labels that each hold or do not.

A loss falls into parts that share the features and nothing else, so that each has its own minimum: labels are a part
each, classes that exclude each other are one part together. Whatever is said of parts has shape ``(parts, 1)``, which
goes with parameters ``(columns, features + 1)`` as it is and with scores ``(n, columns)`` transposed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class LossPoint(NamedTuple):
    """A mean loss at some scores.

    Attributes:
        value: Mean over the samples, float64, shape ``(parts, 1)``.
        residuals: Its gradient by the scores, times the number of samples, shape ``(n, columns)``.
        curvature: Mean p (1 - p) of the predicted shares p, shape ``(parts, 1)``.
    """

    value: Tensor
    residuals: Tensor
    curvature: Tensor


class Loss(ABC):
    """A mean loss of scores ``(n, columns)`` in float64.

    Attributes:
        columns: Scores of a sample, 1 or more.
        intercept: What to begin with beside weights of zero, float64, shape ``(columns,)``.
        baseline: The loss there, float64, shape ``(parts, 1)``.
    """

    columns: int
    intercept: Tensor
    baseline: Tensor

    @abstractmethod
    def at(self, scores: Tensor) -> LossPoint:
        """The loss with its gradient and curvature."""

    @abstractmethod
    def along(self, scores: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivative of each part's loss as the scores move by the change, shape ``(parts, 1)``."""

    @abstractmethod
    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of each part of two tensors ``(columns, ...)``, shape ``(parts, 1)``.

        In float64: its last digits decide whether the descent has ended.
        """


class ClassEntropy(Loss):
    """Cross-entropy of classes that exclude each other, in one part.

    Args:
        codes: Class codes from 0, int64, shape ``(n,)``; every class occurs.
    """

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes
        self.columns = int(codes.max()) + 1
        self.intercept = torch.zeros(self.columns, dtype=torch.float64, device=codes.device)
        self.baseline = torch.full((1, 1), math.log(self.columns), dtype=torch.float64, device=codes.device)

    def at(self, scores: Tensor) -> LossPoint:
        """The loss with its gradient and curvature."""
        logs = scores.log_softmax(dim=1)
        shares = logs.exp()
        value = -logs.gather(1, self.codes[:, None]).mean()
        # Scaled so that uniform predictions give 1 / classes.
        curvature = (shares * (1 - shares)).sum(dim=1).mean() / (shares.shape[1] - 1)
        shares[torch.arange(len(shares)), self.codes] -= 1
        return LossPoint(value.reshape(1, 1), shares, curvature.reshape(1, 1))

    def along(self, scores: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivative of the loss as the scores move by the change, shape ``(1, 1)``."""
        shares = scores.softmax(dim=1)
        means = (shares * change).sum(dim=1)
        slope = means.mean() - change.gather(1, self.codes[:, None]).mean()
        bend = ((shares * change.square()).sum(dim=1) - means.square()).mean()
        return slope.reshape(1, 1), bend.reshape(1, 1)

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of two tensors, shape ``(1, 1)``."""
        return (a.double() * b.double()).sum().reshape(1, 1)


class LabelEntropy(Loss):
    """Binary cross-entropy of labels that do not exclude each other, each a part of its own.

    Args:
        labels: Whether each label holds, shape ``(n, columns)``; each holds of some samples and not of others.
    """

    def __init__(self, labels: Tensor) -> None:
        self.truth = labels.double()
        self.columns = labels.shape[1]
        # From the frequency of a label, so that a rare one does not spend its first steps on finding it.
        self.intercept = self.truth.mean(dim=0).logit()
        self.baseline = self._value(self.intercept.expand_as(self.truth))

    def at(self, scores: Tensor) -> LossPoint:
        """The loss with its gradient and curvature."""
        shares = scores.sigmoid()
        curvature = (shares * (1 - shares)).mean(dim=0)[:, None]
        return LossPoint(self._value(scores), shares - self.truth, curvature)

    def along(self, scores: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivative of each label's loss as the scores move by the change, shape ``(columns, 1)``."""
        shares = scores.sigmoid()
        slope = ((shares - self.truth) * change).mean(dim=0)
        bend = (shares * (1 - shares) * change.square()).mean(dim=0)
        return slope[:, None], bend[:, None]

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of each row, shape ``(columns, 1)``."""
        return (a.double() * b.double()).sum(dim=1, keepdim=True)

    def _value(self, scores: Tensor) -> Tensor:
        losses = functional.binary_cross_entropy_with_logits(scores, self.truth, reduction="none")
        return losses.mean(dim=0)[:, None]
