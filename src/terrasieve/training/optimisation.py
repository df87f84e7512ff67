"""What moves a method's parameters, built from the settings of a run: the optimiser, and its rates at every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from terrasieve.models.backbone import layer_depths
from terrasieve.training.schedules import Timeline, cosine
from terrasieve.training.spec import TrainSpec


def build_optimiser(method: nn.Module, spec: TrainSpec, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser over a method's trainable parameters.

    Biases and normalisation parameters (all of one dimension) are not decayed, as is common practice;
    the papers do not state it.

    Args:
        method: What is trained; with ``layer_decay`` a method, whose ``encoder`` has layers.
        spec: Settings of the run, of which those of the optimiser count here.
        device: Where the method is when it is trained, though it may be elsewhere yet.

    Raises:
        ConfigError: timm does not know the layers of the encoder, whose rates are to decay.
    """
    scales = _rate_scales(method, spec.optimiser.layer_decay)
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            members.setdefault((scales.get(name, 1.0), parameter.ndim > 1), []).append(parameter)
    # From the full rate down, and of each rate those that decay first; the order by which checkpoints know them.
    groups = [
        {
            "params": members[scale, decays],
            "weight_decay": spec.optimiser.weight_decay if decays else 0.0,
            "decays": decays,
            "lr_scale": scale,
        }
        for scale, decays in sorted(members, reverse=True)
    ]
    return spec.optimiser.build(groups, device)


@torch.no_grad()
def start_momenta(optimiser: torch.optim.Optimizer) -> None:
    """Let the momenta of SGD begin at 0, on the devices of their parameters.

    By itself torch takes the first gradient for them, which comes to the same. But a fused SGD that leaves out its
    first step, because a gradient overflowed in 16 bits, has by then made room for them and put nothing there.

    Args:
        optimiser: Any optimiser that has not stepped yet; those without momenta stay as they are.
    """
    for group in optimiser.param_groups:
        if group.get("momentum"):
            for parameter in group["params"]:
                optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _rate_scales(method: nn.Module, decay: float | None) -> dict[str, float]:
    """Share of the learning rate of each parameter that has not the whole, by its name in the method."""
    if decay is None or decay == 1:
        return {}
    encoder: Any = method.encoder  # nn.Module types its attributes as tensors and modules
    depths = layer_depths(encoder)
    deepest = max(depths.values())
    return {f"encoder.model.{name}": decay ** (deepest - depth) for name, depth in depths.items()}


def learning_rates(spec: TrainSpec, timeline: Timeline) -> NDArray[np.float64]:
    """The learning rate of every step, shape ``(steps,)``."""
    stated = spec.optimiser.lr_batch
    high = spec.optimiser.lr * (1 if stated is None else spec.batch_size / stated)
    return spec.schedule.build(high, spec.optimiser.lr_end, timeline)


def weight_decays(spec: TrainSpec, steps: int) -> NDArray[np.float64]:
    """The weight decay of every step, shape ``(steps,)``."""
    start, end = spec.optimiser.weight_decay, spec.optimiser.weight_decay_end
    return cosine(start, start if end is None else end, steps)


def set_rates(optimiser: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    """Use these from now on.

    Args:
        optimiser: Its parameter groups are those that :func:`build_optimiser` makes.
        learning_rate: The whole rate, of which each parameter group takes its share.
        weight_decay: Weight decay of the groups that decay.
    """
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]
        if group["decays"]:
            group["weight_decay"] = weight_decay
