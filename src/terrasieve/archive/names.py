"""Names of millions of samples, without an object of Python's for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_BLOCK = 65_536
"""Names that are objects of Python's at a time, on their way between numpy and Arrow."""


def names_from_arrow(parts: Iterable[pa.Array], count: int) -> NDArray[Any]:
    """Names as numpy's strings of variable width, which take 16 bytes and the text of each that is longer than that.

    Strings of fixed width would take four bytes a character of the longest of all names.

    Args:
        parts: Arrays of strings, one after the other; none of them null.
        count: How many names they hold together.

    Returns:
        Shape ``(count,)``, of ``numpy.dtypes.StringDType``.
    """
    names: NDArray[Any] = np.empty(count, dtype=np.dtypes.StringDType())
    start = 0
    for part in parts:
        names[start : start + len(part)] = part.to_numpy(zero_copy_only=False)
        start += len(part)
    return names


def name_blocks(names: NDArray[Any]) -> Iterator[list[str]]:
    """The names as Python's strings, a block at a time.

    Args:
        names: Strings of fixed or variable width, shape ``(n,)``.
    """
    return (names[start : start + _BLOCK].tolist() for start in range(0, len(names), _BLOCK))


def names_to_arrow(names: NDArray[Any]) -> pa.ChunkedArray:
    """The names as a column of strings.

    Args:
        names: Strings of fixed or variable width, shape ``(n,)``.
    """
    # By way of Python's strings, as Arrow reads those of variable width in its latest versions alone.
    return pa.chunked_array([pa.array(block, pa.string()) for block in name_blocks(names)], pa.string())


def positions_of(names: pa.ChunkedArray, among: NDArray[Any]) -> NDArray[np.int64]:
    """Where each name stands among others, -1 where it does not.

    Args:
        names: A column of n strings, or of what Arrow turns into strings.
        among: Different names, shape ``(m,)``.

    Returns:
        Shape ``(n,)``, from -1 to ``m - 1``.
    """
    found = pc.index_in(names.cast(pa.string()), value_set=names_to_arrow(among))
    positions: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return positions
