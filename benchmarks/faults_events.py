"""Faults at a chosen event of the file system: a process that is killed, stopped, or whose disk fills up."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Fault = Literal["none", "kill", "stop", "full", "read-only"]

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass
class Events:
    """Counts what a process changes below a folder, and makes it fail at one of these events.

    Counted are files opened to be written, folders made, names given and removed, and flushes to the disk. What
    compiled libraries write by themselves lies between two of these.

    Attributes:
        folder: The folder, as an absolute path.
        fault: What happens at the event; ``full`` and ``read-only`` last from there on.
        at: Number of the event, from 1.
        count: Events so far.
    """

    folder: str
    fault: Fault = "none"
    at: int = 0
    count: int = 0

    def watch(self) -> None:
        """Count from now on; a process cannot stop to."""
        flush = os.fsync

        def counted(descriptor: Any) -> None:
            self._happen("fsync")
            flush(descriptor)

        os.fsync = counted
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in _CHANGES or (event == "open" and int(arguments[2] or 0) & _WRITING)
        if writes and not isinstance(arguments[0], int) and self._inside(os.fsdecode(arguments[0])):
            self._happen(event)

    def _inside(self, path: str) -> bool:
        return os.path.abspath(path).startswith(self.folder + os.sep)

    def _happen(self, event: str) -> None:
        self.count += 1
        if self.count < self.at or self.fault == "none":
            return
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fault == "stop" and self.count == self.at:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.fault == "full" and event in {"open", "os.mkdir", "fsync"}:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif self.fault == "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: Its exit status; negative is the signal that killed it.
        said: All that it printed.
        events: How many events it counted; 0 where it was killed.
    """

    status: int
    said: str
    events: int


@dataclass(frozen=True)
class Child:
    """A process of its own that runs a command.

    Attributes:
        pid: Its number.
        log: What it prints.
        counted: Where it writes how many events it counted.
    """

    pid: int
    log: Path
    counted: Path

    @classmethod
    def start(cls, work: Callable[[], object], folder: Path, logs: Path, fault: Fault = "none", at: int = 0) -> Child:
        """Fork a process that does the work in a folder, and fails at an event there.

        Args:
            work: What it does; ``SystemExit`` gives its status.
            folder: Its working folder, below which events are counted.
            logs: A folder outside that one.
            fault: What goes wrong.
            at: Number of the event at which it does, from 1.
        """
        number = len(list(logs.iterdir()))
        log, counted = logs / f"{number:05d}.log", logs / f"{number:05d}.events"
        log.touch()
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return cls(pid, log, counted)
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        events = Events(str(folder), fault, at)
        events.watch()
        status = 0
        try:
            work()
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        except BaseException:  # what a command lets through is what this looks for
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        counted.write_text(str(events.count))
        os._exit(status)

    def wait(self) -> Ended:
        """Wait until it has ended."""
        _, status = os.waitpid(self.pid, 0)
        events = int(self.counted.read_text()) if self.counted.exists() else 0
        return Ended(os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace"), events)

    def wait_until_stopped(self) -> bool:
        """Wait until it has stopped; False where it has ended instead."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        return os.WIFSTOPPED(status)
