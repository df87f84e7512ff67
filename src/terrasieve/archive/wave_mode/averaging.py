"""The grid that a vignette is averaged to: cells of equal length on the ground, which are not whole pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from terrasieve.archive.products.annotation import Annotation
from terrasieve.archive.quality.limits import FlawError, Problem

_ROUNDING = 1e-9
"""Share of a cell by which an image may seem too short for it and yet hold it: lengths are sums of rounded numbers."""


@dataclass(frozen=True)
class CellGrid:
    """Edges of cells in an image, in pixels from its first edge: pixel ``i`` covers ``i`` to ``i + 1``.

    Attributes:
        rows: Edges along the azimuth, ascending, shape ``(height + 1,)``.
        columns: Edges along the range, ascending, shape ``(width + 1,)``; they widen and narrow with the incidence.
    """

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in cells."""
        return len(self.rows) - 1, len(self.columns) - 1

    @property
    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lines and pixels of the cells' centres, where whole numbers are centres of pixels."""
        # Edges count from the outer edge of pixel 0, annotations from its centre, half a pixel further in.
        return _middle(self.rows) - 0.5, _middle(self.columns) - 0.5

    @property
    def corners(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """First and last line, first and last pixel of the outline, counted in the same way."""
        return self.rows[[0, -1]] - 0.5, self.columns[[0, -1]] - 0.5


def plan_grid(annotation: Annotation, spacing: float, size: int | None, what: str) -> CellGrid:
    """The grid of a vignette.

    On the ground a sample of the range is ``range_spacing / sin(incidence)`` long. Across a vignette that changes by
    some seven per cent (WV1), so that cells of an even number of samples would not be of even length.

    Args:
        annotation: What the annotation of the vignette says.
        spacing: Length of a cell's sides in metres, positive.
        size: Rows and columns wanted, taken from the middle; as many as fit when None.
        what: Name of the vignette, for messages.

    Raises:
        SampleError: The vignette has not that many cells.
    """
    # The middle line stands for all: along 20 km of flight the incidence hardly changes.
    incidence = annotation.incidence.at([(annotation.lines - 1) / 2], np.arange(annotation.samples))[0]
    across = np.concatenate([[0.0], np.cumsum(annotation.range_spacing / np.sin(np.radians(incidence)))])
    along = np.arange(annotation.lines + 1, dtype=np.float64) * annotation.azimuth_spacing
    fits = int(along[-1] / spacing + _ROUNDING), int(across[-1] / spacing + _ROUNDING)
    if min(fits) < (size or 1):
        raise FlawError(
            Problem.GRID,
            f"{what} covers {along[-1] / 1e3:.2f} km by {across[-1] / 1e3:.2f} km, which is {fits[0]}x{fits[1]} cells "
            f"of {spacing:g} m, and {size or 1} are wanted; choose a smaller size.",
        )
    height, width = (size, size) if size is not None else fits
    return CellGrid(_edges(along, spacing, height), _edges(across, spacing, width))


def weights(edges: NDArray[np.float64], length: int) -> csr_array:
    """Share of each pixel in the mean of each cell, by the part of the cell that it covers.

    Args:
        edges: Edges of the cells in pixels, ascending, within 0 to ``length``, shape ``(cells + 1,)``.
        length: Number of pixels of the whole line.

    Returns:
        Sparse, shape ``(cells, length)``; rows sum to 1.
    """
    # Cut at the edges of cells and of pixels alike: each piece then lies in one cell and one pixel.
    inner = np.arange(np.ceil(edges[0]), np.floor(edges[-1]) + 1)
    cuts = np.unique(np.concatenate([edges, inner]))
    middles, widths = _middle(cuts), np.diff(cuts)
    cells = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, len(edges) - 2)
    pixels = np.clip(middles.astype(np.int64), 0, length - 1)
    shares = widths / np.diff(edges)[cells]
    return csr_array((shares, (cells, pixels)), shape=(len(edges) - 1, length))


def _edges(metres: NDArray[np.float64], spacing: float, count: int) -> NDArray[np.float64]:
    """Pixel coordinates of cells in the middle of a line whose pixel edges lie at ``metres``."""
    # Not below 0, as rounding may let the cells seem longer than the line.
    start = max(0.0, (metres[-1] - count * spacing) / 2)
    edges: NDArray[np.float64] = np.interp(start + spacing * np.arange(count + 1), metres, np.arange(len(metres)))
    return edges


def _middle(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = (edges[:-1] + edges[1:]) / 2
    return middles
