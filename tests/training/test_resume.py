"""Checkpoints and resuming: whatever ends a run, going on gives what an uninterrupted run gives."""

from __future__ import annotations

import csv
import errno
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig
from terrasieve.errors import CheckpointError, ConfigError, TrainingError, WriteError
from terrasieve.models.backbone import Encoder
from terrasieve.pretraining import pretrain
from terrasieve.training.checkpoints import Snapshot, checkpoints, read_checkpoint, write_checkpoint
from terrasieve.training.job import Evaluator, TrainingResult
from terrasieve.training.loop import make_fabric

pytestmark = pytest.mark.slow

MakeConfig = Callable[..., RunConfig]
EVERY_STEP = "train.checkpoint_minutes=1e-9"
KEEP_ALL = "train.keep_checkpoints=1000"
STEPS = 12  # of small_config: 4 epochs of 23 samples in batches of 8
CLOCKS = ("seconds", "images_per_s", "data_wait")


def _pretrain(
    config: RunConfig, archive: Archive, folder: Path, resume: bool = False, evaluate: Evaluator | None = None
) -> TrainingResult:
    return pretrain(config, archive, folder, make_fabric(config.train, "cpu"), resume=resume, evaluate=evaluate)


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]


def _assert_same_run(folder: Path, expected: Path) -> None:
    ours, theirs = checkpoints(folder / "checkpoints")[-1], checkpoints(expected / "checkpoints")[-1]
    assert ours.name == theirs.name
    for name in ("method.safetensors", "optimiser.safetensors", "run.safetensors"):
        found, wanted = load_file(ours / name), load_file(theirs / name)
        assert list(found) == list(wanted)
        assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
    encoder = Path("encoder") / "encoder.safetensors"
    assert (folder / encoder).read_bytes() == (expected / encoder).read_bytes()


def _stop_at(step: int, every: int) -> Evaluator:
    """Sends SIGTERM to this process from the evaluation at a step."""
    seen = 0

    def evaluate(encoder: Encoder) -> Mapping[str, float]:
        nonlocal seen
        seen += every
        if seen == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    return evaluate


@pytest.fixture(scope="module")
def uninterrupted(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunConfig], Path]:
    """The folder of a run from beginning to end; each configuration runs once."""
    folders: dict[str, Path] = {}

    def run(config: RunConfig) -> Path:
        key = config.model_dump_json()
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("uninterrupted")
            _pretrain(config, archive, folders[key])
        return folders[key]

    return run


# --------------------------------------------------------------------------- interrupted


def test_a_killed_run_resumes_to_the_same_bits(
    store: Path,
    archive: Archive,
    small_config: MakeConfig,
    small_options: list[str],
    uninterrupted: Callable[[RunConfig], Path],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "killed"
    options = ["pretrain", *small_options, "--data", str(store), "--out", str(folder), "--device", "cpu"]
    options += ["--set", EVERY_STEP, "--set", KEEP_ALL, "--set", "train.epochs=6"]
    code = "from terrasieve.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *options], stderr=subprocess.PIPE)
    while process.poll() is None and len(checkpoints(folder / "checkpoints")) < 5:
        time.sleep(0.005)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()

    config = small_config("train.epochs=6")
    last = checkpoints(folder / "checkpoints")[-1]
    facts = json.loads((last / "state.json").read_text())
    assert 4 <= facts["step"] < 18
    assert facts["sampler"]["offset"] != 0, "the run was to be killed within a pass"
    _pretrain(config, archive, folder, resume=True)
    _assert_same_run(folder, uninterrupted(config))
    assert _rows(folder) == _rows(uninterrupted(config))
    assert [int(row["step"]) for row in _rows(folder)] == list(range(2, 19, 2))


@pytest.mark.parametrize("settings", [("train.optimiser=adamw", "train.workers=1"), ("train.schedule=warm-restarts",)])
def test_a_terminated_run_stops_at_a_step_and_resumes_to_the_same_bits(
    settings: tuple[str, ...],
    archive: Archive,
    small_config: MakeConfig,
    uninterrupted: Callable[[RunConfig], Path],
    tmp_path: Path,
) -> None:
    config = small_config(*settings, "train.evaluate_every=0.3478")  # 23 / 8 steps an epoch: every step
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError, match=r"SIGTERM at step 5 of 12.*--resume"):
        _pretrain(config, archive, tmp_path, evaluate=_stop_at(4, every=1))
    assert signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000005"]
    _pretrain(config, archive, tmp_path, resume=True)
    _assert_same_run(tmp_path, uninterrupted(config))
    # Losses of step 4, before the stop, are part of what is logged at step 6, after it.
    assert _rows(tmp_path) == _rows(uninterrupted(config))


