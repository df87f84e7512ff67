"""Multinomial logistic regression: the minimum of scikit-learn's objective, by preconditioned L-BFGS.

The features are read twice in each iteration, once along a direction and once for a gradient; all else is small. So
what counts is how few such iterations are needed. Frozen features are correlated so strongly that the covariance saves
most of them as a preconditioner, and that most of the rest run along a few hundred axes instead of all features.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from terrasieve.streams import Stream, torch_generator

TOLERANCE = 3e-7
"""What one more step may promise at the end, as a share of the objective and of its descent from no weights at all."""

HISTORY = 10
"""Steps that L-BFGS remembers."""

AXES = 512
"""Axes that the descent begins along, where there are more than twice as many features."""

BLOCK = 2048
"""Features whose covariances with each other the preconditioner knows."""

COVARIANCE_ROWS = 2**14
"""Samples that the preconditioner's covariance is taken from; of more, evenly spaced ones."""

_PANEL = 512
"""Columns of a covariance that are multiplied at once."""
_POWER_ITERATIONS = 2
"""More would bring the axes nearer to the principal ones, which the descent does not need."""


class PreparedFeatures(NamedTuple):
    """Samples, and what every fit to them shares, whatever its C.

    Attributes:
        features: Centred, float32, shape ``(n, features)``.
        labels: Class codes, int64, shape ``(n,)``.
        classes: Number of classes; every one occurs.
        covariance: Of the features, as :func:`covariance_blocks` gives it.
        axes: Orthonormal directions that hold most of the variance, shape ``(features, axes)``; None where there are so
            few features that nothing would be gained.
        along: The features along the axes and their covariance; None where there are no axes.
    """

    features: Tensor
    labels: Tensor
    classes: int
    covariance: tuple[Tensor, ...]
    axes: Tensor | None
    along: tuple[Tensor, tuple[Tensor, ...]] | None


class Fit(NamedTuple):
    """Where the descent ended.

    Attributes:
        weights: Shape ``(features, classes)``.
        intercept: Shape ``(classes,)``.
        iterations: Steps that were made with all features.
        converged: Whether :data:`TOLERANCE` was reached before the iterations ran out.
    """

    weights: Tensor
    intercept: Tensor
    iterations: int
    converged: bool


def prepare_features(features: Tensor, labels: Tensor) -> PreparedFeatures:
    """Measure what every fit shares: covariance and leading axes.

    Args:
        features: Centred features, float32, shape ``(n, features)``.
        labels: Class codes from 0, shape ``(n,)``; every class occurs.
    """
    covariance, classes = covariance_blocks(features), int(labels.max()) + 1
    if features.shape[1] <= 2 * AXES:
        return PreparedFeatures(features, labels, classes, covariance, None, None)
    axes = principal_axes(covariance, AXES)
    projected = features @ axes
    return PreparedFeatures(features, labels, classes, covariance, axes, (projected, covariance_blocks(projected)))


def minimise(prepared: PreparedFeatures, c: float, max_iter: int, start: tuple[Tensor, Tensor] | None = None) -> Fit:
    """Weights and intercept that minimise C times the summed cross-entropy plus half the squared norm of the weights.

    L-BFGS (Nocedal and Wright 2006, algorithm 7.4) whose initial inverse Hessian is that of the penalty plus the
    covariance of the features times the mean curvature p (1 - p) of the predictions. With uniform predictions this is
    the objective's Hessian itself (Böhning 1992, section 2); it is taken anew whenever the mean curvature has halved or
    doubled. Steps end where the slope along the direction has fallen to half. Where there are axes, the descent
    first changes the weights along them alone, and then in all directions.

    Products with the features are float32, scores and losses float64. It ends when half the squared Newton decrement,
    with L-BFGS's Hessian, is below :data:`TOLERANCE`, or when float32 gives no descent any more.

    Args:
        prepared: Samples with their covariance, from :func:`prepare_features`.
        c: Inverse strength of the penalty.
        max_iter: Most iterations along the axes, and again with all features.
        start: Weights ``(features, classes)`` and intercept ``(classes,)`` to begin with; zeros when None.
    """
    penalty = 1 / (c * len(prepared.labels))
    problem = _Problem(prepared.features, prepared.labels, penalty)
    parameters = prepared.features.new_zeros(prepared.classes, prepared.features.shape[1] + 1)
    if start is not None:
        parameters = torch.cat([start[0].T, start[1][:, None]], dim=1)
    point = problem.at(parameters)
    if prepared.axes is not None and prepared.along is not None:
        point = problem.at(point.parameters + _change_along(prepared.axes, *prepared.along, problem, point, max_iter))
    point, iterations, converged = _descend(problem, prepared.covariance, point, max_iter)
    weights, intercept = point.parameters[:, :-1], point.parameters[:, -1]
    return Fit(weights.T.contiguous(), intercept.clone(), iterations, converged)


