"""Scripts in processes of their own, which one begins that has imported the package: torch takes seconds."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

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
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    with tempfile.NamedTemporaryFile() as errors:
        where = Path.cwd() if folder is None else folder
        process = context.Process(target=_run, args=(script, [str(word) for word in words], where, errors.name))
        process.start()
        process.join(600)
        code = process.exitcode
        process.kill()
        return Ended(code, Path(errors.name).read_text("utf-8", "replace"))


def _run(script: str, words: list[str], folder: Path, errors: str) -> None:
    os.dup2(os.open(errors, os.O_WRONLY), 2)
    # Real scenes that lie beside the checkout are for tests that ask for them.
    os.environ.pop("TERRASIEVE_DATA", None)
    os.chdir(folder)
    sys.argv = ["-c", *words]
    exec(compile(script, "script", "exec"), {"__name__": "__main__"})
