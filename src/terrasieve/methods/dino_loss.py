"""The loss of DINO, and the centre that keeps one prototype from taking everything (Caron et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from terrasieve.methods.pair_entropies import Sharpening, pair_entropies
from terrasieve.processes.ranks import sum_over_ranks


class DinoLoss(NamedTuple):
    """What :func:`dino_loss` gives.

    Attributes:
        loss: Scalar, float32 whatever the precision of the outputs.
        entropy: Mean entropy of the teacher's distributions in nats, without gradient.
    """

    loss: Tensor
    entropy: Tensor


def dino_loss(
    taught: Sequence[Tensor], outputs: Sequence[Tensor], temperature: float, sharpening: Sharpening | None = None
) -> DinoLoss:
    """Mean cross-entropy over all pairs of a teacher's view and another view of the student.

    The sum in equation 3 of Caron et al. 2021, divided by the number of its terms, so that it does not grow with
    the number of views.

    Args:
        taught: Of each global view, the teacher's distribution over prototypes, or with ``sharpening`` the teacher's
            outputs, ``(n, prototypes)``; at least one, and without local views two.
        outputs: What the student's head gives, ``(n, prototypes)`` each: of the same views in the same order, then of
            the local ones.
        temperature: What the student's outputs are divided by, above 0.
        sharpening: Makes distributions of ``taught``; None where these are distributions.
    """
    others = [[j for j in range(len(taught)) if j != i] for i in range(len(outputs))]
    compared = [i for i, pair in enumerate(others) if pair]
    pairs = [others[i] for i in compared]
    found = pair_entropies(taught, [outputs[i] for i in compared], pairs, temperature, sharpening)
    loss = torch.stack([view.mean() for view in found.cross]).sum() / sum(len(pair) for pair in pairs)
    # Each teacher's view is in equally many pairs, so that this is the mean over pairs as well.
    return DinoLoss(loss, torch.stack([view.mean() for view in found.taught]).mean())


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
        # Sums of outputs, and the number of rows last, so that one message between processes carries it along. No
        # buffer: data-parallel training would overwrite it by the first process's before a forward pass, and a
        # checkpoint, taken between steps, has nothing to keep of it.
        self._noted = torch.zeros(prototypes + 1)
        self._has_noted = False

    @torch.no_grad()
    def note(self, outputs: Tensor) -> None:
        """Take outputs ``(n, prototypes)`` into account at the next step."""
        self._noted[:-1] += outputs.sum(dim=0, dtype=torch.float32)
        self._noted[-1] += len(outputs)
        self._has_noted = True

    @torch.no_grad()
    def step(self) -> None:
        """Move towards the mean over what all processes noted since the last step, if they did."""
        if self._has_noted:
            sum_over_ranks(self._noted)
            self.value.lerp_(self._noted[:-1] / self._noted[-1], 1 - self.momentum)
            self._noted.zero_()
            self._has_noted = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to another device what is no buffer, together with what is."""
        self._noted = fn(self._noted)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]  # torch leaves it so
