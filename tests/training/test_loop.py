"""What a step of the loop does: accumulation, clipping, rates, online evaluation, workers, ranks, and when it stops."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig
from terrasieve.errors import CollapseError, ConfigError, NonFiniteError
from terrasieve.methods.base import StepOutput
from terrasieve.methods.byol import Byol
from terrasieve.methods.collapse import CollapseSign
from terrasieve.models.backbone import Encoder
from terrasieve.pretraining import make_job, online_probe
from terrasieve.training.checkpoints import checkpoints
from terrasieve.training.job import TrainingJob, TrainingResult
from terrasieve.training.loop import make_fabric, train

MakeConfig = Callable[..., RunConfig]
MakeJob = Callable[[RunConfig, Archive, Path], TrainingJob]
Run = Callable[[RunConfig, Archive, Path], tuple[TrainingResult, Byol]]
STEPS = 6  # of plain_config: 2 epochs of 23 samples in batches of 8
HERE = Path(__file__).parent


def _train(job: TrainingJob) -> TrainingResult:
    return train(job, make_fabric(job.spec, "cpu"))


def _final(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(checkpoints(folder / "checkpoints")[-1] / "method.safetensors"))


def _steps_on_disk(folder: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in checkpoints(folder / "checkpoints")]


@pytest.fixture
def rates() -> Iterator[list[float]]:
    """The learning rate of every step that any optimiser makes."""
    seen: list[float] = []

    def note(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        seen.append(optimiser.param_groups[0]["lr"])

    handle = register_optimizer_step_pre_hook(note)
    yield seen
    handle.remove()


# ------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_equal_one_batch(
    parts: int, archive: Archive, plain_config: MakeConfig, train_plain: Run, tmp_path: Path
) -> None:
    _, whole = train_plain(plain_config(), archive, tmp_path / "whole")
    _, split = train_plain(plain_config(f"train.accumulate={parts}"), archive, tmp_path / "split")
    torch.testing.assert_close(split.state_dict(), whole.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 4])
def test_the_teacher_moves_once_a_step(
    parts: int,
    archive: Archive,
    plain_config: MakeConfig,
    train_plain: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    progress: list[float] = []
    move = Byol.after_step

    def after_step(method: Byol, share: float) -> None:
        progress.append(share)
        move(method, share)

    monkeypatch.setattr(Byol, "after_step", after_step)
    train_plain(plain_config(f"train.accumulate={parts}"), archive, tmp_path)
    assert progress == pytest.approx(np.arange(1, STEPS + 1) / STEPS)


def test_the_gradient_of_a_whole_step_is_clipped(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path
) -> None:
    def moved(clip: str) -> float:
        config = plain_config(
            "train.epochs=0.3",
            "train.optimiser.momentum=0",
            "train.optimiser.weight_decay=0",
            "train.accumulate=4",
            f"train.clip_norm={clip}",
        )
        job = plain_job(config, archive, tmp_path / clip)
        student = [p for p in job.method.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in student]
        _train(job)
        change = torch.cat([(p.detach() - q).flatten() for p, q in zip(student, before, strict=True)])
        return float(change.norm()) / config.train.optimiser.lr

    free = moved("null")
    assert moved(str(free / 3)) == pytest.approx(free / 3, rel=1e-3)
    assert moved(str(free * 3)) == pytest.approx(free, rel=1e-3)


# ---------------------------------------------------------------------- learning rate


def test_each_step_has_the_rate_of_torchs_warm_restarts(
    archive: Archive, plain_config: MakeConfig, train_plain: Run, tmp_path: Path, rates: list[float]
) -> None:
    settings = ("train.schedule=warm-restarts", "train.schedule.first_epochs=1.25", "train.optimiser.lr_end=0.01")
    train_plain(plain_config("train.epochs=5", *settings), archive, tmp_path)
    found = list(rates)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    oracle = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=1, T_mult=2, eta_min=0.01)
    expected = []
    for step in range(len(found)):
        oracle.step(step * 8 / 23 / 1.25)  # in units of the first cycle
        expected.append(oracle.get_last_lr()[0])
    assert len(found) == 15
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("warmup", ["warmup_epochs=0.7", "warmup_steps=2"])
def test_warm_up_and_decay_reach_their_ends(
    archive: Archive, plain_config: MakeConfig, train_plain: Run, tmp_path: Path, rates: list[float], warmup: str
) -> None:
    train_plain(
        plain_config(f"train.schedule.{warmup}", "train.optimiser.lr_end=0.02"), archive, tmp_path
    )  # 2 of 6 steps
    assert rates[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
    assert rates[-1] == pytest.approx(0.02)


# -------------------------------------------------------------------- online evaluation


@pytest.mark.parametrize(("every", "calls"), [("null", 1), ("0.3478", STEPS), ("0.7", 3), ("1.4", 2), ("9", 1)])
def test_the_online_probe_runs_as_often_as_it_is_asked_to(
    every: str, calls: int, archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path
) -> None:
    seen: list[Encoder] = []

    def evaluate(encoder: Encoder) -> Mapping[str, float]:
        seen.append(encoder)
        return {"knn_accuracy": len(seen) / 10}

    job = replace(plain_job(plain_config(f"train.evaluate_every={every}"), archive, tmp_path), evaluate=evaluate)
    assert _train(job).metrics["knn_accuracy"] == calls / 10
    assert seen == [job.method.encoder] * calls


def test_student_and_teacher_are_both_probed_where_both_are_wanted(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path
) -> None:
    job = plain_job(plain_config("train.evaluate_every=0.7"), archive, tmp_path)
    seen: list[Encoder] = []

    def evaluate(encoder: Encoder) -> Mapping[str, float]:
        seen.append(encoder)
        return {"knn_accuracy": len(seen) / 10}

    metrics = _train(replace(job, evaluate=evaluate, evaluate_counterpart=evaluate)).metrics
    assert seen == [job.method.exported, job.method.target_encoder] * 3
    assert (metrics["knn_accuracy"], metrics["teacher_knn_accuracy"]) == (0.5, 0.6)
    assert "student_knn_accuracy" not in metrics
    with (tmp_path / "log.csv").open(newline="") as file:
        assert [row["teacher_knn_accuracy"] for row in csv.DictReader(file)][-1] == "0.6"


@pytest.mark.slow
def test_the_online_probe_changes_nothing(archive: Archive, small_config: MakeConfig, tmp_path: Path) -> None:
    config = small_config("train.evaluate_every=0.3478")
    probe = online_probe(config, archive, None)
    readings = []

    def evaluate(encoder: Encoder) -> Mapping[str, float]:
        readings.append(probe(encoder)["knn_accuracy"])
        return {}

    _train(make_job(config, archive, tmp_path / "alone"))
    alone = torch.get_rng_state()
    _train(make_job(config, archive, tmp_path / "probed", evaluate))
    assert len(readings) == 12
    assert torch.equal(torch.get_rng_state(), alone)
    _assert_equal(_final(tmp_path / "probed"), _final(tmp_path / "alone"))


def _assert_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert list(ours) == list(theirs)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


# -------------------------------------------------------------------- workers and ranks


@pytest.mark.slow
def test_worker_processes_change_nothing(archive: Archive, small_config: MakeConfig, tmp_path: Path) -> None:
    _train(make_job(small_config("train.epochs=2"), archive, tmp_path / "inline"))
    _train(make_job(small_config("train.epochs=2", "train.workers=2"), archive, tmp_path / "workers"))
    _assert_equal(_final(tmp_path / "workers"), _final(tmp_path / "inline"))


_TWO_RANKS = """
import os, signal, sys
from pathlib import Path
from terrasieve.processes.ranks import leave
from dataclasses import replace
from conftest import plain_config, plain_job
from lightning_fabric import Fabric
from terrasieve.archive.opening import open_archive
from terrasieve.errors import TrainingError
from terrasieve.training.loop import train

fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="32-true")
fabric.launch()
job = plain_job(plain_config("train.accumulate=2"), open_archive(sys.argv[1]), Path(sys.argv[2]))
result = train(job, fabric)
assert result.steps == 6 and result.checkpoint.is_dir()

# One process is asked to stop; both have to, at the same step, or the other would wait forever.
config = plain_config("train.evaluate_every=0.3478")
job = plain_job(config, open_archive(sys.argv[1]), Path(sys.argv[3]))
stop = lambda encoder: os.kill(os.getpid(), signal.SIGTERM) if fabric.global_rank == 1 else None
try:
    train(replace(job, evaluate=lambda encoder: stop(encoder) or {}), fabric)
except TrainingError as error:
    assert "at step 2 of 6" in str(error), error
else:
    raise AssertionError("both ranks were to stop")
leave()
"""


@pytest.mark.slow
def test_two_ranks_equal_one_process_and_stop_together(
    store: Path, archive: Archive, plain_config: MakeConfig, train_plain: Run, tmp_path: Path
) -> None:
    script = tmp_path / "two_ranks.py"
    script.write_text(_TWO_RANKS)
    command = [sys.executable, str(script), str(store), str(tmp_path / "two"), str(tmp_path / "stopped")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    train_plain(plain_config(), archive, tmp_path / "one")
    torch.testing.assert_close(_final(tmp_path / "two"), _final(tmp_path / "one"), rtol=1e-5, atol=1e-6)
    assert _steps_on_disk(tmp_path / "stopped") == [2]
    two, one = _rows(tmp_path / "two"), _rows(tmp_path / "one")
    assert len(two) == len(one) == STEPS // 2
    for name in ("loss", "cosine"):
        assert [float(row[name]) for row in two] == pytest.approx([float(row[name]) for row in one], rel=1e-4)


def test_a_batch_that_does_not_split_over_processes_and_micro_batches_is_refused(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plain_job(plain_config("train.accumulate=4"), archive, tmp_path)
    fabric = make_fabric(job.spec, "cpu")
    monkeypatch.setattr(Fabric, "world_size", property(lambda fabric: 4))
    with pytest.raises(ConfigError, match=r"batch_size 8 does not split over .* micro-batches"):
        train(job, fabric)


def test_statistics_over_processes_are_refused_where_devices_cannot_take_them(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plain_job(plain_config("train.sync_batchnorm=true"), archive, tmp_path)
    fabric = make_fabric(job.spec, "cpu")
    monkeypatch.setattr(Fabric, "world_size", property(lambda fabric: 2))
    with pytest.raises(ConfigError, match=r"sync_batchnorm is true, but 2 processes on cpu cannot"):
        train(job, fabric)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("samples", "taken"), [(None, 23), (23, 23), (7, 7), (24, 23), (90_000, 23)])
def test_samples_are_taken_up_to_the_number_asked_for(
    samples: int | None,
    taken: int,
    archive: Archive,
    plain_config: MakeConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pool = make_job(plain_config(f"samples={'null' if samples is None else samples}"), archive, tmp_path).pool
    assert len(np.unique(pool)) == len(pool) == taken
    said = "all of them are taken" in capsys.readouterr().err
    assert said == (samples is not None and samples > 23)


# --------------------------------------------------------------------------- it stops


class _FailsAt(Byol):
    """Gives a loss that is not a number, or a finite one without a finite gradient, in one forward pass."""

    fails_at = 4
    in_gradient = False

    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        output = super().compare(views)
        self.passes = getattr(self, "passes", 0) + 1
        if self.passes != self.fails_at:
            return output
        weight = next(self.encoder.parameters()).flatten()[0]
        # The derivative of the square root is infinite at 0.
        flaw = (weight * 0).sqrt() if self.in_gradient else output.loss * torch.nan
        return output._replace(loss=output.loss + flaw)


@pytest.mark.parametrize(
    ("in_gradient", "message"),
    [(False, "The loss became nan in step 3"), (True, "A weight became NaN or infinite in step 3")],
)
@pytest.mark.parametrize(("accumulate", "clip"), [(1, "null"), (2, "null"), (1, "1.0")])
def test_a_run_that_diverges_stops_and_writes_no_checkpoint(
    in_gradient: bool,
    message: str,
    accumulate: int,
    clip: str,
    archive: Archive,
    plain_config: MakeConfig,
    plain_job: MakeJob,
    tmp_path: Path,
) -> None:
    settings = (
        "train.checkpoint_minutes=1e-9",
        "train.keep_checkpoints=9",
        "train.log_every=99",
        f"train.clip_norm={clip}",
    )
    job = plain_job(plain_config(*settings, f"train.accumulate={accumulate}"), archive, tmp_path)
    job.method.__class__ = _FailsAt
    job.method.fails_at, job.method.in_gradient = 4 * accumulate, in_gradient
    with pytest.raises(NonFiniteError, match=message):
        _train(job)
    assert _steps_on_disk(tmp_path) == [0, 1, 2, 3]


class _Constant(nn.Module):
    """The same vector whatever the input, and a weight for the optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.linspace(-1, 1, 144))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vector.expand(len(pixels), -1)


