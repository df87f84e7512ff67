"""Hashes of files, with a progress bar, since an embedding of an archive may be large."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from terrasieve.console import track
from terrasieve.errors import ArchiveError

_BLOCK = 2**24
_SHOWN_FROM = 2**29


def sha256_of(paths: Sequence[Path]) -> dict[Path, str]:
    """SHA-256 of each file, as hexadecimal digits.

    Raises:
        ArchiveError: A file cannot be read.
    """
    hashes = {path: hashlib.sha256() for path in paths}
    total = sum(path.stat().st_size for path in paths)
    blocks = _blocks(paths)
    # Half a gigabyte takes about a second; below that a bar would only flicker.
    for path, block in track(blocks, "hash files (16 MiB)", -(-total // _BLOCK)) if total > _SHOWN_FROM else blocks:
        hashes[path].update(block)
    return {path: digest.hexdigest() for path, digest in hashes.items()}


def _blocks(paths: Sequence[Path]) -> Iterator[tuple[Path, bytes]]:
    for path in paths:
        try:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    yield path, block
        except OSError as error:
            raise ArchiveError(f"{path} cannot be read: {error}. Mend it, or move it out of the run folder.") from error
