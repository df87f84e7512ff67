"""Array jobs: the script says what was asked for, and the jobs make what one machine makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commanding import call
from terrasieve.cli.submitting import PartTask, Resources, submit_array
from terrasieve.errors import ConfigError

Command = Callable[[str], list[Any]]


@pytest.fixture(autouse=True)
def _submitit() -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'terrasieve[slurm]'")


def test_the_script_says_what_was_asked_for_and_nothing_is_submitted(command: Command, tmp_path: Path) -> None:
    out, logs = tmp_path / "e.parquet", tmp_path / "logs"
    resources = [
        "--parts",
        12,
        "--time",
        90,
        "--partition",
        "a100",
        "--gpus",
        1,
        "--cpus",
        4,
        "--memory",
        16,
        "--nodes",
        3,
    ]
    asked = ["--slurm", *resources, "--dry-run"]
    lines = call("submit", *command("embed"), out, *asked, "--logs", logs).splitlines()
    assert lines[0] == "#!/bin/bash"
    assert {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")} >= {
        "array=0-11%3",
        "time=90",
        "partition=a100",
        "gpus-per-node=1",
        "cpus-per-task=4",
        "mem=16GB",
        "nodes=1",
        "job-name=terrasieve-embed",
        f"output={logs}/%A_%a_0_log.out",
    }
    assert list(tmp_path.iterdir()) == []


def test_the_jobs_of_an_array_make_what_one_machine_makes(command: Command, tmp_path: Path) -> None:
    one, many = tmp_path / "one" / "c.parquet", tmp_path / "many" / "c.parquet"
    call(*command("index"), one)
    task = PartTask(tuple(map(str, [*command("index"), many])), 3)
    asked = Resources(partition=None, minutes=5, gpus=0, cpus=1, memory=None, nodes=None)
    # submitit's own executor for tests does in this process what a job of the array does in its own.
    for job in submit_array(task, "terrasieve-index", tmp_path / "logs", asked, cluster="debug"):
        job.result()
    call("merge", many)
    made = {path.name: path.read_bytes() for path in many.parent.iterdir() if path.is_file()}
    assert made == {path.name: path.read_bytes() for path in one.parent.iterdir()}


def test_a_job_that_is_preempted_is_queued_again_with_its_part() -> None:
    task = PartTask(("index",), 3)
    again = task.checkpoint(2)
    assert (again.function, again.args) == (task, (2,))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("info", "land.yaml", "--slurm"), "info does not work in parts"),
        (("index", "land.yaml"), "--slurm"),
        (("index", "land.yaml", "--claim", "--slurm"), "--claim is for one worker"),
        (("index", "land.yaml", "--part=1/2", "--slurm"), "--part=1/2 is for one worker"),
    ],
)
def test_what_cannot_be_submitted_is_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        call("submit", *words)
