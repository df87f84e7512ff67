"""Text files that appear under their name only when they are whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from terrasieve.errors import ArchiveError


def write_whole(path: Path, text: str) -> Path:
    """Write a text file beside its place and rename it; its folder is made.

    Raises:
        ArchiveError: The disk refused it; a file that was there is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ArchiveError(f"Cannot write {path}: {error}. Free some space or choose another file.") from error
    return path
