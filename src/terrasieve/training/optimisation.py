"""Optimisers and their schedules, built from the ``train:`` block."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from terrasieve.training.schedules import cosine, warm_restarts
from terrasieve.training.spec import Cosine, Sgd, TrainSpec


def build_optimiser(method: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    """The optimiser over a method's trainable parameters.

    Biases and normalisation parameters (all of one dimension) are not decayed, as is common practice;
    the papers do not state it.
    """
    trainable = [p for p in method.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": spec.optimiser.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if isinstance(spec.optimiser, Sgd):
        return torch.optim.SGD(groups, lr=spec.optimiser.lr, momentum=spec.optimiser.momentum)
    return torch.optim.AdamW(groups, lr=spec.optimiser.lr)


def learning_rates(spec: TrainSpec, steps: int, steps_per_epoch: float) -> NDArray[np.float64]:
    """The learning rate of every step, shape ``(steps,)``."""
    high, low = spec.optimiser.lr, spec.optimiser.lr_end
    if isinstance(spec.schedule, Cosine):
        return cosine(high, low, steps, warmup=round(spec.schedule.warmup_epochs * steps_per_epoch))
    return warm_restarts(high, low, steps, steps_per_epoch, spec.schedule.first_epochs, spec.schedule.multiplier)


def set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """Use ``value`` in every parameter group from now on."""
    for group in optimiser.param_groups:
        group["lr"] = value
