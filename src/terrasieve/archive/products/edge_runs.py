"""Border noise of ground range images: what lies between an edge and the first pixel that holds a signal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Window

LIMIT = 1_000
"""Pixels from an edge within which border noise is looked for; it is some hundred wide."""

Side = Literal["left", "right", "top", "bottom"]


def near_edges(place: Window, shape: tuple[int, int]) -> Iterator[tuple[Side, Window]]:
    """The edges of an image that a part of it lies near, each with the part as far as that edge.

    Args:
        place: The part.
        shape: Lines and pixels of the image.
    """
    top, left, height, width = place
    bottom, right = top + height, left + width
    if left < LIMIT:
        yield "left", Window(top, 0, height, right)
    if right > shape[1] - LIMIT:
        yield "right", Window(top, left, height, shape[1] - left)
    if top < LIMIT:
        yield "top", Window(0, left, bottom, width)
    if bottom > shape[0] - LIMIT:
        yield "bottom", Window(top, left, shape[0] - top, width)


def beyond_edges(
    signal: NDArray[np.bool_], lines: NDArray[np.int64], pixels: NDArray[np.int64], shape: tuple[int, int], side: Side
) -> NDArray[np.bool_]:
    """Where no signal lies between a pixel and an edge, nor at the pixel, and the edge is nearer than :data:`LIMIT`.

    Args:
        signal: Where there is one, shape ``(h, w)``; it reaches that edge.
        lines: Of the image, shape ``(h,)``.
        pixels: Of the image, shape ``(w,)``.
        shape: Lines and pixels of the image.
        side: The edge.
    """
    axis = 1 if side in ("left", "right") else 0
    forwards = side in ("left", "top")
    ordered = signal if forwards else np.flip(signal, axis)
    run = ~np.logical_or.accumulate(ordered, axis=axis)
    run = run if forwards else np.flip(run, axis)
    positions = pixels if axis else lines
    near = positions < LIMIT if forwards else positions >= shape[axis] - LIMIT
    within: NDArray[np.bool_] = run & (near[None, :] if axis else near[:, None])
    return within
