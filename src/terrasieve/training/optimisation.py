"""Optimisers and their schedules, built from the ``train:`` block."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from terrasieve.training.schedules import Timeline, cosine
from terrasieve.training.spec import TrainSpec


def build_optimiser(method: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    """The optimiser over a method's trainable parameters.

    Biases and normalisation parameters (all of one dimension) are not decayed, as is common practice;
    the papers do not state it.
    """
    trainable = [p for p in method.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": spec.optimiser.weight_decay, "decays": True},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0, "decays": False},
    ]
    groups = [group for group in groups if group["params"]]
    return spec.optimiser.build(groups)


def learning_rates(spec: TrainSpec, timeline: Timeline) -> NDArray[np.float64]:
    """The learning rate of every step, shape ``(steps,)``."""
    return spec.schedule.build(spec.optimiser.lr, spec.optimiser.lr_end, timeline)


def weight_decays(spec: TrainSpec, steps: int) -> NDArray[np.float64]:
    """The weight decay of every step, shape ``(steps,)``."""
    start, end = spec.optimiser.weight_decay, spec.optimiser.weight_decay_end
    return cosine(start, start if end is None else end, steps)


def set_rates(optimiser: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    """Use these from now on: the learning rate in every parameter group, the weight decay in those that decay."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
        if group["decays"]:
            group["weight_decay"] = weight_decay
