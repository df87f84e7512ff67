"""Where the numbers of a run go: a CSV file always, TensorBoard, W&B and MLflow when asked for."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

from terrasieve.errors import ConfigError, TrainingError
from terrasieve.writing import write_text, write_whole

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
    "pool",
    "effective_clusters",
    "turnover",
    "curation_seconds",
    "seconds",
)


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
        resume_step: First step that this run will log.
        more: Columns behind :data:`COLUMNS`.
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

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step or None)
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

        known = _read_id(folder / "wandb.txt")
        self._run = wandb.init(
            project="terrasieve", name=folder.name, id=known, dir=str(folder), config=dict(config), resume="allow"
        )
        write_text(folder / "wandb.txt", self._run.id)

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
        run = mlflow.start_run(run_id=_read_id(folder / "mlflow.txt"), run_name=folder.name)
        write_text(folder / "mlflow.txt", run.info.run_id)
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
        folder: The run folder.
        names: The logs beside the CSV file.
        resume_step: First step that this run will log.
        config: The run's resolved configuration.
        more: Columns of the CSV file for the method's own metrics.

    Raises:
        ConfigError: The package behind a logger is not installed.
    """
    logs: list[MetricLog] = [CsvLog(folder / "log.csv", resume_step, more)]
    for name in names:
        try:
            logs.append(_OPTIONAL[name](folder, resume_step, config))
        except ImportError as error:
            raise ConfigError(
                f"train.loggers asks for {name}, which is not installed: pip install 'terrasieve[{name}]'."
            ) from error
    return logs
