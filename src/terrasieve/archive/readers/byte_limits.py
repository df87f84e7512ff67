"""How much memory a foreign file may ask for, in any format: judged from what it declares, before room is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from terrasieve.archive.quality.limits import FlawError, Problem

MOST_BYTES = 2**29
"""Bytes of pixels, 512 MiB, that one read may ask for, or one block of a file hold, in any format."""
MOST_TABLE_BYTES = 2**32
"""Bytes, 4 GiB, that a table of samples may take in memory: some ten million rows."""


def check_bytes(name: str, bands: int, height: int, width: int, each: float = 1) -> None:
    """Refuse to make room for more pixels than :data:`MOST_BYTES`, whatever the format.

    Args:
        name: The file, for the message.
        bands: Number of bands that are to be read.
        height: Number of rows.
        width: Number of columns.
        each: Bytes of one value.

    Raises:
        SampleError: It is more.
    """
    if bands * height * width * each > MOST_BYTES:
        raise FlawError(
            Problem.UNREADABLE,
            f"{name} asks for {height:,}x{width:,} px of {bands} band(s) at once, more than {MOST_BYTES:,} bytes. Cut "
            "it into smaller patches, or open it as a scene with a smaller tile.",
        )


def check_array_bytes(name: str, shape: Sequence[int], each: int) -> None:
    """Refuse to make room for an array, or for one chunk of it, of more than :data:`MOST_BYTES`.

    Args:
        name: The file and the array in it, for the message.
        shape: Number of values along each dimension that are read, or decoded, at once.
        each: Bytes of one value.

    Raises:
        SampleError: It is more.
    """
    if math.prod(shape) * each > MOST_BYTES:
        raise FlawError(
            Problem.UNREADABLE,
            f"{name} asks for {' x '.join(f'{length:,}' for length in shape)} values of {each} bytes at once, more "
            f"than {MOST_BYTES:,} bytes. Write it in smaller chunks, and do not trust it if it comes from elsewhere.",
        )


def check_file_bytes(path: Path) -> None:
    """Refuse a file that is read as a whole, such as a table of text, and is larger than :data:`MOST_TABLE_BYTES`.

    Args:
        path: The file; one without content on the disk, which is called sparse, counts by its length.

    Raises:
        SampleError: It is larger.
        OSError: It is absent.
    """
    size = path.stat().st_size
    if size > MOST_TABLE_BYTES:
        raise FlawError(
            Problem.UNREADABLE,
            f"{path} has {size:,} bytes and is read whole, which may be {MOST_TABLE_BYTES:,}. Write several smaller "
            "files, and do not trust it if it comes from elsewhere.",
        )
