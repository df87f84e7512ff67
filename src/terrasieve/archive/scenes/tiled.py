"""A folder tree of GeoTIFF scenes, of one or several sensors, tiled on the fly."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.folders import NotTaken
from terrasieve.archive.footprints import corners, outlines_in_systems
from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.archive.quality.offset import STATED, stated_free
from terrasieve.archive.readers.geotiff import read_window
from terrasieve.archive.readers.meaning import meanings
from terrasieve.archive.scenes.acquisition_time import acquisition_time
from terrasieve.archive.scenes.band_files import BandsHeader
from terrasieve.archive.scenes.matching import Scene
from terrasieve.archive.scenes.survey import TILE, Look, ScenesSpec, SensorFolder, origins, survey
from terrasieve.archive.stac.tiles import read_bands
from terrasieve.sensors import Sensor

__all__ = ["ScenesArchive", "ScenesSpec", "SensorFolder"]

_TIME = pa.timestamp("us", tz="UTC")


class ScenesArchive(BaseArchive):
    """Tiles of scenes; a sample's id is ``<scene>/<row>_<column>`` of its first pixel in the scene.

    Args:
        spec: Where the scenes lie, and how they are matched and tiled.
        look: How the files' headers are read; nothing else is read of them when None.

    Raises:
        ArchiveError: A folder is absent or holds no file, or no scene is usable.
        BandError: A sensor is unknown.
    """

    spec: ScenesSpec

    def __init__(self, spec: ScenesSpec, look: Look | None = None) -> None:
        self.spec = spec.self_contained()
        self._sensors = {key: folder.load() for key, folder in self.spec.sensors.items()}
        self._scenes, self.rejected, self._not_taken = survey(self.spec, self._sensors, look)
        self._cut()

    @classmethod
    def of_scene(cls, spec: ScenesSpec, sensors: Mapping[str, Sensor], scene: Scene) -> ScenesArchive:
        """The tiles of one scene that was found already.

        Args:
            spec: How the scene is tiled.
            sensors: The declared sensor of each key of ``spec.sensors``.
            scene: Holds at least one tile.
        """
        archive = cls.__new__(cls)
        archive.spec, archive._sensors = spec, dict(sensors)
        archive._scenes, archive._not_taken = (scene,), NotTaken()
        archive._cut()
        return archive

    def _cut(self) -> None:
        """Note where tiles lie in the scenes."""
        tile, stride, edge = self.spec.tile, self.spec.stride or self.spec.tile, self.spec.edge
        # One grid for each size of scene, since most scenes are of a few sizes; a million samples share them.
        self._grids = {size: origins(*size, tile, stride, edge) for size in {(s.height, s.width) for s in self._scenes}}
        # A sample's scene is found by bisection in the running number of tiles.
        self._ends = np.array(list(accumulate(len(self._grid(scene)) for scene in self._scenes)), np.int64)

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The sensors by key."""
        return self._sensors

    @property
    def not_taken(self) -> NotTaken:
        """Files in the sensors' folders that no pattern matches, and the pixels at the edges."""
        return self._not_taken

    @property
    def scenes(self) -> Sequence[Scene]:
        """The scenes that are tiled, in order."""
        return self._scenes

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """``<scene>/<row>_<column>`` for each sample."""
        return np.array(
            [f"{scene.name}/{row}_{column}" for scene in self._scenes for row, column in self._grid(scene).tolist()]
        )

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance; ``fingerprint`` covers each file's path below the root, size in bytes and grid."""
        return {
            "layout": "scenes",
            "root": str(self.spec.root),
            "options": self._options,
            "sensors": {key: sensor.name for key, sensor in self._sensors.items()},
            "scenes": len(self._scenes),
            "rejected": len(self.rejected),
            "simulated": False,
            "fingerprint": self._fingerprint,
        }

    @property
    def _options(self) -> dict[str, Any]:
        options = self.spec.model_dump(mode="json", exclude={"layout", "root", "sensors"})
        # Provenance of archives that were indexed before there was a limit does not know of one.
        return {name: value for name, value in options.items() if name != "max_days" or value is not None}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def files(self, indices: NDArray[np.int64]) -> Iterable[str]:
        """The files of all sensors of the scenes that the samples are cut from."""
        owners = np.unique(np.searchsorted(self._ends, indices, side="right"))
        headers = [header for owner in owners.tolist() for header in self._scenes[owner].files.values()]
        return [name for header in headers for name in header.names]

    def table(self) -> pa.Table:
        """See ``Archive.table``; with ``time:<sensor>``, each sensor's own acquisition, where there are several."""
        times = {key: [acquisition_time(scene.files[key]) for scene in self._scenes] for key in self._sensors}
        columns = {
            "id": pa.array(self.ids.tolist(), pa.string()),
            "geometry": pa.array(self._outlines(), pa.binary()),
            "time": self._per_sample(
                [next(filter(None, each), None) for each in zip(*times.values(), strict=True)], _TIME
            ),
            "label": pa.nulls(len(self), pa.string()),
            "split": pa.nulls(len(self), pa.string()),
            "crs": self._per_sample([scene.crs for scene in self._scenes], pa.string()),
            "transform": self._transforms(),
        }
        for key in self._sensors:
            columns[f"asset:{key}"] = self._per_sample(
                [str(scene.files[key].path) for scene in self._scenes], pa.string()
            )
        if len(times) > 1:
            columns |= {f"time:{key}": self._per_sample(each, _TIME) for key, each in times.items()}
        scenes = self._scenes
        free = stated_free(self._sensors, lambda key: [scene.files[key].offset for scene in scenes], len(scenes))
        if False in free:
            columns[STATED] = self._per_sample(free, pa.bool_())
        return pa.table(columns)

    def catalogue_columns(self, indices: NDArray[np.int64]) -> dict[str, pa.Array]:
        """Where the tiles lie in the file of each sensor; see ``BaseArchive.catalogue_columns``."""
        _, tiles = self._placed()
        owners = self._owners()[indices]
        columns = {}
        for key in self._sensors:
            corners_of = np.array([scene.offsets[key] for scene in self._scenes], np.int64)
            tops, lefts = (tiles[indices].astype(np.int64) + corners_of[owners]).T
            columns[TILE + key] = pa.StructArray.from_arrays([pa.array(tops), pa.array(lefts)], ["top", "left"])
        return columns

    @cached_property
    def _fingerprint(self) -> str:
        return _fingerprint(self.spec.root, self._scenes)

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return (self.spec.tile, self.spec.tile)

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        scene, row, column = self._locate(index)
        part = window or Window(0, 0, self.spec.tile, self.spec.tile)
        top, left = scene.offsets[sensor]
        place = Window(top + row + part.top, left + column + part.left, part.height, part.width)
        header = scene.files[sensor]
        if isinstance(header, BandsHeader):
            return read_bands(header.scene, self._sensors[sensor], positions, place)
        return read_window(header.path, positions, place, meanings(self._sensors[sensor], positions))

    def _name(self, index: int, sensor: str) -> str:
        return f"tile {self.name(index)}"

    def name(self, index: int) -> str:
        """The id of one sample, which does not take those of all."""
        scene, row, column = self._locate(index)
        return f"{scene.name}/{row}_{column}"

    def _grid(self, scene: Scene) -> NDArray[np.int64]:
        return self._grids[scene.height, scene.width]

    def _locate(self, index: int) -> tuple[Scene, int, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        scene = self._scenes[number]
        grid = self._grid(scene)
        row, column = grid[index - (self._ends[number] - len(grid))]
        return scene, int(row), int(column)

    def _per_sample(self, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        """One value a scene to one value a sample."""
        return pa.array(values, kind).take(pa.array(self._owners()))

    def _owners(self) -> NDArray[np.int64]:
        """The scene of each sample."""
        return np.repeat(np.arange(len(self._scenes)), np.diff(self._ends, prepend=0))

    def _placed(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of each sample the transform of its scene, shape ``(n, 6)``, and its row and column there, ``(n, 2)``."""
        transforms = np.array([scene.transform for scene in self._scenes], dtype=np.float64)
        tiles = np.concatenate([self._grid(scene) for scene in self._scenes])
        return transforms[self._owners()], tiles.astype(np.float64)

    def _outlines(self) -> list[bytes | None]:
        transforms, tiles = self._placed()
        boxes = np.insert(tiles, [2], [self.spec.tile, self.spec.tile], axis=1)
        systems = [scene.crs for scene in self._scenes]
        return outlines_in_systems(corners(transforms, boxes), [systems[owner] for owner in self._owners()])

    def _transforms(self) -> pa.ListArray:
        transforms, tiles = self._placed()
        (a, b, c, d, e, f), (row, column) = transforms.T, tiles.T
        moved = np.stack([a, b, c + a * column + b * row, d, e, f + d * column + e * row], axis=1)
        return pa.ListArray.from_arrays(np.arange(len(moved) + 1) * 6, moved.ravel())


def _fingerprint(root: Path, scenes: Sequence[Scene]) -> str:
    digest = hashlib.sha256()
    top = f"{root}{os.sep}"
    for scene in scenes:
        for key, header in sorted(scene.files.items()):
            below = header.name.startswith(top)
            where = header.name.removeprefix(top).replace(os.sep, "/") if below else header.path.name
            digest.update(repr((scene.name, key, where, header.bytes, header.crs, header.transform)).encode())
    return digest.hexdigest()