def test_a_constant_encoder_is_reported_as_collapse(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path
) -> None:
    limits = (
        "train.collapse_std=0.02",
        "train.collapse_rank=2",
        "train.log_every=1",
        "train.epochs=9",
        "train.optimiser.lr=1e-6",
    )
    job = plain_job(plain_config(*limits), archive, tmp_path)
    with torch.random.fork_rng():
        method = Byol(Encoder(_Constant(), 1, 144), nn.Linear(144, 16), nn.Linear(16, 16))
    with pytest.raises(CollapseError, match="all inputs give nearly the same vector"):
        _train(replace(job, method=method))
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert 4 < len(rows) < 10, "a few batches are looked at before it is judged"


@pytest.mark.slow
def test_a_healthy_encoder_is_not_taken_for_collapsed(
    archive: Archive, small_config: MakeConfig, tmp_path: Path
) -> None:
    limits = ("train.collapse_std=0.02", "train.collapse_rank=2", "train.log_every=1", "train.epochs=3")
    assert _train(make_job(small_config(*limits), archive, tmp_path)).metrics["effective_rank"] > 2


class _Counts(Byol):
    """Gives the number of the forward pass as a metric."""

    metric_names = ("number",)
    passes = 0

    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        self.passes += 1
        return super().compare(views)._replace(metrics={"number": torch.tensor(float(self.passes))})


