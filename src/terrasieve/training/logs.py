"""Where the numbers of a run go: a CSV file and the console always, TensorBoard, W&B and MLflow when asked for."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TextIO

from rich.console import Group
from rich.live import Live
from rich.text import Text

from terrasieve.console import console, progress_bar
from terrasieve.errors import ConfigError, TrainingError
from terrasieve.files.writing import write_text, write_whole
from terrasieve.runs import RunFolder

LoggerName = Literal["tensorboard", "wandb", "mlflow"]

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "learning_rate",
    "images_per_s",
    "data_wait",
    "feature_std",
    "effective_rank",
    "knn_accuracy",
    "knn_chance",
    "knn_samples",
    "student_knn_accuracy",
    "teacher_knn_accuracy",
    "teacher_memory",
    "pool",
    "effective_clusters",
    "turnover",
    "curation_seconds",
    "seconds",
)
"""Columns of ``log.csv``, empty where a step has no such number; those of the method follow."""


class MetricLog(Protocol):
    """Receives named numbers by step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the numbers of one step."""

    def close(self) -> None:
        """Flush and release whatever is open."""


class CsvLog:
    """``log.csv``: one row a logged step; numbers without a column of their own are left to the other logs.

    Args:
        path: The file; rows of an earlier run from ``resume_step`` on are dropped, so that a resumed run
            leaves one row a step.
        resume_step: The first step that this run will log, from 1.
        more: Names of further columns, which follow :data:`COLUMNS`.
    """

    def __init__(self, path: Path, resume_step: int, more: Sequence[str] = ()) -> None:
        self._path = path
        self._columns = (*COLUMNS, *more)
        rows = _rows_before(path, resume_step)
        with write_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = _writer(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        self._file = path.open("a", newline="", encoding="utf-8")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row.

        Raises:
            TrainingError: The disk refused it.
        """
        try:
            _writer(self._file, self._columns).writerow({"step": step, **metrics})
            self._file.flush()
        except OSError as error:
            raise TrainingError(
                f"Cannot write {self._path}: {error}. Free some space and go on with --resume."
            ) from error

    def close(self) -> None:
        """Close the file."""
        # Every row was flushed when it was logged; one that the disk refused has been reported.
        with suppress(OSError):
            self._file.close()


def _writer(file: TextIO, columns: Sequence[str]) -> csv.DictWriter[str]:
    return csv.DictWriter(file, columns, restval="", extrasaction="ignore")


def _rows_before(path: Path, step: int) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row.get("step") and int(row["step"]) < step]


class TensorBoardLog:
    """Event files under ``tensorboard/``; a resumed run hides what an interrupted one logged beyond it."""

    def __init__(self, folder: Path, resume_step: int, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(RunFolder(folder).tensorboard), purge_step=resume_step or None)
        self._writer.add_text("config", f"```\n{config}\n```", 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbLog:
    """A Weights & Biases run named after the run folder; its own environment variables apply.

    ``wandb.txt`` in the folder keeps the run's id, so that a resumed run goes on in it.
    """

    def __init__(self, folder: Path, resume_step: int, config: Mapping[str, Any]) -> None:
        import wandb

        known = _read_id(RunFolder(folder).wandb_id)
        self._run = wandb.init(
            project="terrasieve", name=folder.name, id=known, dir=str(folder), config=dict(config), resume="allow"
        )
        write_text(RunFolder(folder).wandb_id, self._run.id)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send one step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Mark the run as finished."""
        self._run.finish()


class MlflowLog:
    """An MLflow run named after the run folder, at ``MLFLOW_TRACKING_URI`` or under ``mlruns``.

    ``mlflow.txt`` in the folder keeps the run's id, so that a resumed run goes on in it.
    """

    def __init__(self, folder: Path, resume_step: int, config: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment("terrasieve")
        run = mlflow.start_run(run_id=_read_id(RunFolder(folder).mlflow_id), run_name=folder.name)
        write_text(RunFolder(folder).mlflow_id, run.info.run_id)
        mlflow.log_dict(dict(config), "config.json")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send one step."""
        self._mlflow.log_metrics(dict(metrics), step=step)

    def close(self) -> None:
        """Mark the run as finished."""
        self._mlflow.end_run()


def _read_id(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


_OPTIONAL: Mapping[str, Callable[[Path, int, Mapping[str, Any]], MetricLog]] = {
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
    "mlflow": MlflowLog,
}


def open_logs(
    folder: Path, names: Sequence[LoggerName], resume_step: int, config: Mapping[str, Any], more: Sequence[str] = ()
) -> list[MetricLog]:
    """The CSV log and each named one.

    Args:
        folder: The run folder, which the files of each log go to.
        names: The logs that are wanted beside the CSV file.
        resume_step: The first step that this run will log, from 1; what was logged from there on is dropped or hidden.
        config: The run's resolved configuration, which the other logs keep.
        more: Names of the method's own metrics, which get columns in the CSV file.

    Raises:
        ConfigError: The package behind a logger is not installed.
    """
    logs: list[MetricLog] = [CsvLog(RunFolder(folder).log, resume_step, more)]
    for name in names:
        try:
            logs.append(_OPTIONAL[name](folder, resume_step, config))
        except ImportError as error:
            raise ConfigError(
                f"train.loggers asks for {name}, which is not installed: pip install 'terrasieve[{name}]'."
            ) from error
    return logs


# -------------------------------------------------------------- on the console

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
"""Where no bar can be drawn, as in the output of a batch job."""


class TrainingDisplay:
    """Shows the step, the time left and the last known value of each number.

    Args:
        total: How many steps the whole run has.
        done: How many of them were done before this process began.
        visible: Whether anything is shown; false on all but the first process.
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
