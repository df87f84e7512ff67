"""Small pictures of samples on sheets, of which a page shows parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from terrasieve.archive.protocol import Archive
from terrasieve.archive.quicklook import pictures, shown_bands
from terrasieve.console import track

ACROSS = 32
"""Pictures in a row, and rows, of a sheet."""
SIZE = 48
"""Rows and columns of a picture, in pixels."""
_QUALITY = 85


@dataclass(frozen=True)
class Atlas:
    """Sheets of pictures.

    Attributes:
        places: Where each sample's picture stands, counted over all sheets row by row; -1 of those without; ``(n,)``.
        sheets: Uint8, shape ``(ACROSS * SIZE, ACROSS * SIZE, 3)`` each.
        sensor: Key of the sensor that they show.
    """

    places: NDArray[np.int32]
    sheets: tuple[NDArray[np.uint8], ...]
    sensor: str

    def write(self, folder: Path) -> None:
        """Write the sheets as ``atlas-0.jpg`` and so on.

        Args:
            folder: Where they go.
        """
        for number, sheet in enumerate(self.sheets):
            Image.fromarray(sheet).save(folder / f"atlas-{number}.jpg", quality=_QUALITY)


def draw_atlas(archive: Archive, rows: NDArray[np.int64], wanted: str, most: int) -> Atlas:
    """Pictures of samples spread evenly, all of one stretch.

    Args:
        archive: Pixels are read from it.
        rows: Where each sample stands in the archive, shape ``(n,)``.
        wanted: Key of the sensor to show; the archive's first where it has no such.
        most: Number of pictures at most.

    Raises:
        SampleError: A sample cannot be read.
    """
    key = wanted if wanted in archive.sensors else next(iter(archive.sensors))
    sensor = archive.sensors[key]
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))
    # Thinned before they are stretched: what one screen shows of thousands of samples is small.
    small = [
        _thinned(archive.read(int(rows[one]), key, shown_bands(sensor)))
        for one in track(chosen.tolist(), "thumbnails (samples)", total=len(chosen))
    ]
    drawn = pictures(small, sensor)
    places = np.full(len(rows), -1, dtype=np.int32)
    places[chosen] = np.arange(len(chosen))
    page = ACROSS * ACROSS
    sheets = np.zeros((-(-len(chosen) // page), ACROSS * SIZE, ACROSS * SIZE, 3), dtype=np.uint8)
    for number, picture in enumerate(drawn):
        sheet, at = divmod(number, page)
        row, column = divmod(at, ACROSS)
        top, left = row * SIZE, column * SIZE
        sheets[sheet, top : top + SIZE, left : left + SIZE] = (picture * 255).round()
    return Atlas(places, tuple(sheets), key)


def _thinned(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Every so-manieth pixel of ``(bands, height, width)``, or each several times, so that there are SIZE squared."""
    _, height, width = pixels.shape
    # Pixel centres of the small picture; no value is mixed, so that missing ones stay what they are.
    rows = ((np.arange(SIZE) + 0.5) * height / SIZE).astype(np.int64)
    columns = ((np.arange(SIZE) + 0.5) * width / SIZE).astype(np.int64)
    return pixels[:, rows[:, None], columns]