def test_a_finished_run_resumes_to_itself(archive: Archive, small_config: MakeConfig, tmp_path: Path) -> None:
    config = small_config("train.epochs=1")
    first = _pretrain(config, archive, tmp_path, evaluate=lambda encoder: {"knn_accuracy": 0.5})
    files = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    again = _pretrain(config, archive, tmp_path, resume=True, evaluate=lambda encoder: {"knn_accuracy": 0.5})
    assert again == first
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == files


def test_what_a_kill_left_of_a_removed_checkpoint_is_removed(
    archive: Archive, small_config: MakeConfig, tmp_path: Path
) -> None:
    config = small_config()
    _pretrain(config, archive, tmp_path)
    whole = checkpoints(tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "step-00000001").mkdir()
    (tmp_path / "checkpoints" / "step-00000001" / "run.safetensors").touch()
    _pretrain(config, archive, tmp_path, resume=True)
    assert sorted((tmp_path / "checkpoints").iterdir()) == whole


def test_resuming_at_an_evaluated_step_does_not_log_it_twice(
    archive: Archive, small_config: MakeConfig, tmp_path: Path
) -> None:
    config = small_config("train.evaluate_every=0.6957")  # every second step
    with pytest.raises(TrainingError):
        _pretrain(config, archive, tmp_path, evaluate=_stop_at(4, every=2))
    _pretrain(config, archive, tmp_path, resume=True, evaluate=lambda encoder: {"knn_accuracy": 0.5})
    assert [int(row["step"]) for row in _rows(tmp_path)] == list(range(2, STEPS + 1, 2))


# ------------------------------------------------------------------------------- refused


def test_another_configuration_is_refused_by_key(archive: Archive, small_config: MakeConfig, tmp_path: Path) -> None:
    _pretrain(small_config("train.epochs=0.3"), archive, tmp_path)
    with pytest.raises(CheckpointError, match=r"train\.optimiser\.lr was 0\.2, now 0\.1"):
        _pretrain(small_config("train.epochs=0.3", "train.optimiser.lr=0.1"), archive, tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"model\.name was 'test_resnet', now 'resnet10t'"):
        _pretrain(small_config("train.epochs=0.3", "model.name=resnet10t"), archive, tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"configuration: views\.branches\.1\.size was 32, now 48\."):
        _pretrain(small_config("train.epochs=0.3", "views.branches.1.size=48"), archive, tmp_path, resume=True)


def test_a_run_that_called_its_precision_float32_goes_on(
    archive: Archive, small_config: MakeConfig, tmp_path: Path
) -> None:
    exact = ("curation.warmup=0.1", "curation.curator.precision=32", "train.epochs=0.3")
    _pretrain(small_config(*exact), archive, tmp_path)
    state = checkpoints(tmp_path / "checkpoints")[-1] / "state.json"
    facts = json.loads(state.read_text(encoding="utf-8"))
    facts["config"]["curation"]["curator"]["precision"] = "float32"
    state.write_text(json.dumps(facts), encoding="utf-8")
    _pretrain(small_config(*exact), archive, tmp_path, resume=True)


def test_other_data_are_refused(archive: Archive, small_config: MakeConfig, tmp_path: Path) -> None:
    from terrasieve.archive.opening import open_archive

    config = small_config("train.epochs=0.3")
    _pretrain(config, archive, tmp_path)
    with pytest.raises(CheckpointError, match=r"data\.fingerprint was"):
        _pretrain(config, open_archive("simulated:1:23"), tmp_path, resume=True)


