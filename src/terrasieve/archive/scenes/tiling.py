"""Where the tiles of a scene lie: arithmetic on rows and columns, no pixels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Edge = Literal["drop", "overlap"]


def starts(length: int, tile: int, stride: int, edge: Edge = "drop") -> NDArray[np.int64]:
    """First rows (or columns) of the tiles along one side of a scene.

    Args:
        length: Pixels along the side.
        tile: Pixels along a tile.
        stride: Pixels from one tile to the next.
        edge: What becomes of a remainder at the far end: ``drop`` leaves it out; ``overlap`` adds one
            tile that ends where the scene ends.

    Returns:
        Ascending positions; empty where the side is shorter than a tile.
    """
    if length < tile:
        return np.empty(0, dtype=np.int64)
    regular = np.arange(0, length - tile + 1, stride, dtype=np.int64)
    last = length - tile
    if edge == "overlap" and regular[-1] != last:
        return np.append(regular, last)
    return regular


def origins(height: int, width: int, tile: int, stride: int, edge: Edge = "drop") -> NDArray[np.int64]:
    """Top-left corners of all tiles of a scene, row by row.

    Returns:
        Rows and columns, shape ``(tiles, 2)``.
    """
    rows, columns = starts(height, tile, stride, edge), starts(width, tile, stride, edge)
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, 2)
