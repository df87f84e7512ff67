"""A STAC item collection of cloud-optimised GeoTIFF, such as a saved API search, read by range requests.

STAC 1.0 and 1.1 as JSON or STAC GeoParquet; see ``archive.stac`` for how bands and grids are found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from terrasieve.archive.folders import list_files
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.quality.limits import FlawError, Problem, Rejection
from terrasieve.archive.quality.offset import STATED, may_carry
from terrasieve.archive.scenes.survey import Edge, edge_share, origins
from terrasieve.archive.stac.assets import find_bands
from terrasieve.archive.stac.items import Item, locate, read_items, unsigned
from terrasieve.archive.stac.tiles import StacScene, TileReader, plan_scene
from terrasieve.archive.stac.values import carries_offset
from terrasieve.errors import ArchiveError
from terrasieve.processes.parallel import map_threads
from terrasieve.schema import Spec
from terrasieve.sensors import SENSORS, Sensor, anchored_sensor, load_sensor

_SUFFIXES = (".json", ".geojson")
_HEAD = 4096
"""Bytes of a file that recognition reads."""


class StacSensor(Spec):
    """What the items show to one sensor.

    Attributes:
        sensor: Name of a built-in sensor, path of a YAML declaration, or the declaration itself.
        assets: By band, the asset's key, or ``KEY:N`` for the N-th band of its file, where items do not name their
            bands or name them otherwise.
    """

    sensor: str | Sensor
    assets: Mapping[str, str] = Field(default_factory=dict)

    def load(self) -> Sensor:
        """The sensor itself."""
        return self.sensor if isinstance(self.sensor, Sensor) else load_sensor(self.sensor)


class StacSpec(ArchiveSpec):
    """An item collection and how to cut it.

    Attributes:
        root: The file: ``.json``, ``.geojson`` or ``.parquet``; or a folder with one JSON file of items.
        sensors: What the items show to each sensor, by the key that callers use; an item must have all bands of all.
        tile: Rows and columns of a sample, in pixels of the finest band.
        stride: Pixels from one sample to the next; ``tile`` when None.
        edge: ``drop`` leaves out what remains at the far edges, ``overlap`` covers it with a last tile.
    """

    layout: Literal["stac"] = "stac"
    root: Path
    sensors: dict[str, StacSensor] = Field(default_factory=lambda: {"s2": StacSensor(sensor="s2-l2a")}, min_length=1)
    tile: int = Field(default=256, ge=1)
    stride: int | None = Field(default=None, ge=1)
    edge: Edge = "drop"

    data_set = DataSet(title="STAC item collection", sensors="whatever the items name", page="stac.md")

    def self_contained(self) -> StacSpec:
        """The same with an absolute root and with sensors declared in YAML files written out."""
        loaded = {
            key: one
            if isinstance(one.sensor, str) and one.sensor in SENSORS
            else one.model_copy(update={"sensor": one.load()})
            for key, one in self.sensors.items()
        }
        return self.model_copy(update={"root": _file(self.root), "sensors": loaded})

    def anchored(self, folder: Path) -> StacSpec:
        """The same with a relative root, and sensors that are files, taken from a folder."""
        sensors = {
            key: one.model_copy(update={"sensor": anchored_sensor(one.sensor, folder)})
            for key, one in self.sensors.items()
        }
        return super().anchored(folder).model_copy(update={"sensors": sensors})

    def open(self) -> StacArchive:
        """The archive; see :class:`StacArchive`."""
        return StacArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the beginning of its JSON files."""
        found = _collections(folder)
        if len(found) != 1:
            return None
        return Recognition(0.9, f"STAC items in {found[0].name}", cls(root=found[0]))


@dataclass(frozen=True)
class _Found:
    """An item that can be cut: its scene by sensor, the first pixels of its tiles, and whether it states an offset."""

    item: Item
    scenes: Mapping[str, StacScene]
    corners: Sequence[tuple[int, int]]
    carries: bool | None


