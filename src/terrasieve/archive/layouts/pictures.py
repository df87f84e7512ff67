"""Pictures that nothing else is known of: a folder of PNG, JPEG, TIFF or JPEG 2000 at any depth, of one sensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from pydantic import Field

from terrasieve.archive.folders import NotTaken, find_files
from terrasieve.archive.layout import ArchiveSpec, DataSet
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem, Rejection
from terrasieve.archive.readers.geotiff import Header, has_palette, read_header, validate_bands
from terrasieve.archive.readers.patch_reader import PatchReader, StackReader, item_address, split_item_address
from terrasieve.archive.scenes.acquisition_time import acquisition_time
from terrasieve.archive.scenes.survey import Edge, edge_share, origins
from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.processes.parallel import map_threads
from terrasieve.sensors import SENSORS, Sensor, anchored_sensor, load_sensor

KINDS = (".tif", ".png", ".jpg", ".jp2")
"""Suffixes of pictures, as ``folders.kind_of`` gives them."""


class PicturesSpec(ArchiveSpec):
    """A folder of pictures.

    Attributes:
        root: The folder.
        sensor: What all are of: name of a built-in sensor, path of a YAML declaration, or the declaration itself. Its
            bands have the unit ``dn`` or ``class``.
        key: What the sensor is called in the archive; the first part of its name when None.
        pattern: Which files, as ``pathlib`` globs; every picture at any depth when empty.
        tile: Rows and columns of a sample, in pixels; when None, a picture is a sample.
        stride: Pixels from one tile to the next; ``tile`` when None.
        edge: ``drop`` leaves out what no whole tile covers at the far edges, ``overlap`` covers it with a last tile.
    """

    layout: Literal["pictures"] = "pictures"
    root: Path
    sensor: str | Sensor
    key: str | None = None
    pattern: str = ""
    tile: int | None = Field(default=None, ge=1)
    stride: int | None = Field(default=None, ge=1)
    edge: Edge = "drop"

    data_set = DataSet(
        title="folders of pictures", sensors="any one, named by you", page="../how-to/own-scenes.md#pictures"
    )

    def open(self) -> PicturesArchive:
        """The archive; see :class:`PicturesArchive`."""
        return PicturesArchive(self)

    def anchored(self, folder: Path) -> PicturesSpec:
        """The same with a relative root, and a sensor that is a file, taken from a folder."""
        return super().anchored(folder).model_copy(update={"sensor": anchored_sensor(self.sensor, folder)})

    def self_contained(self) -> PicturesSpec:
        """The same with an absolute root and with a sensor declared in a YAML file written out."""
        said = self.sensor
        sensor = said if isinstance(said, Sensor) or said in SENSORS else load_sensor(said)
        return self.model_copy(update={"root": self.root.resolve(), "sensor": sensor})


class PicturesArchive(PatchesArchive):
    """Pictures, or their tiles; a sample's id is the path below the root without suffix, then ``/<row>_<column>``.

    Without a tile pictures keep their own sizes; a packed store takes those of one size, that of the first. Pictures of
    another type or number of bands than the sensor, and those whose values are places in a palette, are rejected.

    Args:
        spec: Folder, sensor, and how pictures are cut.

    Raises:
        ArchiveError: There is no picture, none can be used, or two have one name.
        BandError: The sensor is unknown.
        ConfigError: The sensor is calibrated, or there is a stride without a tile.
    """

    def __init__(self, spec: PicturesSpec) -> None:
        spec = spec.self_contained()
        if spec.tile is None and (spec.stride is not None or spec.edge != "drop"):
            raise ConfigError(f"A stride and an edge are for pictures that are cut; set a tile for {spec.root}, too.")
        sensor = load_sensor(spec.sensor) if isinstance(spec.sensor, str) else spec.sensor
        calibrated = {band.unit for band in sensor.bands} - {"dn", "class"}
        if calibrated:
            raise ConfigError(
                f"Pictures have no unit, {sensor.name} is in {', '.join(sorted(calibrated))}. For a folder of scenes "
                f"with that sensor write --sensor {sensor.key}={sensor.name}:., or in Python "
                f"sensor={{'{sensor.key}': '{sensor.name}:.'}}; a subfolder is named after the colon."
            )
        if not spec.root.is_dir():
            raise ArchiveError(f"{spec.root} is no folder of pictures; name one.")
        found = find_files(spec.root, *([spec.pattern] if spec.pattern else [f"**/*{kind}" for kind in KINDS]))
        if not found.files:
            held = ", ".join(sorted(found.others)[:8]) or "nothing"
            raise ArchiveError(f"{spec.root} holds no picture ({', '.join(KINDS)}); it holds {held}.")
        key = spec.key or sensor.key
        looked = map_threads(_Look(spec.root, sensor, key), list(found.files), f"Headers of {spec.root.name}")
        cut = _cut_whole(list(looked), spec) if spec.tile is None else _cut_tiles(list(looked), spec, spec.tile, key)
        whole = StackReader(spec.root, sensor)
        self._not_taken = NotTaken(dict(found.others), found.links, cut.edges)
        super().__init__(
            spec,
            Listing(
                ids=cut.ids,
                addresses={key: cut.addresses},
                columns={"time": cut.times},
                rejected=tuple(cut.rejected),
                facts={"pictures": len(found.files)},
                edges=cut.edges,
            ),
            {key: whole if spec.tile is None else TiledReader(whole, spec.tile)},
        )

    @property
    def not_taken(self) -> NotTaken:
        """Files of other kinds below the root, and the pixels at the edges."""
        return self._not_taken


class TiledReader:
    """Tiles of patches; an address is that of a patch with the tile's first row and column.

    Args:
        whole: Reads the patches.
        tile: Rows and columns of a tile.
    """

    def __init__(self, whole: PatchReader, tile: int) -> None:
        self.whole, self.tile = whole, tile

    @property
    def sensor(self) -> Sensor:
        """That of the patches."""
        return self.whole.sensor

    def files(self, address: str) -> Sequence[Path]:
        """Those of the patch."""
        return self.whole.files(split_item_address(address)[0])

    def shape(self, address: str) -> tuple[int, int]:
        """Height and width of every tile."""
        return (self.tile, self.tile)

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor; see ``PatchReader.read``."""
        patch, (top, left) = split_item_address(address)
        part = window or Window(0, 0, self.tile, self.tile)
        return self.whole.read(patch, positions, Window(top + part.top, left + part.left, part.height, part.width))

    def header(self, address: str) -> Header | None:
        """That of the patch, with its origin moved to the tile's first pixel."""
        patch, (top, left) = split_item_address(address)
        header = self.whole.header(patch)
        if header is None:
            return None
        a, b, c, d, e, f = header.transform
        moved = (a, b, c + a * left + b * top, d, e, f + d * left + e * top)
        return replace(header, height=self.tile, width=self.tile, transform=moved)


