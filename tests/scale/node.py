"""What every process of a test of training over machines runs.

``node.py STORE FOLDER``, started by a launcher, trains, goes on with ``FOLDER/stopped``, which one process began, and
is refused. The functions do so in processes that have all imports behind them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from terrasieve.archive.opening import open_archive
from terrasieve.cli import main as terrasieve
from terrasieve.config import RunConfig
from terrasieve.errors import WorldError
from terrasieve.pretraining import pretrain  # noqa: F401  # which the command line imports when it is needed
from terrasieve.training.loop import make_fabric, train
from training.conftest import plain_job
from training.test_rounds import plain_job_with_rounds


def learn(store: Path, folder: Path) -> None:
    """Train together with the other processes, and write down what only this one can tell."""
    archive = open_archive(store)
    config = RunConfig.model_validate_json((folder / "config.json").read_text())
    fabric = make_fabric(config.train, "cpu")
    fabric.launch()
    job = plain_job_with_rounds(plain_job, config, archive, folder / "whole")
    train(job, fabric)
    if (folder / "stopped").exists():
        train(plain_job_with_rounds(plain_job, config, archive, folder / "stopped"), fabric, resume=True)
    refused = ""
    try:
        train(replace(job, folder=folder / "other", config={"seed": fabric.global_rank}), fabric)
    except WorldError as error:
        refused = str(error)
    found = {"rank": fabric.global_rank, "size": fabric.world_size, "refused": refused}
    (folder / f"found-{fabric.global_rank}.json").write_text(json.dumps(found))


def learn_as(variables: Mapping[str, str], said: Path, store: Path, folder: Path) -> None:
    """As :func:`learn`, in a process that a launcher gave these variables."""
    _become(variables, said)
    learn(store, folder)


def command_as(variables: Mapping[str, str], said: Path, words: Sequence[str]) -> None:
    """The command line, in a process that a launcher gave these variables."""
    _become(variables, said)
    sys.argv = ["terrasieve", *words]
    terrasieve()


def _become(variables: Mapping[str, str], said: Path) -> None:
    os.environ.update(variables)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())


if __name__ == "__main__":
    learn(Path(sys.argv[1]), Path(sys.argv[2]))
