"""An encoder with a linear probe on top, as one network that gives a score for each class."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.probes.linear.logistic import LogisticProbe


def affine_head(probe: LogisticProbe) -> nn.Linear:
    """Standardisation and weights of a fitted probe as one affine map, from vectors to scores of classes.

    ``(x - mean) / scale @ weights + intercept`` is ``x @ (weights / scale) + (intercept - mean / scale @ weights)``.

    Args:
        probe: Fitted on vectors ``(n, features)``.

    Returns:
        Maps ``(n, features)`` to ``(n, classes)`` in float32, on the CPU; a class that the train split lacks scores
        minus infinity.
    """
    weights = probe.weights_.detach().double().cpu() / torch.from_numpy(np.asarray(probe.scaler_.scale_))[:, None]
    bias = probe.intercept_.detach().double().cpu() - torch.from_numpy(np.asarray(probe.scaler_.mean_)) @ weights
    head = nn.Linear(len(weights), int(probe.classes_.max()) + 1)
    head.requires_grad_(False).weight.zero_()
    head.bias.fill_(-torch.inf)
    head.weight[probe.classes_], head.bias[probe.classes_] = weights.T.float(), bias.float()
    return head


def probabilities(head: nn.Linear, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax of a head's scores of vectors ``(n, features)``: shape ``(n, classes)``."""
    return as_array(functional.softmax(head(torch.from_numpy(vectors)).double(), dim=1))


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resampling of maps ``(n, height, width)`` to the height and width of an image."""
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def class_scores(scores: Tensor, classes: NDArray[np.int64]) -> Tensor:
    """Of scores ``(n, classes)``, those of one class a sample: shape ``(n,)``."""
    return scores.gather(1, torch.from_numpy(classes).to(scores.device)[:, None])[:, 0]


def as_array(values: Tensor) -> NDArray[np.float64]:
    """Values of a tensor without gradient, in float64 on the CPU."""
    return np.asarray(values.detach().cpu().double().numpy())
