"""Parts that are shared by objects on a server that speaks S3, beside a result that is to lie there.

A part is made in a folder of this machine and uploaded under a name of its writer's own. It is there when the object
``done/<part>`` is, which is put on the condition that there is none: the server decides who was first, and what a
worker uploads that was taken for gone lies where nobody looks.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field

from terrasieve.console import track_many
from terrasieve.errors import PartsError, RemoteError
from terrasieve.files.object_store import ObjectFolder, split_address
from terrasieve.parts.leases import Seen
from terrasieve.parts.shared_place import MERGED
from terrasieve.schema import Spec, parse_json

CLOCK_KEPT = 5.0
"""Seconds for which a look at the server's clock holds: ages come out lower by so much at most, and never higher."""
_CLOCK = "clock"
_SCRATCH = "terrasieve-parts-"


class LeaseObjects:
    """Leases as objects, whose ages are by the clock of the server.

    Args:
        folder: The objects of all leases.
    """

    def __init__(self, folder: ObjectFolder) -> None:
        self._folder = folder
        self._clock: tuple[datetime, float] | None = None

    def create(self, key: str, content: bytes) -> bool:
        """See ``LeasePlace``."""
        return self._folder.write(key, content, create=True)

    def look(self, key: str) -> Seen | None:
        """See ``LeasePlace``."""
        found = self._folder.dated(key)
        return None if found is None else Seen(found[0], (self._now() - found[1]).total_seconds())

    def touch(self, key: str) -> None:
        """See ``LeasePlace``: an object is as old as what was last put there."""
        content = self._folder.read(key)
        # What was removed because all is merged does not come again.
        if content is not None:
            self._folder.write(key, content)

    def rewrite(self, key: str, content: bytes) -> None:
        """See ``LeasePlace``."""
        self._folder.write(key, content)

    def _now(self) -> datetime:
        """What the server's clock said a moment ago, which dates whatever is put there."""
        if self._clock is None or time.monotonic() - self._clock[1] > CLOCK_KEPT:
            asked = time.monotonic()
            self._folder.write(_CLOCK, b"")
            found = self._folder.dated(_CLOCK)
            if found is None:
                raise RemoteError(f"{self._folder.address}/{_CLOCK} was removed. Run the same command again.")
            self._clock = found[1], asked
        return self._clock[0]


class _Whole(Spec):
    """What ``done/<name>`` says.

    Attributes:
        writer: Whose upload it is.
        files: Digest of each file, by its name in the folder.
    """

    writer: str = Field(pattern="^[0-9a-f]{32}$")
    # What no file system takes for a way out of the folder.
    files: Mapping[Annotated[str, Field(pattern=r"^[^./\\][^/\\]*(/[^./\\][^/\\]*)*$")], str]


class SharedObjects:
    """Objects beside a result, ``.<result>.parts/...``; see ``SharedPlace``.

    Args:
        out: Address of the result to be, ``s3://BUCKET/NAME``.

    Raises:
        ConfigError: The address names no object.
    """

    def __init__(self, out: str) -> None:
        folder, name = split_address(out)
        self._result = out
        self._beside, self._result_name = ObjectFolder(folder), name
        self._folder = ObjectFolder(f"{folder}/.{name}.parts")
        self._brought: list[str] = []

    @property
    def name(self) -> str:
        """See ``SharedPlace``."""
        return self._folder.address

    def lease_place(self) -> LeaseObjects:
        """See ``SharedPlace``."""
        return LeaseObjects(ObjectFolder(f"{self._folder.address}/leases"))

    def whole(self, names: Sequence[str]) -> set[str]:
        """See ``SharedPlace``."""
        return self._done.sizes().keys() & set(names)

    @contextmanager
    def publish(self, name: str) -> Iterator[Path]:
        """See ``SharedPlace``."""
        with tempfile.TemporaryDirectory(prefix=_SCRATCH) as scratch:
            made = Path(scratch) / name
            made.mkdir()
            yield made
            self._upload(name, made)

    def bring(self, name: str) -> Path:
        """See ``SharedPlace``: a copy, in the system's folder for temporary files."""
        place = self._scratch / name
        if name in self._brought:
            return place
        whole = self._whole_of(name)
        # Without a bar: merging shows one already.
        for file, digest in whole.files.items():
            path = place / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._folder.bring(_object(name, whole, file), path) or _digest(path) != digest:
                raise self._damaged(name, f"{_object(name, whole, file)} is not as it was written")
        self._brought.append(name)
        if len(self._brought) > 2:
            shutil.rmtree(self._scratch / self._brought.pop(0))
        return place

    def clear(self, name: str) -> None:
        """See ``SharedPlace``: nothing goes before all is merged, as a worker that seems gone may still go on."""

    def record(self) -> Path | None:
        """See ``SharedPlace``."""
        path = self._scratch / MERGED
        return path if self._folder.bring(MERGED, path) else None

    def conclude(self, record: str) -> None:
        """See ``SharedPlace``."""
        self._folder.write(MERGED, record.encode())
        self.remove_parts()

    def remove_parts(self) -> None:
        """See ``SharedPlace``."""
        names = [name for name in self._folder.sizes() if name != MERGED]
        self._folder.remove(track_many(names, "Removing parts"))

    def holds_result(self) -> bool:
        """See ``SharedPlace``."""
        return self._beside.holds(self._result_name) or bool(ObjectFolder(self._result).sizes())

    @cached_property
    def _done(self) -> ObjectFolder:
        return ObjectFolder(f"{self._folder.address}/done")

    @cached_property
    def _scratch(self) -> Path:
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH))
        weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        return scratch

    def _upload(self, name: str, made: Path) -> None:
        paths = {path.relative_to(made).as_posix(): path for path in sorted(made.rglob("*")) if path.is_file()}
        whole = _Whole(writer=uuid.uuid4().hex, files={file: _digest(path) for file, path in paths.items()})
        objects = {_object(name, whole, file): path for file, path in paths.items()}
        if not self._done.holds(name):
            for one in track_many(list(objects), f"Uploading {name}"):
                self._folder.write(one, objects[one])
            if self._done.write(name, whole.model_dump_json().encode(), create=True):
                return
            self._folder.remove(objects)
        raise FileExistsError(f"{self._done.address}/{name}")

    def _whole_of(self, name: str) -> _Whole:
        content = self._done.read(name)
        if content is None:
            raise self._damaged(name, f"there is no done/{name}")
        try:
            return _Whole.model_validate(parse_json(content))
        except ValueError as error:
            raise self._damaged(name, f"done/{name} cannot be read ({error})") from error

    def _damaged(self, name: str, why: str) -> PartsError:
        return PartsError(
            f"{self._folder.address} is damaged: {why}. Remove the object done/{name} there, do that part again, and "
            "merge."
        )


def _object(name: str, whole: _Whole, file: str) -> str:
    return f"files/{name}.{whole.writer}/{file}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
