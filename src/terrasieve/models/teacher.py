"""The teacher: a slow copy of the student that gives it targets."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """An exponential moving average of a student (Grill et al. 2020, equation 1).

    It shares no tensor with the student, its parameters require no gradient, and an optimiser over the
    parameters that do never sees them. In train mode its batch normalisation uses the statistics of the batch, as
    the student's does, but its running statistics follow the student's average instead of its own batches. Dropout
    and stochastic depth are the student's alone: targets are those of the whole network.

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
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                # The buffers stay, and are used in eval mode; a forward pass in train mode no longer writes them.
                module.track_running_stats = False
            elif isinstance(module, nn.Dropout):
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

        Floating-point buffers move like parameters; other buffers, such as counts, are copied.

        Args:
            student: The module that the teacher is a copy of.
            momentum: Share of itself that the teacher keeps: 1 leaves it as it is, 0 makes it equal to the student.
        """
        own, other = _state(self.model), _state(student)
        pairs = list(zip(own, other, strict=True))
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([t for t, _ in moving], [s for _, s in moving], 1 - momentum)
        for target, source in pairs:
            if not target.is_floating_point():
                target.copy_(source)


def momentum_at(progress: float, start: float, end: float) -> float:
    """Momentum on a cosine from ``start`` to ``end`` (Grill et al. 2020, section 3.3, where ``end`` is 1).

    Args:
        progress: Share of the run that is done, from 0 to 1.
        start: Momentum where ``progress`` is 0.
        end: Momentum where ``progress`` is 1.
    """
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2


def _state(module: nn.Module) -> list[Tensor]:
    return [*(p.detach() for p in module.parameters()), *module.buffers()]
