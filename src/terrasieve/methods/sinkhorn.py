"""Sinkhorn-Knopp: targets that take every prototype equally often (Caron et al. 2020, arXiv 2006.09882)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from terrasieve.processes.ranks import largest_over_ranks, sum_over_ranks


@torch.no_grad()
def sinkhorn_targets(outputs: Tensor, temperature: Tensor | float, iterations: int = 3) -> Tensor:
    """The teacher's distributions over prototypes, such that over all rows of all processes each is taken alike.

    In turn every prototype's shares are scaled to one sum and every row's to 1. DINOv2 puts it in the place of DINO's
    centre (Oquab et al. 2024, section 4), and takes as many iterations as the default.

    Args:
        outputs: What the teacher's head gives, ``(n, prototypes)``; n is 1 or more, and may differ between processes.
        temperature: What they are divided by before the exponential, above 0; the lower, the sharper.
        iterations: How often both are scaled, 1 or more.

    Returns:
        Rows that sum to 1, float32, without gradient.
    """
    # Of logarithms: at a low temperature the exponential of a whole row may be 0.
    logs = outputs.float() / temperature
    for _ in range(iterations):
        logs = functional.log_softmax(logs - _log_of_sum(logs), dim=1)
    return logs.exp()


def _log_of_sum(logs: Tensor) -> Tensor:
    """Logarithm of the sum over all rows of all processes, ``(prototypes,)``."""
    largest = logs.amax(dim=0)
    largest_over_ranks(largest)
    total = (logs - largest).exp().sum(dim=0)
    sum_over_ranks(total)
    return largest + total.log()
