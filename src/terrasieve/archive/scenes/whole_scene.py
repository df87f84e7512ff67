"""Scenes as a whole: any window of one is read from the tiles that its archive cuts it into."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.protocol import Archive, Window
from terrasieve.errors import ConfigError

_CUT = {"tile", "stride", "edge"}
"""Settings that every layout of scenes has."""
_TILE = 64
"""Pixels of a tile where the layout has no size of its own."""


class WholeScene:
    """One scene of an archive whose tiles cover all of it.

    Args:
        archive: Cuts the scene without gaps.
        name: What the scene is called.
        tiles: Index of each tile by the row and column of its first pixel.
        crs: Such as ``EPSG:32632``; None where unknown.
        transform: The affine a-f of the scene's grid; None where unknown.
        time: When the scene was taken; None where unknown.

    Attributes:
        height: Rows of pixels.
        width: Columns of pixels.
    """

    def __init__(
        self,
        archive: Archive,
        name: str,
        tiles: dict[tuple[int, int], int],
        crs: str | None,
        transform: Sequence[float] | None,
        time: datetime | None,
    ) -> None:
        self.archive, self.name, self.crs, self.time = archive, name, crs, time
        self.transform = None if transform is None else tuple(transform)
        self._tiles = tiles
        tile = archive.shape(next(iter(tiles.values())), next(iter(archive.sensors)))
        tops, lefts = (sorted(set(starts)) for starts in zip(*tiles, strict=True))
        self.height, self.width = tops[-1] + tile[0], lefts[-1] + tile[1]
        # The last tile overlaps the one before: each is asked for what lies before the next.
        self._tops, self._lefts = [*tops, self.height], [*lefts, self.width]

    def read(self, sensor: str, bands: Sequence[str], window: Window) -> NDArray[np.float32]:
        """Pixels of a window, which may reach beyond the scene.

        Args:
            sensor: A key of the archive's sensors.
            bands: Names of bands, in order.
            window: The part wanted.

        Returns:
            Shape ``(bands, height, width)`` in the unit of the product; NaN beyond the scene.

        Raises:
            SampleError: The pixels cannot be read.
        """
        top, left, height, width = window
        found = np.full((len(bands), height, width), np.nan, np.float32)
        for row, above, below in _pieces(self._tops, top, top + height):
            for column, start, stop in _pieces(self._lefts, left, left + width):
                part = Window(above - row, start - column, below - above, stop - start)
                pixels = self.archive.read(self._tiles[row, column], sensor, bands, part)
                found[:, above - top : below - top, start - left : stop - left] = pixels
        return found


def whole_scenes(spec: ArchiveSpec | None, name: str) -> tuple[Archive, list[WholeScene]]:
    """The scenes of an archive, and the archive cut so that its tiles cover them to their far edges.

    Args:
        spec: How the archive is opened; its own stride and edge do not matter. None of what takes no options.
        name: What was named, for errors.

    Raises:
        ArchiveError: There is no usable scene.
        ConfigError: The archive holds ready-cut samples.
    """
    if spec is None or not set(type(spec).model_fields) >= _CUT:
        what = "a catalogue or a packed store" if spec is None else f"the layout {spec.layout}"
        raise ConfigError(
            f"{name} is opened as {what}, whose samples are cut already, and a dense map is made of whole scenes. Name "
            "the scenes themselves: a product, or a GeoTIFF with its --sensor."
        )
    usual = type(spec).model_fields["tile"].default or _TILE
    # Whoever set a smaller one may have scenes that are smaller than the usual one.
    tile = min(getattr(spec, "tile", None) or usual, usual)
    # Tiles over nothing are part of a scene, too.
    wanted: dict[str, Any] = {"tile": tile, "stride": None, "edge": "overlap", "max_nodata": 1.0}
    archive = spec.model_copy(update={k: v for k, v in wanted.items() if k in type(spec).model_fields}).open()
    return archive, _scenes(archive)


def _scenes(archive: Archive) -> list[WholeScene]:
    tiles: dict[str, dict[tuple[int, int], int]] = {}
    for index, name in enumerate(archive.ids.tolist()):
        scene, _, corner = name.rpartition("/")
        row, column = map(int, corner.split("_"))
        tiles.setdefault(scene, {})[row, column] = index
    table = archive.table()
    facts = {name: table[name] for name in ("crs", "transform", "time")}
    found = []
    for scene, placed in tiles.items():
        known = {name: column[placed[0, 0]].as_py() for name, column in facts.items()}
        found.append(WholeScene(archive, scene, placed, **known))
    return found


def _pieces(starts: Sequence[int], begin: int, end: int) -> list[tuple[int, int, int]]:
    """The tiles that a range of rows (or columns) meets: where each starts, and which part of the range is read of it.

    Args:
        starts: Where tiles start, and where the last one ends.
        begin: First row wanted.
        end: The row after the last.
    """
    pieces = [(start, max(start, begin), min(after, end)) for start, after in pairwise(starts)]
    return [piece for piece in pieces if piece[1] < piece[2]]