def test_what_does_not_change_the_result_may_differ_on_resume(
    archive: Archive, small_config: MakeConfig, tmp_path: Path
) -> None:
    _pretrain(small_config("train.epochs=0.3"), archive, tmp_path)
    _pretrain(small_config("train.epochs=0.3", "train.log_every=7", "description=mine"), archive, tmp_path, resume=True)


def test_a_folder_in_use_is_refused_without_resume(archive: Archive, small_config: MakeConfig, tmp_path: Path) -> None:
    config = small_config("train.epochs=0.3")
    _pretrain(config, archive, tmp_path)
    before = (tmp_path / "config.yaml").read_text()
    config = small_config("train.epochs=0.3", "train.seed=5")
    with pytest.raises(ConfigError, match=r"already holds a run.*--resume"):
        _pretrain(config, archive, tmp_path)
    assert (tmp_path / "config.yaml").read_text() == before


@pytest.mark.parametrize("name", ["method.safetensors", "optimiser.safetensors", "run.safetensors", "state.json"])
def test_a_truncated_checkpoint_is_named_and_the_one_before_goes_on(
    name: str, archive: Archive, small_config: MakeConfig, tmp_path: Path
) -> None:
    config = small_config("train.epochs=0.6", EVERY_STEP)
    _pretrain(config, archive, tmp_path)
    last = checkpoints(tmp_path / "checkpoints")[-1]
    os.truncate(last / name, (last / name).stat().st_size // 2)
    with pytest.raises(CheckpointError, match=rf"{last.name} cannot be resumed.*Delete that folder"):
        _pretrain(config, archive, tmp_path, resume=True)
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    assert _pretrain(config, archive, tmp_path, resume=True).checkpoint == last


# ----------------------------------------------------------------------------- on disk


def _trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return model, optimiser


def _write(folder: Path, step: int, keep: int = 2) -> tuple[nn.Module, Path]:
    model, optimiser = _trained()
    snapshot = Snapshot({"pool": torch.arange(3)}, {"seconds": 1.0})
    return model, write_checkpoint(folder, step, model, optimiser, snapshot, keep)


def _read(path: Path) -> tuple[nn.Module, Snapshot]:
    model, optimiser = _trained()
    return model, read_checkpoint(path, model, optimiser)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, first = _write(tmp_path, 1)
    calls = 0

    def full(tensors: Mapping[str, Tensor], path: Path, _: object) -> None:
        nonlocal calls
        calls += 1
        path.write_bytes(b"half a file")
        if calls == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(WriteError, match=r"No space left on device.*Earlier checkpoints are untouched"):
        _write(tmp_path, 2)
    assert os.listdir(tmp_path) == [first.name]
    restored, snapshot = _read(first)
    assert torch.equal(restored.state_dict()["weight"], model.state_dict()["weight"])
    assert snapshot.tensors["pool"].tolist() == [0, 1, 2]


def test_a_file_size_limit_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    _, first = _write(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"Cannot write .*step-00000002.*--resume"):
            _write(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == [first.name]
    _read(first)


def test_what_a_kill_left_half_written_is_no_checkpoint_and_goes_away(tmp_path: Path) -> None:
    half = tmp_path / ".step-00000007.partial"
    half.mkdir()
    (half / "state.json").write_text("{}")
    assert checkpoints(tmp_path) == []
    _, path = _write(tmp_path, 9)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("keep", [1, 3])
def test_only_the_last_checkpoints_are_kept(keep: int, tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        _write(tmp_path, step, keep)
    assert [int(path.name.split("-")[1]) for path in checkpoints(tmp_path)] == [5, 10, 15, 20][-keep:]


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def test_a_checkpoint_cannot_execute_code(tmp_path: Path) -> None:
    _, path = _write(tmp_path, 1)
    target = tmp_path / "executed"
    torch.save({"weight": _Bomb(target)}, path / "method.safetensors")
    with pytest.raises(CheckpointError):
        _read(path)
    (path / "method.safetensors").write_bytes(pickle.dumps(_Bomb(target)))
    with pytest.raises(CheckpointError):
        _read(path)
    assert not target.exists()
    pickle.loads((path / "method.safetensors").read_bytes())
    assert target.exists(), "the file does execute code where it is unpickled"
