"""Multinomial logistic regression: scikit-learn's objective, and its minimum by preconditioned L-BFGS.

The features are read twice in each iteration, once along a direction and once for a gradient; all else is small. So
what counts is how few iterations are needed, and that both products run along the rows as they lie in memory.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TOLERANCE = 3e-8
"""Share of the objective that one more step may promise at the end."""

HISTORY = 10
"""Steps that L-BFGS remembers."""

BLOCK = 2048
"""Features whose covariances with each other the preconditioner knows."""

_PANEL = 512


def objective(weights: Tensor, intercept: Tensor, features: Tensor, labels: Tensor, c: float) -> Tensor:
    """C times the summed cross-entropy plus half the squared norm of the weights, as scikit-learn defines it.

    Args:
        weights: Shape ``(features, classes)``.
        intercept: Shape ``(classes,)``; not penalised.
        features: Shape ``(n, features)``.
        labels: Class codes, shape ``(n,)``.
        c: Inverse strength of the penalty.
    """
    losses = functional.cross_entropy(features @ weights + intercept, labels, reduction="sum")
    return c * losses + 0.5 * weights.square().sum()


class Fit(NamedTuple):
    """Where the descent ended.

    Attributes:
        weights: Shape ``(features, classes)``.
        intercept: Shape ``(classes,)``.
        iterations: Steps that were made.
        converged: Whether the tolerance was reached.
    """

    weights: Tensor
    intercept: Tensor
    iterations: int
    converged: bool


def minimise(
    features: Tensor,
    labels: Tensor,
    covariance: Sequence[Tensor],
    c: float,
    start: tuple[Tensor, Tensor],
    max_iter: int,
) -> Fit:
    """Weights and intercept that minimise :func:`objective`, from a starting point.

    L-BFGS (Nocedal and Wright 2006, algorithm 7.4) whose initial inverse Hessian is that of the penalty plus the
    covariance of the features times the mean curvature p (1 - p) of the predictions. With uniform predictions this is
    the objective's Hessian itself (Böhning 1992, section 2); it is taken anew whenever the mean curvature has halved or
    doubled. Steps end where the slope along the direction has fallen to a tenth.

    Products with the features are float32, scores and losses float64. It ends when half the squared Newton decrement,
    with L-BFGS's Hessian, is below :data:`TOLERANCE` of the objective, or when float32 gives no descent any more.

    Args:
        features: Centred features, float32, shape ``(n, features)``.
        labels: Class codes, shape ``(n,)``; every class occurs.
        covariance: Of the features, as :func:`covariance_blocks` gives it.
        c: Inverse strength of the penalty.
        start: Weights ``(features, classes)`` and intercept ``(classes,)``.
        max_iter: Most iterations.
    """
    problem = _Problem(features, labels, 1 / (c * len(labels)))
    point = problem.at(torch.cat([start[0].T, start[1][:, None]], dim=1))
    inverse, history = problem.preconditioner(covariance, point), _History()
    for iteration in range(max_iter):
        if not 0.5 <= point.curvature / inverse.curvature <= 2:
            inverse = problem.preconditioner(covariance, point)
        direction = -history.times(point.gradient, inverse)
        slope = _dot(direction, point.gradient)
        if -slope / 2 <= TOLERANCE * point.loss:
            return _fit(point, iteration, converged=True)
        new = problem.along(point, direction, slope)
        if new.loss < point.loss:
            history.add(new.parameters - point.parameters, new.gradient - point.gradient)
            point = new
        elif history:
            history.clear()
        else:
            return _fit(point, iteration, converged=-slope / 2 <= 1e-4 * point.loss)
    return _fit(point, max_iter, converged=False)


def covariance_blocks(features: Tensor) -> tuple[Tensor, ...]:
    """Covariances within each run of at most :data:`BLOCK` features, of centred features ``(n, features)``."""
    return tuple(_second_moments(part) for part in torch.split(features, BLOCK, dim=1))


def _second_moments(features: Tensor) -> Tensor:
    length = features.shape[1]
    result = features.new_zeros(length, length)
    # Below the diagonal only: that is little more than half of the products.
    for first in range(0, length, _PANEL):
        panel = slice(first, first + _PANEL)
        result[first:, panel] = features[:, first:].T @ features[:, panel]
    return (result.tril() + result.tril(-1).T) / len(features)


class _Point(NamedTuple):
    """Parameters ``(classes, features + 1)``, the intercept last, and the mean objective there."""

    parameters: Tensor
    scores: Tensor
    loss: float
    gradient: Tensor
    curvature: float


class _Problem:
    """The objective divided by C n, which leaves the minimum where it is and makes tolerances mean the same."""

    def __init__(self, features: Tensor, labels: Tensor, penalty: float) -> None:
        self.features = features
        self.labels = labels[:, None]
        self.penalty = penalty

    def at(self, parameters: Tensor, scores: Tensor | None = None) -> _Point:
        scores = self._scores(parameters) if scores is None else scores
        weights = parameters[:, :-1]
        logs = scores.log_softmax(dim=1)
        shares = logs.exp()
        loss = self.penalty * _dot(weights, weights) / 2 - float(logs.gather(1, self.labels).mean())
        curvature = float((shares * (1 - shares)).sum(dim=1).mean()) / (shares.shape[1] - 1)
        residuals = shares.scatter_add(1, self.labels, -torch.ones_like(logs)) / len(logs)
        slopes = residuals.to(weights.dtype).T @ self.features + self.penalty * weights
        gradient = torch.cat([slopes, residuals.sum(dim=0)[:, None].to(weights.dtype)], dim=1)
        return _Point(parameters, scores, loss, gradient, curvature)

    def along(self, point: _Point, direction: Tensor, slope: float) -> _Point:
        """Go to where the slope along a direction is a tenth of what it is at the point."""
        change = self._scores(direction)
        length = self._length(point, direction, change, slope)
        return self.at(point.parameters + length * direction, point.scores + length * change)

    def preconditioner(self, covariance: Sequence[Tensor], point: _Point) -> _Preconditioner:
        return _Preconditioner(covariance, max(point.curvature, 1e-10), self.penalty)

    def _scores(self, parameters: Tensor) -> Tensor:
        weights, intercept = parameters[:, :-1].contiguous(), parameters[:, -1]
        return functional.linear(self.features, weights).double() + intercept.double()

    def _length(self, point: _Point, direction: Tensor, change: Tensor, slope: float) -> float:
        """Newton's method in one variable, which needs no product with the features; bisection guards it."""
        low, high, length = 0.0, math.inf, 1.0
        own = change.gather(1, self.labels).mean()
        linear = self.penalty * _dot(direction[:, :-1], point.parameters[:, :-1])
        square = self.penalty * _dot(direction[:, :-1], direction[:, :-1])
        for _ in range(30):
            shares = (point.scores + length * change).softmax(dim=1)
            means = (shares * change).sum(dim=1)
            here = float(means.mean() - own) + linear + length * square
            if abs(here) <= 0.1 * abs(slope):
                break
            bend = float(((shares * change.square()).sum(dim=1) - means.square()).mean()) + square
            low, high = (length, high) if here < 0 else (low, length)
            length = _inside(low, high, length - here / bend if bend > 0 else math.inf)
        return length


