"""Scripts and ranks in processes of their own, which one begins that has imported the package: torch takes seconds."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

_IMPORTED = ["terrasieve.cli", "terrasieve.pretraining", "terrasieve.archive.opening", "terrasieve.curating", "apart"]
"""What the server of processes imports before it forks; libraries of threads start none by being imported."""

# Decided once, here: a folder that a test has for temporary files can have a name too long for a socket in it.
multiprocessing.util.get_temp_dir()


class Ended(NamedTuple):
    """How a script ended.

    Attributes:
        code: Its exit code, negative for the signal that ended it; None where it still ran after ten minutes.
        errors: What it wrote to standard error.
    """

    code: int | None
    errors: str


def run_apart(script: str, *words: object, folder: Path | None = None) -> Ended:
    """Run a script to its end.

    Args:
        script: Its text.
        words: What it finds in ``sys.argv``, after the first.
        folder: Where it runs; here when None.
    """
    return run_at_once(script, *words, copies=1, folder=folder)[0]


def run_at_once(script: str, *words: object, copies: int, folder: Path | None = None) -> list[Ended]:
    """Run a script several times at once, each as :func:`run_apart` does."""
    where = Path.cwd() if folder is None else folder
    with tempfile.TemporaryDirectory() as said:
        errors = [Path(said, str(copy)) for copy in range(copies)]
        processes = [_started(_run, script, [str(word) for word in words], where, str(path)) for path in errors]
        return [_ended(process, path) for process, path in zip(processes, errors, strict=True)]


def run_ranks(work: Callable[..., None], *given: Any, size: int = 2) -> None:
    """Call a function in processes that are one run, as torchrun starts them on one machine, with a thread each.

    Args:
        work: A function of a module's own.
        given: What it is given; it tells by the environment, or by what it makes of it, which process it is in.
        size: How many processes there are.

    Raises:
        AssertionError: One of them failed; it has what all wrote to standard error.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for rank in range(size):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            variables = {name: str(value) for name, value in {**numbers, "MASTER_PORT": port}.items()}
            variables |= {"MASTER_ADDR": "127.0.0.1"}
            processes.append(_started(_be_rank, variables, f"{folder}/{rank}", work, given))
        ended = [_ended(process, Path(folder, str(rank))) for rank, process in enumerate(processes)]
    assert [one.code for one in ended] == [0] * size, "\n".join(one.errors for one in ended)


def _started(work: Callable[..., None], *given: Any) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    process = context.Process(target=work, args=given)
    process.start()
    return process


def _ended(process: Any, errors: Path) -> Ended:
    process.join(600)
    code = process.exitcode
    process.kill()
    return Ended(code, errors.read_text("utf-8", "replace"))


def _be_rank(variables: Mapping[str, str], errors: str, work: Callable[..., None], given: tuple[Any, ...]) -> None:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    os.environ.update(variables)
    torch.set_num_threads(1)
    work(*given)


def _run(script: str, words: list[str], folder: Path, errors: str) -> None:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    # Real scenes that lie beside the checkout are for tests that ask for them.
    os.environ.pop("TERRASIEVE_DATA", None)
    os.chdir(folder)
    sys.argv = ["-c", *words]
    exec(compile(script, "script", "exec"), {"__name__": "__main__"})
