"""Logistic regression, of classes or of labels: the minimum of scikit-learn's objective, by preconditioned L-BFGS.

The features are read twice in each iteration, once along a direction and once for a gradient; all else is small. So
what counts is how few such iterations are needed. Frozen features are correlated so strongly that the covariance saves
most of them as a preconditioner, and that most of the rest run along a few hundred axes instead of all features.
Labels that do not exclude each other are fitted in the same iterations: each has its own minimum, steps and end, and
all of them share the products with the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from terrasieve.probes.linear.losses import ClassEntropy, LabelEntropy, Loss
from terrasieve.probes.linear.preconditioner import Preconditioner, covariance_blocks, principal_axes

TOLERANCE = 3e-7
"""What one more step may promise at the end, as a share of the objective and of its descent from no weights at all."""

HISTORY = 10
"""Steps that L-BFGS remembers."""

AXES = 512
"""Axes that the descent begins along, where there are more than twice as many features."""


class PreparedFeatures(NamedTuple):
    """Samples, and what every fit to them shares, whatever its C.

    Attributes:
        features: Centred, float32, shape ``(n, features)``.
        loss: What their scores are fitted to.
        covariance: Of the features, as :func:`covariance_blocks` gives it.
        axes: Orthonormal directions that hold most of the variance, shape ``(features, axes)``; None where there are so
            few features that nothing would be gained.
        along: The features along the axes and their covariance; None where there are no axes.
    """

    features: Tensor
    loss: Loss
    covariance: tuple[Tensor, ...]
    axes: Tensor | None
    along: tuple[Tensor, tuple[Tensor, ...]] | None


class Fit(NamedTuple):
    """Where the descent ended.

    Attributes:
        weights: Shape ``(features, columns)``, a column for each class or label.
        intercept: Shape ``(columns,)``.
        iterations: Steps that were made with all features.
        converged: Whether :data:`TOLERANCE` was reached before the iterations ran out, of each part of the loss: one
            for all classes, or one for each label; shape ``(parts,)``.
    """

    weights: Tensor
    intercept: Tensor
    iterations: int
    converged: Tensor


def prepare_features(features: Tensor, labels: Tensor) -> PreparedFeatures:
    """Measure what every fit shares: covariance and leading axes.

    Args:
        features: Centred features, float32, shape ``(n, features)``.
        labels: Class codes from 0, int64, shape ``(n,)``; every class occurs. Or labels that do not exclude each other,
            booleans of shape ``(n, labels)``; each holds of some samples and not of others.
    """
    loss = ClassEntropy(labels) if labels.ndim == 1 else LabelEntropy(labels)
    covariance = covariance_blocks(features)
    if features.shape[1] <= 2 * AXES:
        return PreparedFeatures(features, loss, covariance, None, None)
    axes = principal_axes(covariance, AXES)
    projected = features @ axes
    return PreparedFeatures(features, loss, covariance, axes, (projected, covariance_blocks(projected)))


def minimise(prepared: PreparedFeatures, c: float, max_iter: int, start: tuple[Tensor, Tensor] | None = None) -> Fit:
    """Weights and intercept that minimise C times the summed cross-entropy plus half the squared norm of the weights.

    L-BFGS (Nocedal and Wright 2006, algorithm 7.4) whose initial inverse Hessian is that of the penalty plus the
    covariance of the features times the mean curvature p (1 - p) of the predictions. With uniform predictions this is
    the objective's Hessian itself (Böhning 1992, section 2); it is taken anew whenever the mean curvature has halved or
    doubled. Steps end where the slope along the direction has fallen to half. Where there are axes, the descent
    first changes the weights along them alone, and then in all directions.

    Products with the features are float32, scores and losses float64. It ends when half the squared Newton decrement,
    with L-BFGS's Hessian, is below :data:`TOLERANCE`, or when float32 gives no descent any more; of labels, each for
    itself.

    Args:
        prepared: Samples with their covariance, from :func:`prepare_features`.
        c: Inverse strength of the penalty.
        max_iter: Most iterations along the axes, and again with all features.
        start: Weights ``(features, columns)`` and intercept ``(columns,)`` to begin with; where None, weights of zero
            and the intercept of the loss.
    """
    features, loss = prepared.features, prepared.loss
    problem = _Problem(features, loss, 1 / (c * len(features)))
    parameters = features.new_zeros(loss.columns, features.shape[1] + 1)
    parameters[:, -1] = loss.intercept
    if start is not None:
        parameters = torch.cat([start[0].T, start[1][:, None]], dim=1)
    point = problem.at(parameters)
    if prepared.axes is not None and prepared.along is not None:
        point = problem.at(point.parameters + _change_along(prepared.axes, *prepared.along, problem, point, max_iter))
    point, iterations, converged = _descend(problem, prepared.covariance, point, max_iter)
    weights, intercept = point.parameters[:, :-1], point.parameters[:, -1]
    return Fit(weights.T.contiguous(), intercept.clone(), iterations, converged.flatten())


def _change_along(
    axes: Tensor, projected: Tensor, covariance: Sequence[Tensor], problem: _Problem, point: _Point, max_iter: int
) -> Tensor:
    """Change of the parameters that is best if the weights change along the axes only."""
    coarse = _Problem(projected, problem.loss, problem.penalty)
    start = torch.cat([point.parameters[:, :-1] @ axes, point.parameters[:, -1:]], dim=1)
    # With the scores of all weights: those across the axes stay what they are.
    end, _, _ = _descend(coarse, covariance, coarse.at(start, point.scores), max_iter)
    change = end.parameters - start
    return torch.cat([change[:, :-1] @ axes.T, change[:, -1:]], dim=1)


def _descend(
    problem: _Problem, covariance: Sequence[Tensor], point: _Point, max_iter: int
) -> tuple[_Point, int, Tensor]:
    """Where each part ends, the iterations of the longest, and which parts converged, shape ``(parts, 1)``."""
    inverse, history = Preconditioner(covariance, problem.penalty, point.curvature), _History(problem.loss)
    running = torch.ones_like(point.value, dtype=torch.bool)
    converged = ~running
    for iteration in range(max_iter):
        ratio = point.curvature / inverse.curvature
        if (running & ((ratio < 0.5) | (ratio > 2))).any():
            inverse.measure(point.curvature)
        direction = torch.where(running, -history.times(point.gradient, inverse), 0)
        slope = problem.loss.dot(direction, point.gradient)
        reached = running & (-slope / 2 <= TOLERANCE * problem.scale(point))
        converged, running = converged | reached, running & ~reached
        if not running.any():
            return point, iteration, converged
        new = problem.along(point, torch.where(running, direction, 0), torch.where(running, slope, 0))
        better = running & (new.value < point.value)
        # Where float32 gives no descent, what was remembered of the curvature may be wrong: once more without it.
        ended = running & ~better & ~history.holds()
        converged, running = converged | (ended & (-slope / 2 <= 1e-4 * point.value)), running & ~ended
        history.add(new.parameters - point.parameters, new.gradient - point.gradient, better)
        history.keep(better | ~running)
        point = new if better.all() else point.updated(new, better)
        if not running.any():
            return point, iteration, converged
    return point, max_iter, converged


class _Point(NamedTuple):
    """Parameters ``(columns, features + 1)``, the intercept last, and each part of the mean objective there."""

    parameters: Tensor
    scores: Tensor
    value: Tensor
    gradient: Tensor
    curvature: Tensor

    def updated(self, new: _Point, where: Tensor) -> _Point:
        """Some parts of another point, the others of this one."""
        return _Point(
            torch.where(where, new.parameters, self.parameters),
            torch.where(where.T, new.scores, self.scores),
            torch.where(where, new.value, self.value),
            torch.where(where, new.gradient, self.gradient),
            torch.where(where, new.curvature, self.curvature),
        )


class _Problem:
    """The objective divided by C n, which leaves the minimum where it is and makes tolerances mean the same."""

    def __init__(self, features: Tensor, loss: Loss, penalty: float) -> None:
        self.features = features
        self.loss = loss
        self.penalty = penalty

    def at(self, parameters: Tensor, scores: Tensor | None = None) -> _Point:
        scores = self._scores(parameters) if scores is None else scores
        weights = parameters[:, :-1]
        loss = self.loss.at(scores)
        value = self.penalty * self.loss.dot(weights, weights) / 2 + loss.value
        residuals = loss.residuals / len(scores)
        slopes = residuals.to(weights.dtype).T @ self.features + self.penalty * weights
        gradient = torch.cat([slopes, residuals.sum(dim=0)[:, None].to(weights.dtype)], dim=1)
        return _Point(parameters, scores, value, gradient, loss.curvature)

    def along(self, point: _Point, direction: Tensor, slope: Tensor) -> _Point:
        """Go to where the slope along a direction is at most half of what it is at the point."""
        change = self._scores(direction)
        # Scores are linear in the parameters: those at the new point cost no further pass over the features.
        length = self._length(point, direction, change, slope)
        return self.at(point.parameters + length.to(direction.dtype) * direction, point.scores + length.T * change)

    def scale(self, point: _Point) -> Tensor:
        """The objective, or its descent from no weights at all where that is less."""
        return torch.minimum(point.value, (self.loss.baseline - point.value).abs())

    def _scores(self, parameters: Tensor) -> Tensor:
        weights, intercept = parameters[:, :-1].contiguous(), parameters[:, -1]
        return functional.linear(self.features, weights).double() + intercept.double()

    def _length(self, point: _Point, direction: Tensor, change: Tensor, slope: Tensor) -> Tensor:
        """Newton's method in one variable a part, which needs no product with the features; bisection guards it."""
        low, length = torch.zeros_like(slope), torch.ones_like(slope)
        high = torch.full_like(slope, torch.inf)
        weights = direction[:, :-1]
        linear = self.penalty * self.loss.dot(weights, point.parameters[:, :-1])
        square = self.penalty * self.loss.dot(weights, weights)
        for _ in range(30):
            here, bend = self.loss.along(point.scores + length.T * change, change)
            here, bend = here + linear + length * square, bend + square
            ended = here.abs() <= 0.5 * slope.abs()
            if ended.all():
                break
            low, high = torch.where(here < 0, length, low), torch.where(here < 0, high, length)
            newton = torch.where(bend > 0, length - here / bend, torch.inf)
            between = torch.where((low < newton) & (newton < high), newton, (low + high) / 2)
            # Where nothing bounds the step from above yet: at most four times as long as the longest that is too short.
            moved = torch.where(high.isinf(), torch.minimum(newton, 4 * low), between)
            length = torch.where(ended, length, moved)
        return length


