"""Where errors end: what a user sees of them is one line that says what to do."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from rich.text import Text

from terrasieve.console import console
from terrasieve.errors import TerrasieveError
from terrasieve.processes.world import is_first

_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "Cannot allocate memory")
"""What torch and the libraries below it say, in errors of their own kinds, of memory that is used up."""
_LOST_PROCESS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Socket closed",
    "Broken pipe",
    "Timed out waiting",
    "timed out in call",
    "NCCL communicator was aborted",
    "NCCL error",
)
"""What the processes of a data-parallel run say when one of them has gone, or is silent for too long."""
_NOT_MET = (
    "client socket has timed out",
    "Timed out after",
    "failed to connect",
    "Address already in use",
    "EADDRINUSE",
)
"""What they say when they do not find each other at the beginning."""


def guarded(command: Callable[[], object]) -> None:
    """Call the program, and end the process with one line on standard error where it fails.

    The status is 1, or what the error's kind has. Of several processes that fail alike the first one speaks. The
    traceback of an error that nobody foresaw goes to a file, which the line names.

    Args:
        command: Parses the command line and does what it says.
    """
    try:
        command()
    except BrokenPipeError:
        # Whoever read the output has seen enough, as `head` has; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        known = error if isinstance(error, TerrasieveError) else TerrasieveError
        if not known.shared or is_first():
            kind, words = _said(error)
            # Processes other than the first are quiet until they have something to say that only they know.
            console.quiet = False
            console.print(Text.assemble((f"{kind}:", "bold red"), f" {words}"), highlight=False, soft_wrap=True)
        sys.exit(known.exit_code)


def _said(error: Exception) -> tuple[str, str]:
    """The kind of an error, and what it means to the user, in one line."""
    kind, words = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, TerrasieveError):
        return kind, str(error)
    if isinstance(error, MemoryError) or any(said in words for said in _NO_MEMORY):
        return "MemoryError", (
            f"There is not enough memory for this ({words or 'no more could be had'}). Work on less at once: a smaller "
            "train.batch_size or a larger train.accumulate in training, a smaller --batch-size, --size or --workers "
            "elsewhere."
        )
    if isinstance(error, RuntimeError) and any(said in words for said in _LOST_PROCESS):
        return "TrainingError", (
            "Another process of this run ended before its time, most often because it was killed or memory ran out, or "
            "was silent for longer than train.timeout_minutes; what it said stands above. Go on from the last "
            "checkpoint with --resume."
        )
    if isinstance(error, RuntimeError) and any(said in words for said in _NOT_MET):
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        return "WorldError", (
            f"The processes of this run did not meet at {where} ({words.split(' Exception raised')[0]}). See that all "
            "are started, that the first one's machine has that name, and that MASTER_PORT is free."
        )
    if isinstance(error, OSError) and error.filename is not None:
        return kind, f"{error.filename}: {error.strerror}. Mend that, or name another file."
    return kind, f"{words or 'no reason given'}. This is a fault of terrasieve; please report it with {_kept(error)}."


def _kept(error: Exception) -> str:
    """Write the traceback to a file of its own, and name that."""
    import tempfile

    text = "".join(traceback.format_exception(error))
    try:
        descriptor, name = tempfile.mkstemp(prefix="terrasieve-", suffix=".log")
        os.close(descriptor)
        Path(name).write_text(text, encoding="utf-8")
    except OSError as full:
        return f"the command that you gave (its details cannot be written: {full.strerror})"
    return f"the command that you gave and {name}"
