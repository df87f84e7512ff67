"""The one console, the progress bar for anything that takes more than two seconds, and the one stopwatch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

MANY = 500
"""Files from which on a look at each of them takes long enough to be shown."""

console = Console(stderr=True)
"""Progress and messages go to standard error, so that standard output stays for results."""


def progress_bar() -> Progress:
    """A progress display that also leaves a line where the output is not a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


@contextmanager
def progress_shown(wanted: bool) -> Iterator[None]:
    """Let the block show its progress and messages, or keep them to itself."""
    before, console.quiet = console.quiet, console.quiet or not wanted
    try:
        yield
    finally:
        console.quiet = before


_TOLD_EVERY = 0.05
"""Seconds between two moves of a bar, which is drawn ten times a second."""


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, showing how far along they are.

    Args:
        items: What to go through, in order.
        description: What is done with them, a few words before the bar.
        total: How many there are; without it the bar has no end.
    """
    with progress_bar() as bar:
        task = bar.add_task(description, total=total, note="")
        done, told = 0, time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            # Of each item it would cost more than many items do.
            if (now := time.monotonic()) - told >= _TOLD_EVERY:
                bar.update(task, completed=done)
                told = now
        bar.update(task, completed=done)


def track_many(items: Sequence[T], description: str) -> Iterable[T]:
    """The items, with their progress shown where they are many."""
    return items if len(items) < MANY else track(items, description, total=len(items))


class Stopwatch:
    """Seconds by stage, for what is recorded of a piece of work.

    Attributes:
        seconds: Time of each stage so far, by its name, in the order in which they were first entered; rounded to
            milliseconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what the block takes to the stage of that name."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)
