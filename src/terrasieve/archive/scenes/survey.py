"""A folder of scenes: how it is specified, how its files are screened and matched, and where tiles lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from terrasieve.archive.folders import Found, NotTaken
from terrasieve.archive.layout import ArchiveSpec, DataSet
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.limits import FlawError, Problem, Rejection
from terrasieve.archive.readers.geotiff import Header, read_headers, validate_bands
from terrasieve.archive.scenes.band_files import group_bands, read_band_headers
from terrasieve.archive.scenes.matching import Scene, Unmatched, match_by_geometry, match_by_stem
from terrasieve.archive.scenes.named_files import Named, find_named
from terrasieve.errors import ArchiveError
from terrasieve.schema import Spec
from terrasieve.sensors import SENSORS, Sensor, anchored_sensor, load_sensor

TILE = "terrasieve:tile:"
"""How a catalogue names the column, one for each sensor, of a tile's first row and column in its file."""

Edge = Literal["drop", "overlap"]
"""What becomes of the remainder at the far edges of a scene: it is left out, or covered with a last tile."""


class SensorFolder(Spec):
    """Where the files of one sensor lie.

    Attributes:
        folder: Relative to the archive's root.
        sensor: Name of a built-in sensor, path of a YAML declaration, or the declaration itself.
        pattern: Which files, as ``pathlib`` globs.
        drop: Text to take out of a file's name before names are matched, such as ``_s1``.
        files: Where each band has a file of its own, which files those of a band are, such as ``*_B02_10m.jp2``; then
            ``pattern`` is not asked. Files of a scene agree in what ``*`` stands for; a pattern without ``/`` is looked
            for at any depth.
    """

    folder: Path
    sensor: str | Sensor
    pattern: str = "**/*.tif"
    drop: str = ""
    files: dict[str, str] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_the_usual(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Catalogues and stores that were written before bands could have files of their own stay what they are.
        values: dict[str, Any] = serialise(self)
        return {key: value for key, value in values.items() if (key, value) != ("files", {})}

    def load(self) -> Sensor:
        """The sensor itself; where bands have files of their own, with the bands that have one.

        Raises:
            BandError: The sensor is unknown, or has no such band.
        """
        sensor = self.sensor if isinstance(self.sensor, Sensor) else load_sensor(self.sensor)
        return sensor.select(*self.files) if self.files else sensor

    def anchored(self, folder: Path) -> SensorFolder:
        """The same, with the path of a YAML declaration that lies in a folder made whole."""
        return self.model_copy(update={"sensor": anchored_sensor(self.sensor, folder)})

    def self_contained(self) -> SensorFolder:
        """The same, with a sensor declared in a YAML file written out."""
        if isinstance(self.sensor, str) and self.sensor in SENSORS:
            return self
        whole = self.sensor if isinstance(self.sensor, Sensor) else load_sensor(self.sensor)
        return self.model_copy(update={"sensor": whole})


class ScenesSpec(ArchiveSpec):
    """A folder of scenes and how to cut it.

    Attributes:
        root: The folder that the folders of all sensors lie in.
        sensors: Files of each sensor by the key that callers use.
        tile: Rows and columns of a sample.
        stride: Pixels from one sample to the next; ``tile`` when None.
        match: How files of several sensors find each other. ``stem``: same path below the sensor's folder
            without its suffix, and the same grid. ``geometry``: overlapping files whose grids align; the
            overlap is the scene.
        max_days: Most days between the acquisitions of a scene's files, by their names or tags; any number when None.
        edge: ``drop`` leaves out what remains at the far edges, ``overlap`` covers it with a last tile.
    """

    layout: Literal["scenes"] = "scenes"
    root: Path
    sensors: dict[str, SensorFolder] = Field(min_length=1)
    tile: int = Field(default=64, ge=1)
    stride: int | None = Field(default=None, ge=1)
    match: Literal["stem", "geometry"] = "stem"
    max_days: float | None = Field(default=None, ge=0)
    edge: Edge = "drop"

    data_set = DataSet(title="folders of scenes", sensors="any, named by you", page="../how-to/own-scenes.md")

    @property
    def has_band_files(self) -> bool:
        """Whether the bands of a sensor have a file each, so that a scene of it is no single file."""
        return any(folder.files for folder in self.sensors.values())

    def open(self) -> Archive:
        """The archive; see :class:`terrasieve.archive.scenes.tiled.ScenesArchive`."""
        from terrasieve.archive.scenes.tiled import ScenesArchive  # it is written on top of this module

        return ScenesArchive(self)

    def open_listed(self, rows: pa.Table) -> Archive:
        """The tiles that a catalogue lists, from its rows alone where they say where in its file each lies."""
        from terrasieve.archive.scenes.listed import ListedScenes, holds_tiles  # it is written on top of this module

        return ListedScenes(self, rows) if holds_tiles(self, rows) else self.open()

    def anchored(self, folder: Path) -> ScenesSpec:
        """The same with a relative root, and sensors that are files, taken from a folder."""
        sensors = {key: one.anchored(folder) for key, one in self.sensors.items()}
        return super().anchored(folder).model_copy(update={"sensors": sensors})

    def self_contained(self) -> ScenesSpec:
        """The same with an absolute root and with sensors declared in YAML files written out."""
        folders = {key: folder.self_contained() for key, folder in self.sensors.items()}
        return self.model_copy(update={"root": self.root.resolve(), "sensors": folders})


Look: TypeAlias = "Callable[[ScenesSpec, Mapping[str, Sensor], Named], Mapping[str, Sequence[Header | FlawError]]]"
"""Reads the headers of named files: of each sensor, in order, that of a file which has its bands, or what it lacks."""


def survey(
    spec: ScenesSpec, sensors: Mapping[str, Sensor], look: Look | None = None
) -> tuple[tuple[Scene, ...], tuple[Rejection, ...], NotTaken]:
    """Read all headers and join the files that belong together.

    Args:
        spec: Where the files lie and how they match.
        sensors: The declared sensor of each key of ``spec.sensors``.
        look: How headers are read; :func:`look_at_headers` when None.

    Returns:
        The scenes that hold at least one tile, everything else with its reason, and the count of what is no scene.

    Raises:
        ArchiveError: A folder is absent or holds no file, or no scene is usable.
    """
    places, named = find_named(spec)
    looked, broken = _screen(named, (look or look_at_headers)(spec, sensors, named))
    files: dict[str, dict[str, Header]] = {}
    for key, folder in spec.sensors.items():
        if folder.files:
            groups = group_bands(spec.root / folder.folder, folder.files, places[key].files)
            files[key], lost = read_band_headers(key, sensors[key], groups, folder.drop)
            broken += lost
        else:
            files[key] = looked[key]
    matched = list((match_by_stem if spec.match == "stem" else match_by_geometry)(files, spec.max_days))
    scenes = tuple(item for item in matched if isinstance(item, Scene) and tile_count(spec, item.height, item.width))
    reported = {rejection.id for rejection in broken}
    typical = max(1, sum(tile_count(spec, s.height, s.width) for s in scenes) // max(1, len(scenes)))
    rejected = [_with_samples(spec, rejection, files, typical) for rejection in broken]
    for item in matched:
        if isinstance(item, Unmatched) and item.name not in reported:
            rejected.append(_unmatched(spec, item))
        elif isinstance(item, Scene) and not tile_count(spec, item.height, item.width):
            rejected.append(_too_small(spec, item))
    if not scenes:
        first = f" The first reason: {rejected[0].reason}" if rejected else ""
        raise ArchiveError(f"None of the {len(rejected)} scenes in {spec.root} is usable.{first}")
    return scenes, tuple(rejected), _not_taken(spec, scenes, places.values())


def _not_taken(spec: ScenesSpec, scenes: Sequence[Scene], places: Iterable[Found]) -> NotTaken:
    others: Counter[str] = Counter()
    for found in places:
        others.update(found.others)
    sizes = [(scene.height, scene.width) for scene in scenes]
    edges = edge_share(sizes, spec.tile, spec.stride or spec.tile, spec.edge)
    return NotTaken(dict(others), sum(found.links for found in places), edges)


def look_at_headers(
    spec: ScenesSpec, sensors: Mapping[str, Sensor], named: Named
) -> dict[str, list[Header | FlawError]]:
    """Open each file once, for its header alone; see ``Look``."""
    return {
        key: [accept(header, sensors[key]) for header in read_headers(paths.values(), f"Headers of {key}")]
        for key, paths in named.items()
    }


def accept(header: Header | FlawError, sensor: Sensor) -> Header | FlawError:
    """The header of a file that has its sensor's bands, else what is wrong with the file."""
    if isinstance(header, FlawError):
        return header
    try:
        validate_bands(header, sensor)
    except FlawError as error:
        return error
    return header


def _screen(
    named: Named, looked: Mapping[str, Sequence[Header | FlawError]]
) -> tuple[dict[str, dict[str, Header]], list[Rejection]]:
    """Headers of the files that are readable and have their sensor's bands, and what the others lack."""
    files: dict[str, dict[str, Header]] = {}
    broken: list[Rejection] = []
    for key, paths in named.items():
        files[key] = {}
        for (name, path), found in zip(paths.items(), looked[key], strict=True):
            if isinstance(found, FlawError):
                broken.append(Rejection.from_error(name, key, str(path), found))
            else:
                files[key][name] = found
    return files, broken


def tile_count(spec: ScenesSpec, height: int, width: int) -> int:
    """Number of samples that a scene of a size is cut into.

    Args:
        spec: Says how scenes are cut.
        height: Rows of the scene.
        width: Columns of the scene.
    """
    return _tiles(height, width, spec.tile, spec.stride or spec.tile, spec.edge)


@lru_cache(maxsize=1024)  # scenes are of few sizes, and asked for several times each
def _tiles(height: int, width: int, tile: int, stride: int, edge: Edge) -> int:
    return len(starts(height, tile, stride, edge)) * len(starts(width, tile, stride, edge))


def _with_samples(
    spec: ScenesSpec, rejection: Rejection, files: Mapping[str, Mapping[str, Header]], typical: int
) -> Rejection:
    """How many samples a file that was not accepted would have made, judged by its partner or the other scenes.

    Matched by geometry, only a file of the first sensor makes a scene; another's loss shows as a missing partner.
    """
    if spec.match == "geometry":
        return replace(rejection, samples=typical if rejection.sensor == next(iter(files)) else 0)
    beside = next((named[rejection.id] for named in files.values() if rejection.id in named), None)
    return replace(rejection, samples=tile_count(spec, beside.height, beside.width) if beside else typical)


def _unmatched(spec: ScenesSpec, item: Unmatched) -> Rejection:
    asset = str(item.header.path) if item.header else ""
    rejection = Rejection.from_error(item.name, item.sensor, asset, item.error)
    # Where two files disagree, the smaller one counts: a damaged header may claim any size.
    sizes = [(one.height, one.width) for one in (item.header, item.beside) if one]
    return replace(rejection, samples=max(1, min(tile_count(spec, *size) for size in sizes)))


def _too_small(spec: ScenesSpec, scene: Scene) -> Rejection:
    key, header = min(scene.files.items(), key=lambda file: min(file[1].height, file[1].width))
    reason = (
        f"Scene {scene.name} ({header.path}) covers {scene.height}x{scene.width} px, less than a tile of "
        f"{spec.tile}; choose a smaller tile."
    )
    return Rejection(scene.name, key, str(header.path), reason, Problem.GRID)


# ----------------------------------------------------------------------- tiles
# Arithmetic on rows and columns, no pixels.


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


@lru_cache(maxsize=64)
def origins(height: int, width: int, tile: int, stride: int, edge: Edge = "drop") -> NDArray[np.int64]:
    """Top-left corners of all tiles of a scene, row by row.

    Returns:
        Rows and columns, shape ``(tiles, 2)``; read-only, since scenes of one size share them.
    """
    rows, columns = starts(height, tile, stride, edge), starts(width, tile, stride, edge)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    grid.flags.writeable = False
    return grid


def edge_share(sizes: Sequence[tuple[int, int]], tile: int, stride: int, edge: Edge) -> float:
    """Share of the pixels of scenes that lie beyond the last tile of their row or column, from 0 to 1.

    Args:
        sizes: Rows and columns of each scene.
        tile: Rows and columns of a tile.
        stride: Pixels from one tile to the next.
        edge: What becomes of the remainder at the far edges.
    """
    covered = total = 0
    for (height, width), count in Counter(sizes).items():
        rows, columns = starts(height, tile, stride, edge), starts(width, tile, stride, edge)
        total += count * height * width
        covered += count * int(rows[-1] + tile) * int(columns[-1] + tile) if len(rows) and len(columns) else 0
    return 1 - covered / total if total else 0.0