def _inside(low: float, high: float, wanted: float) -> float:
    """A step between bounds, or with no upper one at most four times as long as the lower."""
    if math.isinf(high):
        return min(wanted, 4 * low)
    return wanted if low < wanted < high else (low + high) / 2


class _Preconditioner:
    """Inverse of ``curvature * covariance + penalty``, block by block; the intercept's part is the curvature alone."""

    def __init__(self, covariance: Sequence[Tensor], curvature: float, penalty: float) -> None:
        self.curvature = curvature
        self.factors = [_factor(block, curvature, penalty) for block in covariance]
        self.sizes = [len(block) for block in covariance]

    def __call__(self, gradient: Tensor) -> Tensor:
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


class _History:
    """The last steps and the changes of the gradient, which say how the Hessian differs from the initial one."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=HISTORY)

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, step: Tensor, change: Tensor) -> None:
        product = _dot(step, change)
        if product > 0:
            self._pairs.append((step, change, product))

    def clear(self) -> None:
        self._pairs.clear()

    def times(self, gradient: Tensor, inverse: _Preconditioner) -> Tensor:
        """The inverse Hessian times a gradient, by two loops over the pairs."""
        taken = []
        for step, change, product in reversed(self._pairs):
            taken.append(_dot(step, gradient) / product)
            gradient = gradient - taken[-1] * change
        result = inverse(gradient)
        for (step, change, product), share in zip(self._pairs, reversed(taken), strict=True):
            result = result + (share - _dot(change, result) / product) * step
        return result


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())


def _fit(point: _Point, iterations: int, converged: bool) -> Fit:
    weights, intercept = point.parameters[:, :-1], point.parameters[:, -1]
    return Fit(weights.T.contiguous(), intercept.clone(), iterations, converged)
