"""The teacher: a slow copy of the student that gives it targets."""

from __future__ import annotations

import copy
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Progress = TypeVar("Progress", float, NDArray[np.float64])

MOST_MEMORY = 0.02
"""Share of its initial weights above which a teacher is partly an untrained network still."""

LOWEST_MOMENTUM = 0.8
"""Below this no momentum is lowered: a teacher that is nearly its student has little to teach."""


class Teacher(nn.Module):
    """An exponential moving average of a student (Grill et al. 2020, equation 1).

    It shares no tensor with the student, its parameters require no gradient, and an optimiser over the
    parameters that do never sees them. Its batch normalisation keeps running statistics of the teacher's own batches:
    they belong to its own weights and to the views that it sees, which are not all that the student sees. Dropout and
    stochastic depth are the student's alone: targets are those of the whole network.

    Attributes:
        model: The copy of the student, which is called under :func:`torch.no_grad`.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        # deepcopy refuses tensors that were computed rather than created, such as the weight that
        # torch.nn.utils.weight_norm keeps beside its factors. Handing it their copies in advance avoids the refusal;
        # the modules compute them anew in their next forward pass.
        held = [value for part in student.modules() for value in vars(part).values()]
        computed = [value for value in held if isinstance(value, Tensor) and not value.is_leaf]
        self.model = copy.deepcopy(student, {id(tensor): tensor.detach().clone() for tensor in computed})
        self.model.requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif hasattr(module, "drop_prob"):  # timm's stochastic depth, of which it has several kinds
                module.drop_prob = 0.0  # type: ignore[assignment]  # nn.Module types its attributes as tensors and modules

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """What the copy makes of its input, without gradient."""
        outputs: Tensor = self.model(pixels)
        return outputs

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Move towards the student: ``teacher = momentum * teacher + (1 - momentum) * student``.

        Floating-point buffers move like parameters; other buffers, such as counts, are copied. Those of batch
        normalisation are the teacher's own and stay.

        Args:
            student: The module that the teacher is a copy of.
            momentum: Share of itself that the teacher keeps: 1 leaves it as it is, 0 makes it equal to the student.
        """
        own, other = _followed(self.model), _followed(student)
        pairs = list(zip(own, other, strict=True))
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([t for t, _ in moving], [s for _, s in moving], 1 - momentum)
        for target, source in pairs:
            if not target.is_floating_point():
                target.copy_(source)


def momentum_at(progress: Progress, start: float, end: float) -> Progress:
    """Momentum on a cosine from ``start`` to ``end`` (Grill et al. 2020, section 3.3, where ``end`` is 1).

    Args:
        progress: Share of the run that is done, from 0 to 1, or many such shares in an array.
        start: Momentum where ``progress`` is 0.
        end: Momentum where ``progress`` is 1.
    """
    momentum: Progress = end - (end - start) * (np.cos(np.pi * progress) + 1) / 2
    return momentum


def teacher_memory(start: float, end: float, steps: int) -> NDArray[np.float64]:
    """Share of its initial weights that a teacher holds: the product of the momenta of all steps before.

    Args:
        start: Momentum at the start of the run, 0 to 1.
        end: Momentum at its end, which a cosine leads to.
        steps: How many optimiser steps the run has, 1 or more.

    Returns:
        The share before the first step, which is 1, and after each step; ``(steps + 1,)``.
    """
    momenta = momentum_at(np.arange(1, steps + 1, dtype=np.float64) / steps, start, end)
    return np.concatenate([[1.0], np.cumprod(momenta)])


def lowered_momentum(start: float, end: float | None, steps: int, use: int, limit: float) -> float:
    """The highest momentum to start with, at most ``start``, under which a teacher forgets what it began as in time.

    Args:
        start: Momentum at the start of the run, as it is wished for.
        end: Momentum at its end, which a cosine leads to; None where the momentum is constant.
        steps: How many optimiser steps the run has, 1 or more.
        use: The step by which the teacher is to have forgotten, 1 to ``steps``.
        limit: Largest share of its initial weights that it may hold then, above 0.

    Returns:
        ``start`` where that is low enough; else a multiple of 1e-6 that is not below :data:`LOWEST_MOMENTUM`, under
        which the teacher may hold more than ``limit``.
    """

    def forgets(momentum: float) -> bool:
        return bool(teacher_memory(momentum, momentum if end is None else end, steps)[use] <= limit)

    if start <= LOWEST_MOMENTUM or forgets(start):
        return start
    # The share falls with the momentum. Whole millionths, so that it can be written down without loss.
    low, high = round(LOWEST_MOMENTUM * 1_000_000), int(start * 1_000_000) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if forgets(middle / 1_000_000) else (low, middle)
    return low / 1_000_000


def _followed(module: nn.Module) -> list[Tensor]:
    """Parameters, and the buffers of everything but batch normalisation, in a fixed order."""
    buffers = [
        buffer
        for part in module.modules()
        if not isinstance(part, _BatchNorm)
        for buffer in part.buffers(recurse=False)
    ]
    return [*(p.detach() for p in module.parameters()), *buffers]
