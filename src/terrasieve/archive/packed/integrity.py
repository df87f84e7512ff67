"""That a store's files are its own, and hold what was written to them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from terrasieve.archive.quality.limits import FlawError, Problem


def digest(parts: Iterable[str]) -> str:
    """BLAKE2b of several texts, each kept apart from the next."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part.encode())
        # Between them, so that "a", "bc" and "ab", "c" differ.
        state.update(b"\0")
    return state.hexdigest()


def digest_bytes(data: bytes | memoryview) -> str:
    """BLAKE2b of a buffer: the pixels of a chunk in row-major order, or the content of a file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_file(path: Path) -> str:
    """The same of a file's content, which is never in memory as a whole.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def refuse_link(path: Path, root: Path) -> None:
    """Refuse a file of a store that is a link or lies behind one: it would show, or write to, another place.

    Args:
        path: The file, which need not be there.
        root: Folder of the store, which may be a link itself.

    Raises:
        SampleError: It is.
    """
    if os.path.realpath(path) != os.path.join(os.path.realpath(root), path.relative_to(root)):
        raise FlawError(
            Problem.UNREADABLE,
            f"{path} is a link, or lies behind one, and is not read. Put the file itself there if you trust it.",
        )


def refuse_links(root: Path) -> None:
    """Refuse a store that has a link anywhere within; every folder of it is looked at.

    Raises:
        SampleError: It has one.
    """
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(folder, name)):
                refuse_link(Path(folder, name), root)