def test_the_log_holds_means_over_micro_batches_and_steps(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path
) -> None:
    job = plain_job(plain_config("train.accumulate=2", "train.log_every=2"), archive, tmp_path)
    job.method.__class__ = _Counts
    _train(job)
    assert [float(row["number"]) for row in _rows(tmp_path)] == [2.5, 6.5, 10.5]


class _Agrees(Byol):
    """Shows a metric that means collapse."""

    metric_names = ("agreement",)
    collapse_signs = (CollapseSign("both agree", {"agreement": (0.9, 1)}),)

    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        return super().compare(views)._replace(metrics={"agreement": torch.tensor(0.95)})


def test_a_sign_of_collapse_is_told_and_the_run_goes_on(
    archive: Archive,
    plain_config: MakeConfig,
    plain_job: MakeJob,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = plain_job(plain_config("train.log_every=1"), archive, tmp_path)
    job.method.__class__ = _Agrees
    assert _train(job).steps == STEPS
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("step 3: the method may have collapsed: both agree (agreement 0.95, in 3 readings running)") == 1
    assert said.count("may have collapsed") == 1


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_log_holds_what_the_method_measured(archive: Archive, small_config: MakeConfig, tmp_path: Path) -> None:
    result = _train(make_job(small_config("train.log_every=1", "train.accumulate=1"), archive, tmp_path))
    rows = _rows(tmp_path)
    assert len(rows) == result.steps
    for row in rows:
        assert float(row["cosine"]) == pytest.approx(1 - float(row["loss"]) / 4, abs=1e-6)
