"""Whether the files of a sample's sensors cover the same ground."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive
from terrasieve.archive.raster import Header, read_header
from terrasieve.errors import SampleError

_SCREENED = ("scenes", "packed", "simulated", "simulated-ocean")
"""Layouts whose grids were compared on opening, or are those of files elsewhere, or of none."""
_TOLERANCE = 0.5
"""Pixels of the finer file by which corners may differ."""


def worth_comparing(archive: Archive) -> bool:
    """Whether the archive's files can be compared, and were not on opening."""
    return len(archive.sensors) > 1 and archive.source.get("layout") not in _SCREENED


def find(assets: Mapping[str, str]) -> tuple[str, str] | None:
    """The sensor whose file does not cover what that of the first covers, and by how much.

    Args:
        assets: File by key of the sensor. Files that are no rasters, or do not say where they lie, are left out.
    """
    headers = {key: header for key, path in assets.items() if (header := _header(path)) is not None}
    if len(headers) < 2:
        return None
    (first, reference), *others = headers.items()
    for key, header in others:
        if header.crs != reference.crs:
            return key, f"its file is in {header.crs}, that of {first} in {reference.crs}."
        apart = np.abs(_extent(header) - _extent(reference)).max()
        pixel = min(_pixel(header), _pixel(reference))
        if apart > _TOLERANCE * pixel:
            return key, f"its corners lie up to {apart:g} from those of {first}, at {pixel:g} a pixel."
    return None


def _header(path: str) -> Header | None:
    try:
        header = read_header(Path(path)) if path else None
    except SampleError:
        return None
    return header if header is not None and header.crs else None


def _extent(header: Header) -> NDArray[np.float64]:
    """Coordinates of the first and the last corner."""
    corners = np.array([[0, header.width], [0, header.height], [1, 1]])
    placed: NDArray[np.float64] = header.matrix @ corners
    return placed[:2]


def _pixel(header: Header) -> float:
    return float(np.hypot(header.matrix[0, 0], header.matrix[1, 0]))
