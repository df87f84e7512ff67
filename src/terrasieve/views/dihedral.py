"""The dihedral group of the square: the eight ways to lay an image down by flips and quarter turns.

An element is a code of three bits, which act in this order: ``FLIP_ROWS`` exchanges top and bottom, ``FLIP_COLUMNS``
left and right, and ``TRANSPOSE`` then rows and columns. Code 0 is the identity; codes below ``TRANSPOSE`` keep the
shape of images that are not square. Each code moves pixels and computes nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FLIP_ROWS, FLIP_COLUMNS, TRANSPOSE = 1, 2, 4
ORDER = 8
"""Number of elements."""


def dihedral_codes(flips: NDArray[np.bool_], turns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The elements that flip and then turn.

    Args:
        flips: Whether to exchange top and bottom, and left and right, ``(n, 2)``.
        turns: Quarter turns counter-clockwise after the flips, ``(n,)``, 0 to 3.

    Returns:
        Codes ``(n,)`` from 0 to 7.
    """
    # A quarter turn counter-clockwise reverses the columns, then transposes; half a turn reverses both.
    rows = flips[:, 0] ^ (turns >= 2)
    columns = flips[:, 1] ^ ((turns == 1) | (turns == 2))
    codes: NDArray[np.int64] = FLIP_ROWS * rows + FLIP_COLUMNS * columns + TRANSPOSE * (turns % 2)
    return codes


def apply_dihedral(images: Tensor, code: int) -> Tensor:
    """All images under one element.

    Args:
        images: Shape ``(..., height, width)``; square where the code transposes and the shape is to stay.
        code: An element of the group, from 0 to 7.

    Returns:
        A copy.
    """
    flips = [axis for bit, axis in ((FLIP_ROWS, -2), (FLIP_COLUMNS, -1)) if code & bit]
    flipped = images.flip(flips)
    return flipped.transpose(-2, -1) if code & TRANSPOSE else flipped


def apply_dihedral_each(images: Tensor, codes: NDArray[np.int64]) -> Tensor:
    """Each image under an element of its own.

    Args:
        images: Shape ``(n, channels, height, width)``; square unless no code transposes.
        codes: Elements of the group, one an image, shape ``(n,)``, from 0 to 7.

    Returns:
        A copy of the same shape and memory layout.
    """
    laid = torch.empty_like(images)
    # At most eight passes, one an element, instead of one an image.
    for code in np.unique(codes).tolist():
        chosen = torch.from_numpy(codes == code)
        laid[chosen] = apply_dihedral(images[chosen], code)
    return laid
