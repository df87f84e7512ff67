"""Leases: of all workers that ask for a part, on any number of machines, one holds it at a time.

A lease is a file of a name and a number. Whoever makes that file holds the lease, until the file has not been touched
for :data:`EXPIRY` seconds or says that it was given back; then whoever makes the file of the next number does. Making
a file that must not be there is all that this asks of the place, and object stores offer it as well:
:class:`terrasieve.parts.shared_objects.LeaseObjects`.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from terrasieve.errors import RemoteError
from terrasieve.files.writing import create_exclusively, refused_write
from terrasieve.schema import parse_json

EXPIRY = 120.0
"""Seconds without a sign of life after which a worker counts as gone; network file systems show signs late."""
HEARTBEAT = 15.0
"""Seconds between two signs of life."""

_GIVEN_BACK = "given back"


@dataclass(frozen=True)
class Seen:
    """A lease file.

    Attributes:
        content: What it holds; empty in the moment in which it is made.
        age: Seconds since it was made or touched, by the clock of the place itself.
    """

    content: bytes
    age: float


class LeasePlace(Protocol):
    """Where lease files lie; the one thing to implement for another kind of store."""

    def create(self, key: str, content: bytes) -> bool:
        """Make a file that must not be there; whether this call, of all, made it."""

    def look(self, key: str) -> Seen | None:
        """A file and its age; None where there is none."""

    def touch(self, key: str) -> None:
        """Let a file be as if made now."""

    def rewrite(self, key: str, content: bytes) -> None:
        """Give a file of one's own another content."""


class LeaseFolder:
    """Lease files in a folder that all machines share.

    Args:
        folder: The folder, made where it is absent.

    Raises:
        WriteError: The system refused it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused_write(folder, error) from error

    def create(self, key: str, content: bytes) -> bool:
        """See ``LeasePlace``."""
        return create_exclusively(self._folder / key, content)

    def look(self, key: str) -> Seen | None:
        """See ``LeasePlace``."""
        try:
            # Opened, not only looked at: to open a file makes a network file system ask its server.
            with (self._folder / key).open("rb") as file:
                made, content = os.fstat(file.fileno()).st_mtime, file.read()
        except FileNotFoundError:
            return None
        # By the clock that dates the files, which can be another machine's.
        os.utime(self._clock)
        with self._clock.open("rb") as file:
            return Seen(content, os.fstat(file.fileno()).st_mtime - made)

    def touch(self, key: str) -> None:
        """See ``LeasePlace``."""
        os.utime(self._folder / key)

    def rewrite(self, key: str, content: bytes) -> None:
        """See ``LeasePlace``."""
        (self._folder / key).write_bytes(content)

    @cached_property
    def _clock(self) -> Path:
        path = self._folder / f"clock-{uuid.uuid4().hex}"
        create_exclusively(path, b"")
        return path


@dataclass
class Lease:
    """A lease that this process holds; see :class:`Leases`.

    Attributes:
        place: Where its file lies.
        name: What it is of.
        number: How many held it before.
        lost: Whether another worker took it over.
    """

    place: LeasePlace
    name: str
    number: int
    lost: bool = False
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Give signs of life while the block runs, and give the lease back where it fails."""
        thread = threading.Thread(target=self._beat, name=f"lease {self.name}", daemon=True)
        thread.start()
        try:
            try:
                yield
            finally:
                # Before the lease is given back: a sign of life that comes after would take that back.
                self._ended.set()
                thread.join()
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Let another worker take it at once."""
        with suppress(OSError, RemoteError):
            self.place.rewrite(_key(self.name, self.number), json.dumps({_GIVEN_BACK: True}).encode())

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            # A server that does not answer for a while costs the lease at worst, and never the work.
            with suppress(OSError, RemoteError):
                if self.place.look(_key(self.name, self.number + 1)) is not None:
                    self.lost = True
                    return
                self.place.touch(_key(self.name, self.number))


class Leases:
    """Claims leases at a place.

    Args:
        place: Where their files lie.
    """

    def __init__(self, place: LeasePlace) -> None:
        self._place = place

    def claim(self, name: str) -> Lease | None:
        """Take a lease that nobody holds, or whose holder is gone; None where somebody does.

        Args:
            name: What it is of, as a part of a file's name.

        Raises:
            WriteError: The system refused it.
        """
        number, last = 0, None
        while (seen := self._place.look(_key(name, number))) is not None:
            number, last = number + 1, seen
        if last is not None and last.age <= EXPIRY:
            holder = _parsed(last.content)
            if not holder.get(_GIVEN_BACK) and not _has_died_here(holder):
                return None
        mine = {"host": socket.gethostname(), "space": _space(), "pid": os.getpid(), "began": _began(os.getpid())}
        # No two claims have one content: by it a place knows its own file where an answer was lost on the way.
        mine["claim"] = uuid.uuid4().hex
        # Of all that found the same file left behind, one makes the next.
        if not self._place.create(_key(name, number), json.dumps(mine).encode()):
            return None
        return Lease(self._place, name, number)


def _key(name: str, number: int) -> str:
    return f"{name}.{number}"


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        holder = parse_json(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


# ------------------------------------------------------------ on this machine


def _has_died_here(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this very machine that is there no more, which needs no waiting."""
    if holder.get("space") is None or holder["space"] != _space() or not isinstance(holder.get("pid"), int):
        return False
    # A number is given to another process some day, which began at another time.
    return _began(holder["pid"]) != holder.get("began")


def _space() -> str | None:
    """What process numbers are unique within: one start of one machine, or a container of it; None where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _began(pid: int) -> str | None:
    """When a process of this machine began, in ticks since the machine did; None where it is none, or has ended."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # State is the first field after the name: a zombie has ended, and waits for its parent to notice.
    return None if after_name[0] in ("Z", "X") else after_name[19]
