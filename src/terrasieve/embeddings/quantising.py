"""Vectors in 8 bits: whole numbers, of which a step is as long as a scale for each dimension says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Quantise = Literal["int8"]
"""How vectors may be stored other than as float32."""
MISSING = -128
"""The number that stands for no vector; all others lie between -127 and 127."""
QUANTISED = "quantization"
"""Name under which what made the vectors says that, and how, they are of 8 bits."""
_MOST = 127
_ROWS = 1024
"""Vectors that are held in double precision at a time."""


@dataclass(frozen=True, eq=False)
class Int8Scales:
    """What turns vectors into numbers of 8 bits and back: ``round(vector / scales)``, ``number * scales``.

    Attributes:
        scales: Above 0, one a dimension, in units of the vectors; float32, shape ``(d,)``.
    """

    scales: NDArray[np.float32]

    @classmethod
    def measured(cls, blocks: Iterable[NDArray[np.float32]]) -> Self:
        """The scales by which the largest number of each dimension fits.

        Args:
            blocks: All vectors, each ``(..., d)``; NaN where there is none. At least one block.
        """
        largest: NDArray[np.float32] | None = None
        for block in blocks:
            rows = np.abs(block.reshape(-1, block.shape[-1]))
            found = np.fmax.reduce(rows, axis=0, initial=np.float32(0))
            largest = found if largest is None else np.maximum(largest, found)
        assert largest is not None, "at least one block"
        # Below the smallest normal number a scale would be rounded so far that the largest number no longer fits.
        scales = np.maximum(largest / np.float32(_MOST), np.finfo(np.float32).tiny)
        # A dimension that is always 0 stays so by any scale.
        return cls(np.where(largest > 0, scales, np.float32(1)))

    @classmethod
    def parse(cls, facts: Mapping[str, Any], dimensions: int) -> Self:
        """The scales that :meth:`facts` wrote down.

        Args:
            facts: What it wrote.
            dimensions: Length of the vectors.

        Raises:
            ValueError: They are not a positive number for each dimension.
            KeyError: There are none.
        """
        scales = np.asarray(facts["scales"], dtype=np.float32)
        if scales.shape != (dimensions,) or not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"scales are {dimensions} positive numbers, one a dimension")
        return cls(scales)

    def facts(self, error: float) -> dict[str, Any]:
        """What is written beside quantised vectors, as JSON-able values.

        Args:
            error: From :meth:`error`.
        """
        # A float32 in the shortest text that gives it back.
        scales = [float(str(one)) for one in self.scales]
        return {"method": "linear", "original_dtype": "float32", "relative_error": error, "scales": scales}

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.int8]:
        """Numbers of 8 bits, of the vectors' shape ``(..., d)``; :data:`MISSING` for NaN."""
        steps = vectors / self.scales
        np.rint(steps, out=steps)
        np.clip(steps, -_MOST, _MOST, out=steps)
        steps[np.isnan(steps)] = MISSING
        return steps.astype(np.int8)

    def decode(self, numbers: ArrayLike) -> NDArray[np.float32]:
        """The vectors that numbers of 8 bits stand for, float32 of the same shape; NaN for :data:`MISSING`."""
        whole = np.asarray(numbers, dtype=np.int8)
        vectors = whole.astype(np.float32) * self.scales
        vectors[whole == MISSING] = np.nan
        return vectors

    def error(self, blocks: Iterable[NDArray[np.float32]]) -> float:
        """How far vectors are from what is read back of them, as a share of their length (root mean square)."""
        lost = whole = 0.0
        for block in blocks:
            vectors = block.reshape(-1, block.shape[-1])
            for start in range(0, len(vectors), _ROWS):
                there = vectors[start : start + _ROWS].astype(np.float64)
                off = self.decode(self.encode(vectors[start : start + _ROWS])) - there
                lost += float(np.square(np.nan_to_num(off)).sum())
                whole += float(np.square(np.nan_to_num(there)).sum())
        return float(np.sqrt(lost / whole)) if whole else 0.0


def describe_error(error: float) -> str:
    """What a console says of quantised vectors.

    Args:
        error: From :meth:`Int8Scales.error`.
    """
    return f"int8: vectors are {error:.2%} of their length away from float32 (root mean square)"