class _History:
    """The last steps and the changes of the gradient, which say how the Hessian differs from the initial one."""

    def __init__(self, loss: Loss) -> None:
        self._dot = loss.dot
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def holds(self) -> Tensor:
        """Whether anything is remembered of each part, shape ``(parts, 1)``; one False where nothing is of any."""
        known = [product > 0 for _, _, product in self._pairs]
        return torch.stack(known).any(dim=0) if known else torch.tensor(False)

    def add(self, step: Tensor, change: Tensor, better: Tensor) -> None:
        product = self._dot(step, change)
        # Curvature along the step has to be positive, or the inverse Hessian would no longer be. A product of zero
        # stands for a part of which the pair says nothing.
        product = torch.where(better & (product > 0), product, 0)
        if product.any():
            self._pairs = [*self._pairs, (step, change, product)][-HISTORY:]

    def keep(self, parts: Tensor) -> None:
        """Forget what is remembered of all other parts."""
        if not parts.all():
            kept = ((step, change, torch.where(parts, product, 0)) for step, change, product in self._pairs)
            self._pairs = [pair for pair in kept if pair[2].any()]

    def times(self, gradient: Tensor, inverse: Preconditioner) -> Tensor:
        """The inverse Hessian times a gradient, by two loops over the pairs."""
        taken = []
        for step, change, product in reversed(self._pairs):
            taken.append(_quotient(self._dot(step, gradient), product))
            gradient = gradient - taken[-1].to(gradient.dtype) * change
        result = inverse(gradient)
        for (step, change, product), share in zip(self._pairs, reversed(taken), strict=True):
            result = result + (share - _quotient(self._dot(change, result), product)).to(gradient.dtype) * step
        return result


def _quotient(dividend: Tensor, product: Tensor) -> Tensor:
    return torch.where(product > 0, dividend / product, 0)
