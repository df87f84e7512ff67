"""How a run's steps lie in time: its length, the passes done at each step, and what is due when.

Everything that is stated in epochs is translated into steps here, once, so that a pool that shrinks in training
moves no schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrasieve.curation.plan import CurationPlan
from terrasieve.training.schedules import total_steps
from terrasieve.training.spec import TrainSpec


@dataclass(frozen=True)
class Timeline:
    """The steps of a run.

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
        samples: Samples that may be trained on.
        spec: Batch size and length.
        plan: When the pool changes; None where it never does.
    """
    if plan is None:
        steps = spec.steps or total_steps(samples, spec.batch_size, spec.epochs)
        return Timeline(np.arange(steps + 1, dtype=np.float64) * (spec.batch_size / samples), frozenset())
    steps = spec.steps or plan.total_steps(samples, spec.batch_size, spec.epochs)
    rounds = plan.rounds(samples, spec.batch_size, steps)
    return Timeline(plan.epochs(samples, spec.batch_size, steps), frozenset(rounds.tolist()))
