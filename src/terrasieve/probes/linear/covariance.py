"""Covariance of features: as a preconditioner of linear models, and the axes of most variance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from terrasieve.streams import Stream, torch_generator

BLOCK = 2048
"""Features whose covariances with each other the preconditioner knows."""

COVARIANCE_ROWS = 2**14
"""Samples that the preconditioner's covariance is taken from; of more, evenly spaced ones."""

_PANEL = 512
_POWER_ITERATIONS = 2


def covariance_blocks(features: Tensor) -> tuple[Tensor, ...]:
    """Covariances within each run of at most :data:`BLOCK` features, of centred features ``(n, features)``."""
    rows = features[:: -(-len(features) // COVARIANCE_ROWS)]
    return tuple(_second_moments(part) for part in torch.split(rows, BLOCK, dim=1))


def principal_axes(covariance: Sequence[Tensor], count: int) -> Tensor:
    """Orthonormal directions near those of most variance, shape ``(features, count)``.

    Subspace iteration from a seeded start (Halko, Martinsson and Tropp 2011, algorithm 4.4).
    """
    length = sum(len(block) for block in covariance)
    start = torch.randn(length, count, generator=torch_generator(Stream.PRINCIPAL_AXES, 0))
    axes = start.to(covariance[0].device, covariance[0].dtype)
    for _ in range(_POWER_ITERATIONS):
        parts = torch.split(axes, [len(block) for block in covariance])
        spread = [block @ part for block, part in zip(covariance, parts, strict=True)]
        axes = torch.linalg.qr(torch.cat(spread)).Q
    return axes


def _second_moments(features: Tensor) -> Tensor:
    length = features.shape[1]
    result = features.new_zeros(length, length)
    # Below the diagonal only: that is little more than half of the products.
    for first in range(0, length, _PANEL):
        panel = slice(first, first + _PANEL)
        result[first:, panel] = features[:, first:].T @ features[:, panel]
    return (result.tril() + result.tril(-1).T) / len(features)


class Preconditioner:
    """Inverse of ``curvature * covariance + penalty``, block by block; the intercept's part is the curvature alone.

    Args:
        covariance: As :func:`covariance_blocks` gives it.
        curvature: Positive.
        penalty: Positive.
    """

    def __init__(self, covariance: Sequence[Tensor], curvature: float, penalty: float) -> None:
        self.curvature = curvature
        self.factors = [_factor(block, curvature, penalty) for block in covariance]
        self.sizes = [len(block) for block in covariance]

    def __call__(self, gradient: Tensor) -> Tensor:
        """Its product with a gradient ``(classes, features + 1)``, the intercept last."""
        *parts, last = torch.split(gradient, [*self.sizes, 1], dim=1)
        solved = [
            torch.cholesky_solve(part.T.contiguous(), factor).T
            for part, factor in zip(parts, self.factors, strict=True)
        ]
        return torch.cat([*solved, last / self.curvature], dim=1)


def _factor(block: Tensor, curvature: float, penalty: float) -> Tensor:
    """Cholesky's factor; what float32 cannot resolve in the covariance is added to its diagonal."""
    floor = torch.finfo(block.dtype).eps * float(block.trace())
    while True:
        matrix = curvature * block
        matrix.diagonal().add_(penalty + curvature * floor)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            return factor
        floor *= 10
