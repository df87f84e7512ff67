"""Live progress of a run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.text import Text

from terrasieve.console import console, progress_bar

_LABELS = (
    ("loss", "loss {:.3f}"),
    ("images_per_s", "{:.0f} img/s"),
    ("data_wait", "wait {:.0%}"),
    ("effective_rank", "rank {:.0f}"),
    ("feature_std", "std {:.2f}"),
    ("knn_accuracy", "kNN {:.3f}"),
    ("pool", "pool {:,.0f}"),
)
_SECONDS_BETWEEN_LINES = 15.0


class TrainingDisplay:
    """Shows the step, the time left and the last known value of each number.

    Args:
        total: Steps of the whole run.
        done: Steps done before this process began.
        visible: False on all but the first process.
    """

    def __init__(self, total: int, done: int, visible: bool) -> None:
        self._bar = progress_bar()
        # The numbers get a line of their own: beside the bar they would leave no room for it in 80 columns.
        self._numbers = Text(style="dim")
        self._live = Live(Group(self._bar, self._numbers), console=console, refresh_per_second=4)
        self._drawn = visible and console.is_terminal
        self._task = self._bar.add_task("pre-train", total=total, completed=done, note="")
        self._total = total
        self._lines = visible and not console.is_terminal
        self._said = time.monotonic()
        self._latest: dict[str, float] = {}

    def __enter__(self) -> TrainingDisplay:
        if self._drawn:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._live.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Clear the screen for bars of other work, and come back after it."""
        if self._drawn:
            self._live.stop()
        yield
        if self._drawn:
            self._live.start()

    def step(self, done: int) -> None:
        """One more step is done."""
        self._bar.update(self._task, completed=done)

    def show(self, done: int, metrics: Mapping[str, float]) -> None:
        """Show new numbers, keeping the last value of those not given."""
        self._latest.update(metrics)
        note = " ".join(form.format(self._latest[name]) for name, form in _LABELS if name in self._latest)
        self._bar.update(self._task, completed=done)
        self._numbers.plain = note
        if self._lines and (time.monotonic() - self._said > _SECONDS_BETWEEN_LINES or done == self._total):
            console.print(f"step {done}/{self._total} {note}", highlight=False)
            self._said = time.monotonic()
