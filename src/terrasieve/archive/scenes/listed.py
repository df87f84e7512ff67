"""Tiles of scenes as the rows of a catalogue list them: no folder is searched and no header read to open them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.geotiff import Header, read_header, read_window, validate_bands
from terrasieve.archive.readers.meaning import meanings
from terrasieve.archive.scenes.survey import TILE, ScenesSpec
from terrasieve.sensors import Sensor

_SHIFT = 0.05
"""Pixels by which a file may lie from where its row says: grids of several sensors may be a hundredth apart."""


class ListedScenes(BaseArchive):
    """The tiles that rows list, in their order.

    Args:
        spec: How the scenes were tiled.
        rows: With ``id``, ``crs``, ``transform`` and, of each sensor, ``asset:<sensor>`` and the tile's first row and
            column in that file.
    """

    spec: ScenesSpec

    def __init__(self, spec: ScenesSpec, rows: pa.Table) -> None:
        self.spec = spec
        self._sensors = {key: folder.load() for key, folder in spec.sensors.items()}
        self._rows = rows.select(["id", "crs", "transform", *(f"asset:{key}" for key in spec.sensors)]).combine_chunks()
        tiles = {key: rows[TILE + key].combine_chunks() for key in spec.sensors}
        self._tops = {key: tile.field("top").to_numpy() for key, tile in tiles.items()}
        self._lefts = {key: tile.field("left").to_numpy() for key, tile in tiles.items()}
        self._seen = {key: np.zeros(len(rows), np.bool_) for key in self._sensors}
        # Of each sensor the header that was read last: tiles of one file come one after the other.
        self._last: dict[str, tuple[str, Header]] = {}

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The sensors by key."""
        return self._sensors

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """Names of the listed samples."""
        return np.array(self._rows["id"].to_pylist(), dtype=np.str_)

    @property
    def source(self) -> Mapping[str, Any]:
        """What a catalogue says of itself goes before it."""
        return {"layout": "scenes", "root": str(self.spec.root), "simulated": False}

    def __len__(self) -> int:
        return len(self._rows)

    def files(self, indices: NDArray[np.int64]) -> Iterable[str]:
        """The files of all sensors of the samples."""
        for key in self._sensors:
            assets = self._rows[f"asset:{key}"]
            if len(indices) == 1:  # as whoever reads asks for, and taking would cost more than the file's state
                yield assets[int(indices[0])].as_py()
            else:
                yield from assets.take(pa.array(indices)).unique().to_pylist()

    def table(self) -> pa.Table:
        """The rows that opening takes."""
        return self._rows

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return (self.spec.tile, self.spec.tile)

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        path = str(self._rows[f"asset:{sensor}"][index].as_py())
        top, left = int(self._tops[sensor][index]), int(self._lefts[sensor][index])
        if not self._seen[sensor][index]:
            self._look_at_header(index, sensor, path, (top, left))
            self._seen[sensor][index] = True
        part = window or Window(0, 0, self.spec.tile, self.spec.tile)
        place = Window(top + part.top, left + part.left, part.height, part.width)
        return read_window(Path(path), positions, place, meanings(self._sensors[sensor], positions))

    def _name(self, index: int, sensor: str) -> str:
        return f"tile {self._rows['id'][index].as_py()}"

    def _look_at_header(self, index: int, sensor: str, path: str, corner: tuple[int, int]) -> None:
        """Refuse a file that does not lie where its row says, or has not the bands of its sensor."""
        last, header = self._last.get(sensor, (None, None))
        if header is None or last != path:
            header = self._header(sensor, path)
        crs, said = self._rows["crs"][index].as_py(), self._rows["transform"][index].as_py()
        moved = header.matrix @ [[1, 0, corner[1]], [0, 1, corner[0]], [0, 0, 1]]
        apart = np.inf
        if crs == header.crs and said is not None and len(said) == 6:
            wanted = np.array([*said, 0.0, 0.0, 1.0]).reshape(3, 3)
            apart = float(np.abs(np.linalg.solve(moved, wanted) - np.eye(3))[:2].max())
        if apart > _SHIFT:
            raise FlawError(
                Problem.GRID,
                f"{path} no longer lies where the catalogue says, or in another reference system. Run terrasieve "
                "index again.",
            )
        # What is refused is looked at again: somebody may restore it.
        self._last[sensor] = path, header

    def _header(self, sensor: str, path: str) -> Header:
        """The header of a file that lies in the folder of a sensor, and has its bands."""
        folder = os.path.normpath(self.spec.root / self.spec.sensors[sensor].folder)
        if not os.path.normpath(path).startswith(os.path.join(folder, "")):
            raise FlawError(
                Problem.UNREADABLE, f"{path} does not lie in {folder}, where the catalogue's files are. Index it again."
            )
        header = read_header(Path(path))
        validate_bands(header, self._sensors[sensor])
        return header


def holds_tiles(spec: ScenesSpec, rows: pa.Table) -> bool:
    """Whether rows say of each sensor where a tile lies in its file, as those of earlier versions do not.

    Args:
        spec: Names the sensors.
        rows: Of a catalogue.
    """
    if spec.has_band_files:
        return False  # a row names one file of each sensor
    corner = pa.struct([("top", pa.int64()), ("left", pa.int64())])
    wanted: dict[str, pa.DataType] = {TILE + key: corner for key in spec.sensors}
    wanted |= {f"asset:{key}": pa.string() for key in spec.sensors}
    return {"crs", "transform", *wanted} <= set(rows.column_names) and all(
        rows.schema.field(name).type.equals(kind) and not rows[name].null_count for name, kind in wanted.items()
    )
