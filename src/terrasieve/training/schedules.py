"""Schedules as arrays with one value per optimiser step, and what is due at which step.

Arrays are computed once from the number of steps, so that a pool of another size, a resumed run or a
plot all read the same numbers. Everything that is stated in epochs is translated into steps once, so that a pool that
shrinks in training moves no schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from terrasieve.curation.pacing import CurationPlan

if TYPE_CHECKING:
    from terrasieve.training.spec import TrainSpec


def total_steps(samples: int, batch_size: int, epochs: float) -> int:
    """Optimiser steps that show ``epochs * samples`` samples, at least one.

    The sampler lets a batch span the end of a pass, so nothing is dropped and only the last batch of
    the run may show samples beyond the stated number.
    """
    return max(1, int(np.ceil(samples * epochs / batch_size)))


def cosine(start: float, end: float, steps: int, warmup: int = 0) -> NDArray[np.float64]:
    """Half a cosine from ``start`` to ``end`` after a linear warm-up from ``start / (warmup + 1)``.

    Args:
        start: The value right after the warm-up, the highest where the schedule falls.
        end: The value of the last step.
        steps: How many steps the run has, 1 or more.
        warmup: How many of them are linear warm-up.

    Returns:
        Array of shape ``(steps,)``.
    """
    warmup = min(warmup, steps)
    rise = start * np.arange(1, warmup + 1) / (warmup + 1)
    # The last step has the end value itself, not the one before it.
    progress = np.arange(steps - warmup) / max(1, steps - warmup - 1)
    return np.concatenate([rise, end + (start - end) * 0.5 * (1 + np.cos(np.pi * progress))])


def warm_restarts(
    start: float, end: float, epochs: NDArray[np.float64], first_epochs: float, multiplier: int
) -> NDArray[np.float64]:
    """Cosine annealing with warm restarts (Loshchilov and Hutter 2017, equation 5), by step.

    Args:
        start: The value right after a restart.
        end: The value that each cycle approaches.
        epochs: Passes done before each step, ascending, shape ``(steps,)``.
        first_epochs: Length of the first cycle in passes, T_0, above 0.
        multiplier: Each cycle is this many times longer than the one before, T_mult.

    Returns:
        Array of shape ``(steps,)``.
    """
    bounds = np.array([0.0, *restart_epochs(float(epochs[-1]) + 1e-9, first_epochs, multiplier)])
    cycle = np.searchsorted(bounds, epochs, side="right") - 1
    length = first_epochs * float(multiplier) ** cycle
    rates: NDArray[np.float64] = end + (start - end) * 0.5 * (1 + np.cos(np.pi * (epochs - bounds[cycle]) / length))
    return rates


def restart_epochs(epochs: float, first_epochs: float, multiplier: int) -> list[float]:
    """Epochs at which a warm-restart schedule restarts: the ones up to ``epochs`` and the next."""
    bounds = [first_epochs]
    length = first_epochs
    while bounds[-1] <= epochs:
        length *= multiplier
        bounds.append(bounds[-1] + length)
    return bounds


def off_boundary_warning(epochs: float, first_epochs: float, multiplier: int) -> str | None:
    """Say how a warm-restart run ends un-annealed, or None where its length is a restart boundary."""
    bounds = restart_epochs(epochs, first_epochs, multiplier)
    if any(np.isclose(epochs, bound) for bound in bounds):
        return None
    before = bounds[-2] if len(bounds) > 1 else 0.0
    done = (epochs - before) / (bounds[-1] - before)
    below = f"{before:g} or " if before else ""
    return (
        f"{epochs:g} epochs end {done:.0%} through a warm-restart cycle, with the learning rate not annealed. "
        f"Restarts fall at epoch {below}{bounds[-1]:g}: set train.epochs to one of these."
    )


# -------------------------------------------------------------------- timeline


@dataclass(frozen=True)
class Timeline:
    """The steps of a run: how many there are, the passes done at each, and what is due when.

    Attributes:
        epochs: Passes over the pool of the moment that are done before each step, and at the end; ``(steps + 1,)``.
        rounds: Steps before which the pool is drawn anew.
    """

    epochs: NDArray[np.float64]
    rounds: frozenset[int]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return len(self.epochs) - 1

    @property
    def first_use(self) -> int:
        """Steps after which what was learnt is first used: by the first round that is not the start, or at the end."""
        return min((step for step in self.rounds if step > 0), default=self.steps)

    def nearest_step(self, epoch: float) -> int:
        """The step before which the number of passes done is nearest to this one."""
        return int(np.abs(self.epochs - epoch).argmin())

    def evaluations(self, spec: TrainSpec) -> frozenset[int]:
        """The steps before which the online probe runs, and the end of the run."""
        if spec.evaluate_steps is None:
            return self.due(spec.evaluate_every)
        return frozenset(range(spec.evaluate_steps, self.steps, spec.evaluate_steps)) | {self.steps}

    def due(self, every: float | None) -> frozenset[int]:
        """The steps nearest to each multiple of so many passes, and always the last; null is the last alone."""
        if every is None:
            return frozenset((self.steps,))
        # A step is due if a multiple lies nearer to it than to the steps beside it.
        between = (self.epochs[1:] + self.epochs[:-1]) / 2
        passed = np.floor(np.concatenate([between, [self.epochs[-1]]]) / every)
        return frozenset((np.flatnonzero(np.diff(passed) > 0) + 1).tolist()) | {self.steps}


def make_timeline(samples: int, spec: TrainSpec, plan: CurationPlan | None) -> Timeline:
    """The timeline of a run.

    Args:
        samples: How many samples may be trained on.
        spec: Settings of the run, of which batch size and length count here.
        plan: When the pool changes; None where it never does.
    """
    if plan is None:
        steps = spec.steps or total_steps(samples, spec.batch_size, spec.epochs)
        return Timeline(np.arange(steps + 1, dtype=np.float64) * (spec.batch_size / samples), frozenset())
    steps = spec.steps or plan.total_steps(samples, spec.batch_size, spec.epochs)
    rounds = plan.rounds(samples, spec.batch_size, steps)
    return Timeline(plan.epochs(samples, spec.batch_size, steps), frozenset(rounds.tolist()))
