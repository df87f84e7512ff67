"""Look-up tables of a product: values at some lines and pixels of an image, and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrasieve.archive.readers.documents import Document


@dataclass(frozen=True)
class LookUpTable:
    """Vectors along the range, one for each of some lines.

    Attributes:
        lines: Lines that have a vector, ascending, shape ``(n,)``; they may lie outside the image.
        pixels: For each line, the ascending pixels that have a value, shape ``(m,)``; lines may differ in them.
        values: For each line, the value at each of its pixels, shape ``(m,)``.
    """

    lines: NDArray[np.float64]
    pixels: tuple[NDArray[np.float64], ...]
    values: tuple[NDArray[np.float64], ...]

    def at(self, lines: ArrayLike, pixels: ArrayLike) -> NDArray[np.float64]:
        """Values by bilinear interpolation; beyond the outermost lines and pixels, theirs.

        Args:
            lines: Lines that are asked for, shape ``(h,)``; whole numbers are centres of pixels.
            pixels: Pixels that are asked for on each of them, shape ``(w,)``.

        Returns:
            Shape ``(h, w)``.
        """
        wanted, columns = np.asarray(lines, dtype=np.float64), np.asarray(pixels, dtype=np.float64)
        rows = np.stack([np.interp(columns, *vector) for vector in zip(self.pixels, self.values, strict=True)])
        if len(rows) == 1:
            return np.repeat(rows, len(wanted), axis=0)
        # np.interp holds the outermost positions beyond the ends; the last line then is all of the one above it.
        place = np.interp(wanted, self.lines, np.arange(len(self.lines)))
        below = np.minimum(place.astype(np.int64), len(rows) - 2)
        share = (place - below)[:, None]
        values: NDArray[np.float64] = rows[below] * (1 - share) + rows[below + 1] * share
        return values


def read_vectors(document: Document, vectors: Sequence[Element], name: str) -> LookUpTable:
    """The table that a list of vectors makes.

    Args:
        document: The parsed file, for messages.
        vectors: Elements with ``line``, ``pixel`` and values each, in order of their lines.
        name: Name of the element that holds the values, such as ``sigmaNought``.

    Raises:
        SampleError: There is no vector, lines or pixels do not ascend, or values and pixels differ in number.
    """
    if not vectors:
        raise document.flaw(f"has no vector with {name}")
    lines = np.array([document.number("line", vector) for vector in vectors])
    pixels = tuple(document.numbers("pixel", vector) for vector in vectors)
    values = tuple(document.numbers(name, vector) for vector in vectors)
    if any(len(one) != len(other) or not len(one) for one, other in zip(pixels, values, strict=True)):
        raise document.flaw(f"has another number of pixels than of {name}")
    if any((np.diff(one) <= 0).any() for one in (lines, *pixels)):
        raise document.flaw(f"has lines or pixels of {name} that do not ascend")
    return LookUpTable(lines, pixels, values)
