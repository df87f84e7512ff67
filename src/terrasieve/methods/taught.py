"""What the methods with a teacher have in common: its momentum, and how long it remembers what it began as."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from terrasieve.methods.base import MethodSpec
from terrasieve.models.teacher import MOST_MEMORY, lowered_momentum, momentum_at, teacher_memory


class TaughtSpec(MethodSpec):
    """Settings of a method whose student learns from a slow copy of itself.

    Attributes:
        momentum: Share of itself that the teacher keeps at each step, 0 to 1, at the start of the run.
        momentum_end: The same share at the end of the run, reached on a cosine; null keeps ``momentum`` constant.
        teacher_memory: Largest share of its initial weights, above 0 and at most 1, that the teacher may hold at the
            first round of curation and at the end of the run. Where ``momentum`` leaves it more it is lowered as far
            as needed, though not below 0.8; the run's ``config.yaml`` has the momentum that came out. Runs of other
            lengths, or with other rounds, then differ in momentum: state it, with null here, to compare them. Null
            takes ``momentum`` as it stands, and the run warns of a share above 0.02.
    """

    momentum: float = Field(default=0.996, ge=0, le=1)
    momentum_end: float | None = Field(default=None, ge=0, le=1)
    teacher_memory: float | None = Field(default=None, gt=0, le=1)

    def momentum_at(self, progress: float) -> float:
        """The momentum of the step that brings the run to this share of its length, 0 to 1."""
        return momentum_at(progress, self.momentum, self._end)

    def memory(self, steps: int) -> NDArray[np.float64]:
        """See :meth:`MethodSpec.memory`."""
        return teacher_memory(self.momentum, self._end, steps)

    def paced(self, steps: int, use: int) -> Self:
        """With the momentum that ``teacher_memory`` asks for; see :meth:`MethodSpec.paced`."""
        if self.teacher_memory is None:
            return self
        return self.model_copy(update={"momentum": self._lowered(steps, use, self.teacher_memory)})

    def warning(self, steps: int, use: int) -> str | None:
        """Whether the teacher is partly what it began as when it is used, and what to do about it."""
        memory, limit = self.memory(steps), self.teacher_memory or MOST_MEMORY
        if memory[use] <= limit:
            return None
        early = f"{memory[use]:.1%} at the first round of curation (step {use}) and " if use < steps else ""
        said = (
            f"Of its initial weights the teacher holds {early}{memory[-1]:.1%} at the end of the run (step {steps}), "
            "and its features are as much those of an untrained network."
        )
        lower = self._lowered(steps, use, limit)
        if self.model_copy(update={"momentum": lower}).memory(steps)[use] > limit:
            return f"{said} Train for more steps{', or let curation begin later (curation.warmup)' if early else ''}."
        return (
            f"{said} Set method.momentum={lower:g}, which leaves {limit:.0%}, or method.teacher_memory={limit:g}, "
            "which fits the momentum to the length of every run."
        )

    @property
    def _end(self) -> float:
        return self.momentum if self.momentum_end is None else self.momentum_end

    def _lowered(self, steps: int, use: int, limit: float) -> float:
        return lowered_momentum(self.momentum, self.momentum_end, steps, use, limit)
