"""A record of how far a pass over an archive is, from which an interrupted run goes on."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from terrasieve.errors import ArchiveError
from terrasieve.schema import parse_json


class Journal:
    """Lines of JSON, each appended when what it tells of is done, and each after a checksum of it.

    A line that was cut off or altered counts as not written, as does whatever follows it. The first line says what the
    run was asked to do. A journal of another request is not gone on from: it is begun anew. Use as a context manager;
    the file stays until :meth:`discard`.

    Args:
        path: The file of lines; its folder is made where it is absent.
        request: Digest of everything that the entries depend on.

    Raises:
        ArchiveError: The file cannot be written.
    """

    def __init__(self, path: Path, request: str) -> None:
        self.path = path
        self._request = request
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise ArchiveError(f"{self.path} cannot be written: {error}. Choose another --out.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def replay(self) -> Iterator[Mapping[str, Any]]:
        """The entries of the run that was interrupted, in order; to be exhausted before ``write`` is called."""
        file = self._open()
        file.seek(0)
        whole = 0
        for number, line in enumerate(file):
            entry = parse_line(line)
            if entry is None or (number == 0 and entry != {"request": self._request}):
                break
            whole += len(line)
            if number:
                yield entry
        file.truncate(whole)
        if not whole:
            self.write({"request": self._request})

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one entry.

        Raises:
            ArchiveError: The disk refused it.
        """
        file = self._open()
        try:
            file.write(encode_line(entry))
            file.flush()
        except OSError as error:
            raise ArchiveError(
                f"{self.path} cannot grow: {error}. Make room and run the same command again."
            ) from error

    def discard(self) -> None:
        """Remove the file: what it records is done, or of no use."""
        self._open().close()
        self.path.unlink(missing_ok=True)

    def _open(self) -> IO[bytes]:
        if self._file is None:
            raise RuntimeError("a journal is used as a context manager")
        return self._file


def encode_line(entry: Mapping[str, Any]) -> bytes:
    """The line of an entry: a checksum of what follows, and the entry as JSON.

    Args:
        entry: Values by name that JSON can hold.
    """
    said = json.dumps(entry, separators=(",", ":")).encode()
    return b"%s %s\n" % (_checksum(said), said)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The entry of a line, or None where the line is not as :func:`encode_line` gave it.

    Args:
        line: Up to its end of line, which it lacks where it was cut off.
    """
    checksum, _, said = line.partition(b" ")
    if not said.endswith(b"\n") or checksum != _checksum(said[:-1]):
        return None
    try:
        entry = parse_json(said)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _checksum(said: bytes) -> bytes:
    return b"%08x" % zlib.crc32(said)
