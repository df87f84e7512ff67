"""KoLeo: a regulariser that spreads vectors out (Sablayrolles et al. 2019, arXiv 1806.03198)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1e-8


def koleo_loss(vectors: Tensor) -> Tensor:
    """Minus the mean logarithm of each unit vector's distance to its nearest neighbour.

    Up to a constant, and per dimension, minus the estimate by Kozachenko and Leonenko of the entropy of their
    distribution (Sablayrolles et al. 2019, section 3). DINOv2 takes it over the features of each batch of global
    views (Oquab et al. 2024, section 4).

    Args:
        vectors: ``(n, d)``; rows are normalised to unit length first.

    Returns:
        Scalar, float32 whatever their precision. Distances count as at least 1e-8, so that equal rows give a finite
        value and a finite gradient; a single row gives 0.
    """
    unit = functional.normalize(vectors.float(), dim=-1)
    if len(unit) < 2:
        return unit.sum() * 0
    with torch.no_grad(), torch.autocast(unit.device.type, enabled=False):
        nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
    # Of the differences themselves: cosines near 1 tell distances below about 3e-4 apart no more.
    squares = (unit - unit[nearest]).square().sum(dim=1)
    return -squares.clamp(min=_LEAST**2).log().mean() / 2
