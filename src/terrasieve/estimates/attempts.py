"""Timing work of unknown length: a few attempts that fill a given time, and steps of a run that is then ended."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from terrasieve.console import progress_shown
from terrasieve.estimates.trial_results import Pace
from terrasieve.models.backbone import Encoder

_GROWTH = 16
"""How many times more the next attempt does at most: of short ones, most is what does not depend on their length."""
_PATIENCE = 3
"""How many times the time may be taken before attempts end that tell little."""
WARM = 1
"""Steps beside the very first that are left out."""
COUNTED = 2
"""Steps that count at the very least."""


def peak_memory() -> int:
    """The most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timed(work: Callable[[], float]) -> Pace:
    """The pace of some work that gives the number of units that it did."""
    wall, processor = time.perf_counter(), time.process_time()
    units = work()
    return Pace(units, time.perf_counter() - wall, time.process_time() - processor)


class Attempts(NamedTuple):
    """A short and a long attempt at the same work.

    Attributes:
        shortest: The first that counts.
        longest: The last; the same as the first where there is one alone.
    """

    shortest: Pace
    longest: Pace

    @property
    def pace(self) -> Pace:
        """What the longest took beyond the shortest: without what each of them takes whatever its length."""
        return self.longest.beyond(self.shortest)


def attempts_at(prepare: Callable[[int], Callable[[], float]], seconds: float, first: int, most: int) -> Attempts:
    """Do some work a few times, each as long as the attempts before it say will fit.

    Args:
        prepare: Gives work of that length, ready to begin.
        seconds: About how long all attempts take together, but for one that warms up; unless it is 0 there
            are two at least, and it is exceeded a few times where what each takes besides would hide its length.
        first: Length of the first attempt, which takes what it takes.
        most: Length of the longest, at least 1.
    """
    count, spent, expected = min(first, most), 0.0, 0.0
    with progress_shown(False):
        prepare(count)()
    shortest: Pace | None = None
    while True:
        work = prepare(count)
        with progress_shown(expected > 2):
            longest = timed(work)
        spent += longest.seconds
        pace = longest if shortest is None else longest.beyond(shortest)
        fixed = max(0.0, longest.seconds - pace.each("wall") * longest.units)
        expected = max(0.0, seconds - spent - fixed)
        fitting = int(expected / max(pace.each("wall"), 1e-9))
        if seconds > 0 and (shortest is None or (spent < _PATIENCE * seconds and not _tells(longest, shortest))):
            # What an attempt takes besides its samples makes a short one look dear.
            fitting = max(fitting, 4 * count)
        fitting = min(most, _GROWTH * count, fitting)
        if fitting <= count:
            return Attempts(shortest or longest, longest)
        shortest, count = shortest or longest, fitting


def _tells(longest: Pace, shortest: Pace) -> bool:
    """Whether an attempt is so much longer that its length, and not noise, is most of the difference."""
    return longest.seconds > 2 * shortest.seconds and longest.processor > 2 * shortest.processor


class Enough(Exception):
    """Ends a run of training."""


@dataclass
class StepClock:
    """Stands where a run's online probe stands, notes the time before each step, and ends the run.

    Attributes:
        seconds: How long steps are counted; two are at least.
        device: What computes the steps, whose work is waited for.
        marks: Clock and processor before each step but the first.
    """

    seconds: float
    device: torch.device
    marks: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """Note the time; there is nothing to log.

        Raises:
            Enough: The time is over.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks.append((time.perf_counter(), time.process_time()))
        counted = self.marks[WARM:]
        if len(counted) > COUNTED and counted[-1][0] - counted[0][0] >= self.seconds:
            raise Enough
        return {}

    @property
    def pace(self) -> Pace:
        """The pace of the steps that count."""
        (begun, worked), *_, (ended, works) = self.marks[WARM:]
        return Pace(len(self.marks) - WARM - 1, ended - begun, works - worked)
