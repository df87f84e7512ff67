"""Machines that train together are one run: two of them, here two launches on one machine."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from scale import node
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.selection import read_selection
from terrasieve.config import load_config
from terrasieve.errors import StoppedError
from terrasieve.training.checkpoints import checkpoints
from terrasieve.training.job import Evaluator
from terrasieve.training.loop import make_fabric, train
from training.conftest import PLAIN, SMALL, plain_job
from training.test_rounds import ROUNDS, plain_job_with_rounds

Start = Callable[..., Any]
"""Starts a function of ``node.py`` in a process of its own, with what it is given, and returns the process."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed store of simulated pairs, so many that no step but the last ends with a pass."""
    out = tmp_path_factory.mktemp("packed") / "pairs.zarr"
    pack(open_archive("simulated:0:23"), out)
    return out


@pytest.fixture
def start() -> Iterator[Start]:
    # Each process begins where the imports are done, once for all of them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scale.node"])
    with ExitStack() as ends:

        def started(function: Callable[..., None], *arguments: Any) -> Any:
            process = context.Process(target=function, args=arguments)
            process.start()
            ends.callback(process.kill)
            return process

        yield started


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


# --------------------------------------------------------------------------- one run


@pytest.fixture(scope="module")
def one(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the whole run of one process, and its settings."""
    folder = tmp_path_factory.mktemp("one")
    config = load_config("rs-byol-1", [*PLAIN, *ROUNDS, "train.optimiser.lr=1e-4", "train.evaluate_every=1e-6"])
    (folder / "config.json").write_text(config.model_dump_json())
    job = plain_job_with_rounds(plain_job, config, open_archive(store), folder / "whole")
    train(job, make_fabric(config.train, "cpu"))
    return folder


def _begin(store: Path, one: Path, folder: Path) -> None:
    """Let one process begin the same run in another folder, and be stopped."""
    config = node.RunConfig.model_validate_json((one / "config.json").read_text())
    (folder / "config.json").write_text(config.model_dump_json())
    begun = plain_job_with_rounds(plain_job, config, open_archive(store), folder / "stopped")
    with pytest.raises(StoppedError, match="Stopped by SIGTERM at step 4 of 9"):
        train(replace(begun, evaluate=_stop_at_the_third_call()), make_fabric(config.train, "cpu"))


def _stop_at_the_third_call() -> Evaluator:
    calls = iter(range(100))

    def stop(encoder: object) -> dict[str, float]:
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    return stop


@pytest.mark.slow
def test_two_machines_of_torchrun_train_the_model_of_one_process(store: Path, one: Path, tmp_path: Path) -> None:
    _begin(store, one, tmp_path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    meeting = ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    script = [str(Path(node.__file__)), str(store), str(tmp_path)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with ExitStack() as ends:
        nodes = []
        for rank in (0, 1):
            command = [*torchrun, f"--node-rank={rank}", *meeting, *script]
            environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
            nodes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
            ends.callback(nodes[-1].kill)
        said = [one.communicate(timeout=300)[1] for one in nodes]
    assert [one.returncode for one in nodes] == [0, 0], said
    _assert_same_run(tmp_path, one, 2, ["whole", "stopped"])
    assert " ".join("".join(said).split()).count("Going on with 2 processes instead of 1: exact") == 1


@pytest.mark.slow
def test_two_machines_of_two_processes_train_the_model_of_one(
    store: Path, one: Path, tmp_path: Path, start: Start
) -> None:
    (tmp_path / "config.json").write_text((one / "config.json").read_text())
    port = free_port()
    ranks = []
    for rank in range(4):
        variables = _slurm(rank, 4, nodes=2, port=port)
        ranks.append(start(node.learn_as, variables, tmp_path / f"said-{rank}", store, tmp_path))
    for one_rank in ranks:
        one_rank.join(300)
    said = "".join((tmp_path / f"said-{rank}").read_text() for rank in range(4))
    assert [one_rank.exitcode for one_rank in ranks] == [0] * 4, said
    _assert_same_run(tmp_path, one, 4, ["whole"])


def _slurm(rank: int, size: int, nodes: int, port: str) -> Mapping[str, str]:
    """What srun tells a task."""
    return {
        "SLURM_PROCID": str(rank),
        "SLURM_NTASKS": str(size),
        "SLURM_NNODES": str(nodes),
        "SLURM_LOCALID": str(rank % (size // nodes)),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "localhost,other[1-2]",
        "MASTER_PORT": port,
    }


def _assert_same_run(folder: Path, one: Path, size: int, runs: Sequence[str]) -> None:
    found = [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(size)]
    assert [rank["size"] for rank in found] == [size] * size
    assert all("were given different settings" in rank["refused"] for rank in found)
    assert not (folder / "other").exists()
    expected = dict(load_file(_last(one / "whole") / "method.safetensors"))
    for run in (folder / name for name in runs):
        # Equal up to the order of sums in float32.
        together = dict(load_file(_last(run) / "method.safetensors"))
        torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-6)
        assert _pools(run) == _pools(one / "whole")
        ours, theirs = _losses(run), _losses(one / "whole")
        assert list(ours) == list(theirs)
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-4), "means over processes"


def _last(folder: Path) -> Path:
    return checkpoints(folder / "checkpoints")[-1]


def _pools(folder: Path) -> list[list[int]]:
    archive = open_archive("simulated:0:23")
    return [read_selection(path, archive).tolist() for path in sorted((folder / "curation").glob("round-*.parquet"))]


def _losses(folder: Path) -> dict[int, float]:
    with (folder / "log.csv").open() as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file) if row["loss"]}


# --------------------------------------------------------------------------- its end


@pytest.mark.slow
def test_a_signal_ends_all_for_requeue_and_a_death_ends_all_with_one_line(
    store: Path, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "run"
    settings = [*SMALL, "train.precision=32", "train.accumulate=1", "train.epochs=4000", "train.log_every=1"]
    words = ["pretrain", "rs-byol-3-s1s2", "--data", str(store), "--out", str(out), "--device", "cpu", "--resume"]
    words += [word for setting in settings for word in ("--set", setting)]

    def train_until(rows: int) -> list[Any]:
        port = free_port()
        variables = [_slurm(rank, 2, nodes=2, port=port) for rank in (0, 1)]
        tasks = [start(node.command_as, variables[rank], tmp_path / f"said-{rank}", words) for rank in (0, 1)]
        ends = time.monotonic() + 200
        while not (out / "log.csv").exists() or len((out / "log.csv").read_text().splitlines()) <= rows:
            assert all(task.is_alive() for task in tasks), said()
            assert time.monotonic() < ends, said()
            time.sleep(0.1)
        return tasks

    def said() -> list[list[str]]:
        return [(tmp_path / f"said-{rank}").read_text().splitlines() for rank in (0, 1)]

    tasks = train_until(2)
    os.kill(tasks[1].pid, signal.SIGUSR1)
    for task in tasks:
        task.join(100)
    assert [task.exitcode for task in tasks] == [75, 75], said()
    first, second = said()
    assert sum("RequeueError: Stopped by SIGUSR1 at step" in line for line in first) == 1
    assert second == [], "the first process speaks for both"
    step = int(_last(out).name.removeprefix("step-"))

    # As the batch system starts it again: the same command.
    tasks = train_until(step + 1)
    os.kill(tasks[1].pid, signal.SIGKILL)
    for task in tasks:
        task.join(100)
    assert [task.exitcode for task in tasks] == [1, -signal.SIGKILL], said()
    errors = [line for line in said()[0] if "Error" in line or "Traceback" in line or "what()" in line]
    assert len(errors) == 1
    assert errors[0].startswith("TrainingError: Another process of this run ended before its time")