def _change_along(
    axes: Tensor, projected: Tensor, covariance: Sequence[Tensor], problem: _Problem, point: _Point, max_iter: int
) -> Tensor:
    """Change of the parameters that is best if the weights change along the axes only."""
    coarse = _Problem(projected, problem.labels, problem.penalty)
    start = torch.cat([point.parameters[:, :-1] @ axes, point.parameters[:, -1:]], dim=1)
    # With the scores of all weights: those across the axes stay what they are.
    end, _, _ = _descend(coarse, covariance, coarse.at(start, point.scores), max_iter)
    change = end.parameters - start
    return torch.cat([change[:, :-1] @ axes.T, change[:, -1:]], dim=1)


def _descend(problem: _Problem, covariance: Sequence[Tensor], point: _Point, max_iter: int) -> tuple[_Point, int, bool]:
    inverse, history = problem.preconditioner(covariance, point), _History()
    for iteration in range(max_iter):
        if not 0.5 <= point.curvature / inverse.curvature <= 2:
            inverse = problem.preconditioner(covariance, point)
        direction = -history.times(point.gradient, inverse)
        slope = _dot(direction, point.gradient)
        if -slope / 2 <= TOLERANCE * problem.scale(point):
            return point, iteration, True
        new = problem.along(point, direction, slope)
        # Where float32 gives no descent, what was remembered of the curvature may be wrong: once more without it.
        if new.loss < point.loss:
            history.add(new.parameters - point.parameters, new.gradient - point.gradient)
            point = new
        elif history:
            history.clear()
        else:
            return point, iteration, -slope / 2 <= 1e-4 * point.loss
    return point, max_iter, False


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
        self.labels = labels
        self.penalty = penalty

    def at(self, parameters: Tensor, scores: Tensor | None = None) -> _Point:
        scores = self._scores(parameters) if scores is None else scores
        weights = parameters[:, :-1]
        logs = scores.log_softmax(dim=1)
        shares = logs.exp()
        loss = self.penalty * _dot(weights, weights) / 2 - float(logs.gather(1, self.labels[:, None]).mean())
        # Mean of p (1 - p), scaled so that uniform predictions give 1 / classes.
        curvature = float((shares * (1 - shares)).sum(dim=1).mean()) / (shares.shape[1] - 1)
        # From here on shares less the truth: the gradient of the cross-entropy by the scores.
        shares[torch.arange(len(shares)), self.labels] -= 1
        residuals = shares / len(shares)
        slopes = residuals.to(weights.dtype).T @ self.features + self.penalty * weights
        gradient = torch.cat([slopes, residuals.sum(dim=0)[:, None].to(weights.dtype)], dim=1)
        return _Point(parameters, scores, loss, gradient, curvature)

    def along(self, point: _Point, direction: Tensor, slope: float) -> _Point:
        """Go to where the slope along a direction is at most half of what it is at the point."""
        change = self._scores(direction)
        # Scores are linear in the parameters: those at the new point cost no further pass over the features.
        length = self._length(point, direction, change, slope)
        return self.at(point.parameters + length * direction, point.scores + length * change)

    def scale(self, point: _Point) -> float:
        """The objective, or its descent from no weights at all where that is less."""
        return min(point.loss, abs(math.log(point.scores.shape[1]) - point.loss))

    def preconditioner(self, covariance: Sequence[Tensor], point: _Point) -> Preconditioner:
        return Preconditioner(covariance, max(point.curvature, 1e-10), self.penalty)

    def _scores(self, parameters: Tensor) -> Tensor:
        weights, intercept = parameters[:, :-1].contiguous(), parameters[:, -1]
        return functional.linear(self.features, weights).double() + intercept.double()

    def _length(self, point: _Point, direction: Tensor, change: Tensor, slope: float) -> float:
        """Newton's method in one variable, which needs no product with the features; bisection guards it."""
        low, high, length = 0.0, math.inf, 1.0
        own = change.gather(1, self.labels[:, None]).mean()
        linear = self.penalty * _dot(direction[:, :-1], point.parameters[:, :-1])
        square = self.penalty * _dot(direction[:, :-1], direction[:, :-1])
        for _ in range(30):
            shares = (point.scores + length * change).softmax(dim=1)
            means = (shares * change).sum(dim=1)
            here = float(means.mean() - own) + linear + length * square
            if abs(here) <= 0.5 * abs(slope):
                break
            bend = float(((shares * change.square()).sum(dim=1) - means.square()).mean()) + square
            low, high = (length, high) if here < 0 else (low, length)
            length = length - here / bend if bend > 0 else math.inf
            if math.isinf(high):
                # Nothing bounds the step from above yet: at most four times as long as the longest that is too short.
                length = min(length, 4 * low)
            elif not low < length < high:
                length = (low + high) / 2
        return length


class _History:
    """The last steps and the changes of the gradient, which say how the Hessian differs from the initial one."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=HISTORY)

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, step: Tensor, change: Tensor) -> None:
        product = _dot(step, change)
        # Curvature along the step has to be positive, or the inverse Hessian would no longer be.
        if product > 0:
            self._pairs.append((step, change, product))

    def clear(self) -> None:
        self._pairs.clear()

    def times(self, gradient: Tensor, inverse: Preconditioner) -> Tensor:
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
    """Inner product in float64: its last digits decide whether the descent has ended."""
    return float((a.double() * b.double()).sum())


# ------------------------------------------------------------------ covariance


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
        curvature: Factor of the covariance, above 0.
        penalty: What is added to the diagonal of the features, above 0.
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
