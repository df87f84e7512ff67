"""Where numbers go: rows by step also after resuming, and each optional logger behind its package."""

from __future__ import annotations

import csv
import resource
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from terrasieve.errors import ConfigError, TrainingError, WriteError
from terrasieve.training.logs import COLUMNS, CsvLog, LoggerName, open_logs


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _log(folder: Path, name: LoggerName, resume_step: int, steps: range) -> None:
    logs = open_logs(folder, [name], resume_step, {"train": {"epochs": 3}})
    assert len(logs) == 2
    for step in steps:
        for log in logs:
            log.log(step, {"loss": 1 / step, "learning_rate": 0.1})
    for log in logs:
        log.close()


# --------------------------------------------------------------------------------- CSV


def test_a_row_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", resume_step=1)
    log.log(5, {"loss": 0.25, "cosine": 0.5})
    (row,) = _rows(tmp_path / "log.csv")
    assert tuple(row) == COLUMNS
    assert (row["step"], row["loss"], row["knn_accuracy"]) == ("5", "0.25", "")
    log.close()
    log = CsvLog(tmp_path / "log.csv", resume_step=6, more=["cosine"])
    log.log(6, {"loss": 0.25, "cosine": 0.5})
    assert [row["cosine"] for row in _rows(tmp_path / "log.csv")] == ["", "0.5"]
    log.close()


def test_a_resumed_log_drops_what_lies_beyond_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = CsvLog(path, resume_step=1)
    for step in (2, 4, 6, 8):
        log.log(step, {"loss": 1.0})
    log.close()
    log = CsvLog(path, resume_step=6)
    log.log(6, {"loss": 2.0})
    log.close()
    assert [(row["step"], row["loss"]) for row in _rows(path)] == [("2", "1.0"), ("4", "1.0"), ("6", "2.0")]


def test_a_log_that_cannot_be_rewritten_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.csv"
    log = CsvLog(path, resume_step=1)
    log.log(2, {"loss": 1.0})
    log.close()
    before = path.read_bytes()

    def full(writer: csv.DictWriter[str], rows: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    with pytest.raises(WriteError, match="No space"):
        CsvLog(path, resume_step=9)
    assert path.read_bytes() == before


def test_a_full_disk_is_an_error_that_names_the_log(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", resume_step=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "log.csv").stat().st_size + 3, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"log\.csv.*Free some space"):
            log.log(2, {"loss": 1.0})
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# ------------------------------------------------------------------------- TensorBoard


def test_tensorboard_reads_the_curves_of_a_resumed_run(tmp_path: Path) -> None:
    _log(tmp_path, "tensorboard", 1, range(1, 7))
    _log(tmp_path, "tensorboard", 4, range(4, 9))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "learning_rate"}
    points = {point.step: point.value for point in events.Scalars("loss")}
    assert list(points) == list(range(1, 9))
    assert points[5] == pytest.approx(0.2)


# ------------------------------------------------------------------------------ extras


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_named_with_its_extra(
    name: LoggerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
    with pytest.raises(ConfigError, match=rf"train\.loggers asks for {name}.*pip install 'terrasieve\[{name}\]'"):
        open_logs(tmp_path, [name], 1, {})


class _Wandb(ModuleType):
    """Takes what the real package's ``init`` takes, and gives each new run an id."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: dict[str, dict[str, Any]] = {}

    def init(self, *, project: str, name: str, id: str | None, dir: str, config: dict[str, Any], resume: str) -> Any:
        assert (project, resume, config) == ("terrasieve", "allow", {"train": {"epochs": 3}})
        key = id or f"new-{len(self.runs)}"
        run = self.runs.setdefault(key, {"name": name, "points": {}, "finished": 0})
        return SimpleNamespace(
            id=key,
            log=lambda values, step: run["points"].update({step: values["loss"]}),
            finish=lambda: run.update(finished=run["finished"] + 1),
        )


class _Mlflow(ModuleType):
    def __init__(self) -> None:
        super().__init__("mlflow")
        self.runs: dict[str, dict[str, Any]] = {}
        self.active: dict[str, Any] | None = None

    def set_experiment(self, name: str) -> None:
        assert name == "terrasieve"

    def start_run(self, run_id: str | None = None, run_name: str | None = None) -> Any:
        key = run_id or f"new-{len(self.runs)}"
        self.active = self.runs.setdefault(key, {"name": run_name, "points": {}, "finished": 0})
        return SimpleNamespace(info=SimpleNamespace(run_id=key))

    def log_dict(self, values: dict[str, Any], file: str) -> None:
        assert (values, file) == ({"train": {"epochs": 3}}, "config.json")

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        assert self.active is not None
        self.active["points"][step] = values["loss"]

    def end_run(self) -> None:
        assert self.active is not None
        self.active["finished"] += 1
        self.active = None


@pytest.mark.parametrize("module", [_Wandb(), _Mlflow()], ids=lambda module: module.__name__)
def test_a_resumed_run_goes_on_in_its_own_tracked_run(
    module: _Wandb | _Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name: LoggerName = "wandb" if isinstance(module, _Wandb) else "mlflow"
    monkeypatch.setitem(sys.modules, name, module)
    ours, other = tmp_path / "a" / "first", tmp_path / "b" / "first"
    for folder in (ours, other):
        folder.mkdir(parents=True)
    _log(ours, name, 1, range(1, 4))
    _log(other, name, 1, range(1, 2))
    _log(ours, name, 3, range(3, 5))
    steps = [list(run["points"]) for run in module.runs.values()]
    assert steps == [[1, 2, 3, 4], [1]], "runs in folders of the same name are runs of their own"
    assert [run["finished"] for run in module.runs.values()] == [2, 1]
    assert {run["name"] for run in module.runs.values()} == {"first"}
