"""The loss of DINO, and the centre that keeps one prototype from taking everything (Caron et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.methods.ranks import sum_over_ranks


def dino_targets(outputs: Tensor, centre: Tensor, temperature: Tensor | float) -> Tensor:
    """The teacher's distribution over prototypes: centred, then sharpened (Caron et al. 2021, section 3.1).

    Args:
        outputs: What the teacher's head gives, ``(n, prototypes)``.
        centre: What is subtracted from every row, ``(prototypes,)``.
        temperature: What the difference is divided by, above 0; the lower, the sharper.

    Returns:
        Rows that sum to 1, float32, without gradient.
    """
    return functional.softmax((outputs.detach().float() - centre) / temperature, dim=-1)


def dino_loss(targets: Sequence[Tensor], outputs: Sequence[Tensor], temperature: float) -> Tensor:
    """Mean cross-entropy over all pairs of a teacher's view and another view of the student.

    The sum in equation 3 of Caron et al. 2021, divided by the number of its terms, so that it does not grow with
    the number of views.

    Args:
        targets: Of each global view, the teacher's distribution ``(n, prototypes)``; at least one, and without
            local views two.
        outputs: What the student's head gives, ``(n, prototypes)`` each: of the same views in the same order, then of
            the local ones.
        temperature: What the student's outputs are divided by, above 0.

    Returns:
        Scalar, float32 whatever the precision of the outputs.
    """
    entropies, pairs = [], 0
    for i, output in enumerate(outputs):
        others = [target for j, target in enumerate(targets) if j != i]
        if not others:
            continue
        log_shares = functional.log_softmax(output.float() / temperature, dim=-1)
        # Cross-entropy is linear in the target: one product serves all pairs of this view. It is a sum of products
        # instead of a matrix product, which autocast would compute in 16 bits.
        entropies.append(-(sum(others[1:], others[0]) * log_shares).sum(dim=-1).mean())
        pairs += len(others)
    return torch.stack(entropies).sum() / pairs


class Centre(nn.Module):
    """A moving average of the teacher's outputs (Caron et al. 2021, equation 4).

    It moves once per optimiser step, by the mean over everything noted since, so that neither the number of
    micro-batches nor that of processes changes it.

    Args:
        prototypes: Length of an output, which is the number of prototypes.
        momentum: Share of itself that the average keeps at each step, 0 up to but not including 1.

    Attributes:
        value: ``(prototypes,)``, float32; zeros at first.
    """

    value: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(prototypes))
        # No buffer: data-parallel training would overwrite it by the first process's before a forward pass, and a
        # checkpoint, taken between steps, has nothing to keep of it.
        self._noted: Tensor | None = None

    @torch.no_grad()
    def note(self, outputs: Tensor) -> None:
        """Take outputs ``(n, prototypes)`` into account at the next step."""
        # The number of rows comes last, so that one message between processes carries it along.
        noted = functional.pad(outputs.float().sum(dim=0), (0, 1), value=len(outputs))
        self._noted = noted if self._noted is None else self._noted + noted

    @torch.no_grad()
    def step(self) -> None:
        """Move towards the mean over what all processes noted since the last step, if they did."""
        if self._noted is None:
            return
        noted, self._noted = self._noted, None
        sum_over_ranks(noted)
        self.value.lerp_(noted[:-1] / noted[-1], 1 - self.momentum)