class StacArchive(PatchesArchive):
    """Tiles of items; a sample's id is ``<item>/<row>_<column>`` of its first pixel.

    Pixels are read when they are asked for. Grids are those that items state (projection extension); items without are
    asked for their headers on opening.

    Args:
        spec: File of the items, the sensors to read from them, and how to cut them into tiles.

    Raises:
        ArchiveError: The file holds no items, two have one name, or none can be used.
        BandError: A sensor is unknown.
    """

    def __init__(self, spec: StacSpec) -> None:
        spec = spec.self_contained()
        sensors = {key: one.load() for key, one in spec.sensors.items()}
        items = read_items(spec.root)
        found: list[_Found] = []
        lost: list[Rejection] = []
        for one in map_threads(lambda item: _plan(item, spec, sensors), items, f"Items of {spec.root.name}"):
            (found if isinstance(one, _Found) else lost).append(one)  # type: ignore[arg-type]  # mypy joins the lists
        ids = [f"{one.item.id}/{row}_{column}" for one in found for row, column in one.corners]
        owners = [one for one in found for _ in one.corners]
        assets = {
            f"asset:{key}": [
                unsigned(str(one.scenes[key].bands[0].address)).removeprefix("/vsicurl/") for one in owners
            ]
            for key in sensors
        }
        sizes = [(scene.height, scene.width) for one in found for scene in list(one.scenes.values())[:1]]
        # The fingerprint of the archive changes with any file, also of bands that are not shown.
        hrefs = sorted(unsigned(str(asset["href"])) for item in items for asset in item.assets.values())
        super().__init__(
            spec,
            Listing(
                ids=ids,
                addresses=dict.fromkeys(sensors, ids),
                columns={
                    "time": [one.item.time for one in owners],
                    "item": [one.item.id for one in owners],
                    "collection": [one.item.collection or "" for one in owners],
                    **assets,
                    **({} if all(one.carries is None for one in found) else {STATED: [one.carries for one in owners]}),
                },
                rejected=tuple(lost),
                facts={"items": len(items), "assets_sha256": hashlib.sha256("\n".join(hrefs).encode()).hexdigest()},
                edges=edge_share(sizes, spec.tile, spec.stride or spec.tile, spec.edge),
            ),
            {
                key: TileReader(sensor, {one.item.id: one.scenes[key] for one in found}, spec.tile)
                for key, sensor in sensors.items()
            },
        )


def _plan(item: Item, spec: StacSpec, sensors: Mapping[str, Sensor]) -> _Found | Rejection:
    """An item with its grids, or the reason why it cannot be used."""
    key = next(iter(sensors))
    try:
        scenes = {}
        for key, sensor in sensors.items():
            scenes[key] = _scene(item, sensor, spec.sensors[key].assets, spec.root.parent)
        first, *others = scenes.values()
        if any(_grid(one) != _grid(first) for one in others):
            raise FlawError(Problem.GRID, f"The sensors of item {item.id} do not have one grid; open them apart.")
    except FlawError as error:
        return Rejection.from_error(item.id, key, "", error)
    corners = origins(first.height, first.width, spec.tile, spec.stride or spec.tile, spec.edge).tolist()
    if not corners:
        reason = f"Item {item.id} is {first.height}x{first.width} px, less than a tile of {spec.tile}; choose smaller."
        return Rejection(item.id, key, "", reason, Problem.GRID)
    # A scale that is not applied takes no offset away.
    applied = [key for key, sensor in sensors.items() if may_carry(sensor) and sensor.scaling == "stated"]
    stated = [band.stated for key in applied for band in scenes[key].bands]
    return _Found(item, scenes, [(row, column) for row, column in corners], carries_offset(item.properties, stated))


def _scene(item: Item, sensor: Sensor, explicit: Mapping[str, str], folder: Path) -> StacScene:
    places = find_bands(item, sensor, explicit)
    files = []
    for band in sensor.names:
        asset = item.assets[places[band].asset]
        files.append((locate(str(asset["href"]), folder), places[band].position, {**item.properties, **asset}))
    return plan_scene(files, item.id)


def _grid(scene: StacScene) -> tuple[object, ...]:
    return (scene.height, scene.width, scene.crs, scene.transform)


def _file(root: Path) -> Path:
    """The file of items that a root names.

    Raises:
        ArchiveError: It is a folder with none, or several.
    """
    if not root.is_dir():
        return root.resolve()
    found = _collections(root)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ArchiveError(f"{root} should hold one file of STAC items and holds {names}; name the file.")
    return found[0].resolve()


def _collections(folder: Path) -> list[Path]:
    """The files of items directly below a folder, in order."""
    return sorted(path for kind in _SUFFIXES for path in list_files(folder, kind) if _holds_items(path))


def _holds_items(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    # Plain GeoJSON is a FeatureCollection too, without a version of STAC.
    return b'"FeatureCollection"' in head and b'"stac_version"' in head