@dataclass(frozen=True)
class _Look:
    """Reads the header of a picture below a root, and says what is wrong with one that cannot be used."""

    root: Path
    sensor: Sensor
    key: str

    def __call__(self, path: Path) -> Header | Rejection:
        try:
            header = read_header(path)
            validate_bands(header, self.sensor)
            if self.sensor.bands[0].unit != "class" and has_palette(path):
                raise FlawError(
                    Problem.BANDS,
                    f"{path} has a palette: its values are places in a table of colours. Export it as red, green and "
                    "blue.",
                )
        except FlawError as error:
            return Rejection.from_error(_id(path, self.root), self.key, str(path), error)
        return header


@dataclass(frozen=True)
class _Cut:
    """Names, addresses and times of the samples, one each."""

    ids: list[str]
    addresses: list[str]
    times: list[Any]
    rejected: list[Rejection]
    edges: float = 0.0


def _cut_whole(looked: Sequence[Header | Rejection], spec: PicturesSpec) -> _Cut:
    headers = [one for one in looked if isinstance(one, Header)]
    return _Cut(
        [_id(one.path, spec.root) for one in headers],
        [one.path.relative_to(spec.root).as_posix() for one in headers],
        [acquisition_time(one) for one in headers],
        [one for one in looked if isinstance(one, Rejection)],
    )


def _cut_tiles(looked: Sequence[Header | Rejection], spec: PicturesSpec, tile: int, key: str) -> _Cut:
    stride = spec.stride or tile
    headers = [one for one in looked if isinstance(one, Header)]
    edges = edge_share([(one.height, one.width) for one in headers], tile, stride, spec.edge)
    cut = _Cut([], [], [], [one for one in looked if isinstance(one, Rejection)], edges)
    for one in headers:
        name, time = _id(one.path, spec.root), acquisition_time(one)
        corners = origins(one.height, one.width, tile, stride, spec.edge).tolist()
        if not corners:
            reason = f"{one.path} is {one.height}x{one.width} px, less than a tile of {tile}; choose a smaller tile."
            cut.rejected.append(Rejection(name, key, one.name, reason, Problem.GRID))
        for row, column in corners:
            cut.ids.append(f"{name}/{row}_{column}")
            cut.addresses.append(item_address(one.path.relative_to(spec.root).as_posix(), row, column))
            cut.times.append(time)
    return cut


def _id(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()
