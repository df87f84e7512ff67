"""The one rule for what a command writes: where it may stand, what it may replace, and who may write there meanwhile.

Each output is held by a lock, a file ``.<name>.lock`` beside it that says who holds it. The system itself frees the
lock when the process that holds it ends, however it ends, so that a dead one never stands in the way.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from terrasieve.errors import WriteError
from terrasieve.files.writing import hidden_name, refused_write

_LONGEST_COMPANION = ".suspicions.json"
"""The longest of the ends that the names of files beside an output have."""
_held: set[Path] = set()
"""The locks that this process holds."""


@contextmanager
def hold_file(path: Path, suffixes: Sequence[str], overwrite: bool) -> Iterator[None]:
    """Hold the place of a file that the block writes, as :func:`hold_files` does that of several."""
    with hold_files((path,), suffixes, overwrite):
        yield


@contextmanager
def hold_files(paths: Sequence[Path], suffixes: Sequence[str], overwrite: bool) -> Iterator[None]:
    """Hold the places of files that the block writes; what would refuse one of them is found before the block runs.

    A file that is there is replaced where the caller allows it, and where the same command was writing when it was
    killed or failed: running a command again finishes what it began.

    Args:
        paths: The files to be; folders on the way are made.
        suffixes: The ends of names that say what the files hold, with the dot, in lower case, such as ``.parquet``.
        overwrite: Whether files that are there may be replaced.

    Raises:
        WriteError: A name ends otherwise, a file is there and may not be replaced, another process writes it, or the
            system refuses the place.
    """
    for path in paths:
        if path.suffix.lower() not in suffixes:
            ends = " or ".join(suffixes)
            raise WriteError(f"{path} would hold something else than its name says: let it end in {ends}.")
    with ExitStack() as held:
        locks = [held.enter_context(_lock(path)) for path in paths]
        interrupted = any(lock.interrupted for lock in locks)
        for path in paths:
            if path.is_dir():
                raise WriteError(f"{path} is a folder, and a file is to be written there. Choose another name.")
            if path.exists() and not overwrite and not interrupted:
                raise WriteError(f"{path} is already there. Replace it with --overwrite, or choose another name.")
        for path, lock in zip(paths, locks, strict=True):
            with _explained(path):
                lock.sign()
        before = [_version(path) for path in paths]
        try:
            yield
        except BaseException:
            # The same command has to know that what it wrote so far is its own.
            for lock in locks:
                lock.stays = before != [_version(path) for path in paths]
            raise


@contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Hold a folder that the block writes into; what the system would refuse is found before the block runs.

    What of the folder's content may be replaced is for the block to say.

    Args:
        path: The folder to be; it is not made, but the one that it stands in is.

    Raises:
        WriteError: A file has that name, another process writes there, or the system refuses the place.
    """
    with _lock(path) as lock:
        if path.exists() and not path.is_dir():
            raise WriteError(f"{path} is a file, and a folder is to be written there. Choose another name.")
        with _explained(path):
            if path.is_dir():
                _probe(path)
            lock.sign()
        yield


@dataclass
class _Lock:
    """A lock that this process holds.

    Attributes:
        descriptor: The open file of the lock; None where an outer block of this process has signed it.
        interrupted: Whether the very same command held the lock before and was killed, or failed half-way.
        stays: Whether the file is left behind, so that the same command goes on.
    """

    descriptor: int | None
    interrupted: bool
    stays: bool = False

    def sign(self) -> None:
        """Write who holds the lock, which also proves that the system lets a file be filled there."""
        if self.descriptor is not None:
            now = datetime.now().astimezone().isoformat(" ", "seconds")
            record = {"pid": os.getpid(), "host": socket.gethostname(), "since": now, **_command()}
            content = json.dumps(record).encode()
            # Shortened afterwards: a kill in between must not lose what the killed run before had signed.
            os.pwrite(self.descriptor, content, 0)
            os.ftruncate(self.descriptor, len(content))


def _version(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _command() -> dict[str, Any]:
    return {"command": sys.argv[1:], "folder": os.getcwd()}


@contextmanager
def _lock(path: Path) -> Iterator[_Lock]:
    with _lock_file(path) as file:
        if file in _held:
            # Locks belong to processes, and a command may call another on the same output.
            yield _Lock(None, interrupted=False)
            return
        descriptor = _acquire(path, file)
        _held.add(file)
        record = _read(descriptor)
        lock = _Lock(descriptor, interrupted={name: record.get(name) for name in _command()} == _command())
        try:
            yield lock
        finally:
            _held.discard(file)
            # Removed while it is still held: whoever opened it meanwhile finds another file there, or none.
            with suppress(OSError):
                if not lock.stays:
                    file.unlink()
            os.close(descriptor)


@contextmanager
def _lock_file(path: Path) -> Iterator[Path]:
    """Where the lock of an output is; names that the system will not take are refused.

    Folders on the way are made, and removed again where nothing came to stand in them.
    """
    if "\0" in str(path):
        raise WriteError(f"{str(path)!r} holds a NUL character, which no name may. Choose another name.")
    with _explained(path):
        place = path.resolve()
        absent = [folder for folder in place.parents if not folder.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        # Looking suffices to have a name refused that is too long for what will be written beside the output.
        with suppress(FileNotFoundError):
            os.lstat(place.with_name(place.name + _LONGEST_COMPANION))
    try:
        yield hidden_name(place, "lock")
    finally:
        for folder in absent:
            with suppress(OSError):
                if not any(folder.iterdir()):
                    folder.rmdir()


def _acquire(path: Path, file: Path) -> int:
    with _explained(path):
        while True:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                # Not flock, which forked readers would go on holding after this process is killed.
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                record = _read(descriptor)
                os.close(descriptor)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise WriteError(_holder(path, record)) from error
                raise
            # Its last holder may have removed the file between the two calls.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                    return descriptor
            os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    # Links that lead to each other are a RuntimeError.
    except (OSError, RuntimeError) as error:
        raise refused_write(path, error) from error


def _read(descriptor: int) -> dict[str, Any]:
    """What the last holder signed; empty where it did not come to that."""
    try:
        record = json.JSONDecoder().raw_decode(os.pread(descriptor, 2**20, 0).decode())[0]
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _holder(path: Path, record: dict[str, Any]) -> str:
    pid, host, since = (record.get(name, "?") for name in ("pid", "host", "since"))
    return (
        f"{path} is being written by another process: {pid} on {host}, since {since}. Wait until it is done, or "
        "choose another --out."
    )


def _probe(folder: Path) -> None:
    """Write a file in a folder and remove it; permissions alone do not tell of read-only and full disks."""
    probe = hidden_name(folder / "probe", "partial")
    try:
        probe.write_bytes(b"\0")
    finally:
        probe.unlink(missing_ok=True)
