"""When the pool is drawn anew, and how large it is: numbers of samples and steps, nothing else."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from terrasieve.schema import Spec


class CurationPlan(Spec):
    """The rhythm of dynamic curation (Kerdreux et al. 2025, arXiv 2504.06962).

    The paper names the warm-up T_w, the cadence T_s and the share rho, and publishes no value: the defaults are ours.
    An *epoch* is a pass over the present pool: over the whole archive during the warm-up, over the drawn pool after it.

    Attributes:
        warmup: T_w, passes over the whole archive before the first round.
        every: T_s, passes over the pool between two rounds; null for a single round, that is static curation.
        keep: rho, the size of the pool as a share of the whole archive.
    """

    warmup: float = Field(default=1.0, ge=0)
    every: float | None = Field(default=6.0, gt=0)
    keep: float = Field(default=0.3, gt=0, le=1)

    def pool_size(self, samples: int) -> int:
        """Samples in the pool after a round over an archive of so many, at least one."""
        return max(1, round(self.keep * samples))

    def total_steps(self, samples: int, batch_size: int, epochs: float) -> int:
        """Optimiser steps of so many epochs, at least one.

        Args:
            samples: Size of the whole archive.
            batch_size: Samples of one optimiser step.
            epochs: Passes: those of the warm-up, then over the pool.
        """
        full = samples * min(epochs, self.warmup)
        pruned = self.pool_size(samples) * max(0.0, epochs - self.warmup)
        return max(1, _ceil(full / batch_size) + _ceil(pruned / batch_size))

    def rounds(self, samples: int, batch_size: int, steps: int) -> NDArray[np.int64]:
        """The steps before which a round takes place, ascending.

        Args:
            samples: Size of the whole archive.
            batch_size: Samples of one optimiser step.
            steps: Length of the run; no round takes place after its last step.
        """
        first = self._warmup_steps(samples, batch_size)
        if first >= steps:
            return np.zeros(0, dtype=np.int64)
        if self.every is None:
            return np.array([first], dtype=np.int64)
        between = max(1, _ceil(self.pool_size(samples) * self.every / batch_size))
        return np.arange(first, steps, between, dtype=np.int64)

    def epochs(self, samples: int, batch_size: int, steps: int) -> NDArray[np.float64]:
        """Passes done before each step and at the end, shape ``(steps + 1,)``."""
        first = self._warmup_steps(samples, batch_size)
        step = np.arange(steps + 1)
        full = np.minimum(step, first) * (batch_size / samples)
        return full + np.maximum(step - first, 0) * (batch_size / self.pool_size(samples))

    def _warmup_steps(self, samples: int, batch_size: int) -> int:
        return _ceil(samples * self.warmup / batch_size)


def _ceil(steps: float) -> int:
    """The next whole number, where a product such as 100 * 1.1 that is one but for its last bits stays it."""
    return math.ceil(round(steps, 9))
