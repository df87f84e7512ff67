"""Where workers share the parts of a result: what such a place has to offer, and a folder that all machines see."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from terrasieve.files.writing import clear_partials, hidden_name, write_once, write_text
from terrasieve.parts.leases import LeaseFolder, LeasePlace

MERGED = "merged.json"
"""Name of the record that stays when all is merged."""


class SharedPlace(Protocol):
    """Holds the plan of a result, each part that is done, leases, and in the end a record that all is merged.

    Plan and parts are folders of files that become visible whole, once: of several that make one, the first stays.
    """

    @property
    def name(self) -> str:
        """What errors call it: all that lies there is removed to begin anew."""

    def lease_place(self) -> LeasePlace:
        """Where its leases lie, made where it is absent.

        Raises:
            WriteError: The system refused it.
        """

    def whole(self, names: Sequence[str]) -> set[str]:
        """Those of some names under which a folder is there, whole."""

    def publish(self, name: str) -> AbstractContextManager[Path]:
        """Let the block fill a folder, which is empty, and put it there under a name when the block ends.

        Raises:
            FileExistsError: Another was first, which stays.
            WriteError: The system refused it.
        """

    def bring(self, name: str) -> Path:
        """A folder that is there, as one on this machine; it may go when two others were asked for since.

        Raises:
            PartsError: It is damaged.
        """

    def clear(self, name: str) -> None:
        """Remove what a worker that is gone left of a folder that it was to publish, where that does no harm."""

    def record(self) -> Path | None:
        """The record that all is merged, as a file on this machine; None where there is none."""

    def conclude(self, record: str) -> None:
        """Write the record that all is merged, and remove everything else."""

    def remove_parts(self) -> None:
        """Remove everything but the record."""

    def holds_result(self) -> bool:
        """Whether the result is there."""


def parts_folder(out: Path) -> Path:
    """The folder by which workers share what becomes a result."""
    return hidden_name(out, "parts")


class SharedFolder:
    """The folder ``.<result>.parts`` beside a result, which all machines see.

    Args:
        out: The result to be.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._root = out, parts_folder(out)

    @property
    def name(self) -> str:
        """See ``SharedPlace``."""
        return str(self._root)

    def lease_place(self) -> LeaseFolder:
        """See ``SharedPlace``."""
        return LeaseFolder(self._root / "leases")

    def whole(self, names: Sequence[str]) -> set[str]:
        """See ``SharedPlace``."""
        if len(names) == 1:
            return {names[0]} if (self._root / names[0]).exists() else set()
        # Of many names one listing tells, where looking for each would grow with the square of the parts.
        return set(names) & set(os.listdir(self._root)) if self._root.exists() else set()

    @contextmanager
    def publish(self, name: str) -> Iterator[Path]:
        """See ``SharedPlace``; each writer has a temporary name of its own."""
        with write_once(self._root / name, uuid.uuid4().hex) as place:
            place.mkdir()
            yield place

    def bring(self, name: str) -> Path:
        """See ``SharedPlace``: the folder itself."""
        return self._root / name

    def clear(self, name: str) -> None:
        """See ``SharedPlace``."""
        clear_partials(self._root, f"{name}.*")

    def record(self) -> Path | None:
        """See ``SharedPlace``."""
        path = self._root / MERGED
        return path if path.exists() else None

    def conclude(self, record: str) -> None:
        """See ``SharedPlace``."""
        write_text(self._root / MERGED, record)
        self.remove_parts()

    def remove_parts(self) -> None:
        """See ``SharedPlace``."""
        for path in self._root.iterdir():
            if path.name != MERGED:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def holds_result(self) -> bool:
        """See ``SharedPlace``."""
        return self._out.exists()
