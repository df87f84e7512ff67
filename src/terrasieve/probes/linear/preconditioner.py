"""The initial inverse Hessian of a descent, from the covariance of the features, and the axes of most variance."""

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
"""Columns of a covariance that are multiplied at once."""
_POWER_ITERATIONS = 2
"""More would bring the axes nearer to the principal ones, which the descent does not need."""


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
        # Each product turns the axes towards those of most variance; QR keeps them from falling together.
        turned = [block @ part for block, part in zip(covariance, parts, strict=True)]
        axes = torch.linalg.qr(torch.cat(turned)).Q
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
        covariance: Blocks of the features' covariance, from :func:`covariance_blocks`.
        penalty: What is added to the diagonal of the features, above 0.
        curvature: Factor of the covariance for each part of the objective, shape ``(parts, 1)``; see :meth:`measure`.
    """

    def __init__(self, covariance: Sequence[Tensor], penalty: float, curvature: Tensor) -> None:
        self.covariance = covariance
        self.penalty = penalty
        self._factors: dict[float, list[Tensor]] = {}
        self.measure(curvature)

    def measure(self, curvature: Tensor) -> None:
        """Take the inverse anew for these curvatures ``(parts, 1)``, 0 or more."""
        self.curvature = curvature.clamp(min=1e-10)
        # Factors take long: of several parts, those of like curvature share them.
        levels = self.curvature if len(curvature) == 1 else torch.exp2(self.curvature.log2().round())
        self._levels = levels.flatten().tolist()
        self._factors = {
            level: self._factors.get(level) or [_factor(block, level, self.penalty) for block in self.covariance]
            for level in set(self._levels)
        }

    def __call__(self, gradient: Tensor) -> Tensor:
        """Its product with a gradient ``(columns, features + 1)``, the intercept last; a part has a row or all."""
        solved = gradient / self.curvature.to(gradient.dtype)
        levels = self._levels if len(self._levels) > 1 else self._levels * len(gradient)
        for level, factors in self._factors.items():
            rows = torch.tensor([one == level for one in levels], device=gradient.device)
            parts = torch.split(gradient[rows, :-1], [len(factor) for factor in factors], dim=1)
            solved[rows, :-1] = torch.cat(
                [
                    torch.cholesky_solve(part.T.contiguous(), factor).T
                    for part, factor in zip(parts, factors, strict=True)
                ],
                dim=1,
            )
        return solved


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
