"""GEO-Bench-2 as it is published: tortilla files of one data set each, with the split and the labels in their tables.

Simumba et al. 2025, "GEO-Bench-2: From Performance to Capability, Rethinking Evaluation in Geospatial AI". Which bands
the rasters have is stated nowhere in them. It is taken from the code and the data that they were made with, which is
not always what the benchmark's loader says: radar is VH before VV, and the aerial pictures of TreeSatAI are
near-infrared, green, blue, red.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from terrasieve.archive.folders import list_files
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.layouts.so2sat import S1 as SO2SAT_S1
from terrasieve.archive.layouts.so2sat import S2 as SO2SAT_S2
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.readers.tortilla import (
    FORMAT,
    LENGTH,
    NAME,
    OFFSET,
    Extent,
    TortillaReader,
    read_footer,
    sample_address,
)
from terrasieve.errors import ArchiveError, ConfigError, SampleError, nearest
from terrasieve.sensors import SENSORS, Band, Sensor

SPLITS = {"train": "train", "validation": "val", "test": "test"}
SUFFIX = ".tortilla"
_FILE = re.compile(r"(geobench_)?([a-z0-9_]+?)(\.\d+\.part)?\.tortilla")
_SPLIT, _SHAPE, _TIME = "tortilla:data_split", "stac:raster_shape", "stac:time_start"

Name = Literal["benv2", "treesatai", "so2sat", "forestnet", "caffe", "flair2", "spacenet7"]

_CITATION = """@article{simumba2025geobench2,
  author  = {Simumba, Naomi and Lehmann, Nils and Fraccaro, Paolo and others},
  title   = {{GEO-Bench-2}: From Performance to Capability, Rethinking Evaluation in Geospatial {AI}},
  journal = {arXiv:2511.15658},
  year    = {2025},
}"""


# -------------------------------------------------------------------- the sets


def _eight_bit(name: str, kind: Literal["optical", "radar"], gsd: float, **bands: str | None) -> Sensor:
    made = tuple(
        Band(name=band, common_name=common, gsd=gsd, unit="dn", valid_range=(0, 255)) for band, common in bands.items()
    )
    visible = ("red", "green", "blue")
    return Sensor(name=name, kind=kind, bands=made, sets={"rgb": visible} if set(visible) <= set(bands) else {})


def _map(name: str, gsd: float, lowest: int, highest: int) -> Sensor:
    band = Band(name="class", gsd=gsd, unit="class", valid_range=(lowest, highest))
    return Sensor(name=name, kind="map", bands=(band,), nodata=None if lowest == 0 else 0)


@dataclass(frozen=True)
class _Raster:
    """One raster of each sample.

    Attributes:
        item: Its name in the sample's tortilla.
        sensor: What is shown of it.
        in_file: All of its bands, where not all are shown.
        highest: Largest value that counts as itself; what is above counts as it.
    """

    item: str
    sensor: Sensor
    in_file: Sensor | None = None
    highest: int | None = None


@dataclass(frozen=True)
class _Set:
    """What the files of a data set hold.

    Attributes:
        rasters: By key of the sensor; the first says where a sample lies.
        labels: Column with the class of a sample, or with its classes; None where there are maps.
        classes: Name of each value of the map; empty where there is none.
        size: Height and width of samples, where the table of samples does not say it.
        timed: Whether ``stac:time_start`` is seconds since 1970; elsewhere it is a year, or nothing.
    """

    rasters: Mapping[str, _Raster]
    labels: str | None = None
    classes: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    timed: bool = False


_AERIAL = _eight_bit("treesatai-aerial", "optical", 0.2, nir="nir", green="green", blue="blue", red="red")
_FOREST = _eight_bit(
    "forestnet-landsat",
    "optical",
    15,
    blue="blue",
    green="green",
    red="red",
    nir="nir08",
    swir16="swir16",
    swir22="swir22",
)
_FLAIR = _eight_bit("flair2-aerial", "optical", 0.2, red="red", green="green", blue="blue", nir="nir", height=None)
_PLANET = _eight_bit("spacenet7-planet", "optical", 4, red="red", green="green", blue="blue", alpha=None)

SETS: Mapping[Name, _Set] = {
    "benv2": _Set(
        {"s1": _Raster("s1", SENSORS["s1"].select("VH", "VV")), "s2": _Raster("s2", SENSORS["s2-l2a"])},
        labels="labels",
        timed=True,
    ),
    "treesatai": _Set(
        {
            "aerial": _Raster("aerial", _AERIAL),
            "s2": _Raster(
                "s2",
                SENSORS["s2-l2a"].select(
                    *("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09")
                ),
            ),
        },
        labels="species_labels",
    ),
    "so2sat": _Set(
        {"s1": _Raster("s1", SO2SAT_S1.select("VH_real", "VV_real")), "s2": _Raster("s2", SO2SAT_S2)},
        labels="labels",
        size=(32, 32),
    ),
    "forestnet": _Set({"image": _Raster("image", _FOREST)}, labels="labels"),
    "caffe": _Set(
        {
            "image": _Raster("img", _eight_bit("caffe-sar", "radar", 7, gray=None)),
            "mask": _Raster("mask", _map("caffe-zones", 7, 1, 3)),
        },
        classes=("not seen", "rock", "glacier", "ocean and ice melange"),
        timed=True,
    ),
    "flair2": _Set(
        {
            "aerial": _Raster("aerial", _FLAIR.select("red", "green", "blue", "nir"), _FLAIR),
            "mask": _Raster("mask", _map("flair2-land-cover", 0.2, 1, 13), highest=13),
        },
        classes=(
            *("no label", "building", "pervious surface", "impervious surface", "bare soil", "water", "coniferous"),
            *("deciduous", "brushwood", "vineyard", "herbaceous vegetation", "agricultural land", "plowed land"),
            "other",
        ),
        timed=True,
    ),
    "spacenet7": _Set(
        {
            "image": _Raster("images", _PLANET.select("red", "green", "blue"), _PLANET),
            "mask": _Raster("mask", _map("spacenet7-buildings", 4, 0, 1)),
        },
        classes=("no building", "building"),
        timed=True,
    ),
}
"""By name in the files. Those of TreeSatAI hold radar, too, whose decibels were cast to integers without a sign: it is
not read. ForestNet's pictures are of Landsat 8, stretched to 8 bits."""


# ------------------------------------------------------------------ the layout


class GeoBench2Spec(ArchiveSpec):
    """A folder of GEO-Bench-2.

    Attributes:
        root: The folder that holds the files of one data set, such as ``geobench_benv2.tortilla``, or of several.
        set: Which data set is meant, where there are several.
        sensors: Which sensors to show; all that are read when None.
    """

    layout: Literal["geobench2"] = "geobench2"
    root: Path
    set: Name | None = None
    sensors: tuple[str, ...] | None = None

    data_set = DataSet(
        title="GEO-Bench-2",
        sensors="Sentinel-1 and -2, Landsat, aerial, Planet, by data set",
        labels="class, several classes, map",
        split="official",
        page="geobench2.md",
        versions="seven of its data sets",
        citation=_CITATION,
    )

    def open(self) -> GeoBench2Archive:
        """The archive; see :class:`GeoBench2Archive`."""
        return GeoBench2Archive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the names of its files, of one data set."""
        found = [name for name in _files(folder, published=True) if name in SETS]
        if len(found) != 1:
            return None
        return Recognition(1.0, f"tortilla files of GEO-Bench-2's {found[0]}", cls(root=folder))

    @classmethod
    def near_miss(cls, folder: Path) -> str | None:
        """Several data sets in one folder, or one that is not read."""
        found = _files(folder, published=True)
        return _why_not(folder, list(found)) if found else None


class GeoBench2Archive(PatchesArchive):
    """Samples of one data set, with the published split.

    A sample's id is its name in the table, such as ``sample_12798``. ``label`` is the class of So2Sat and ForestNet,
    ``labels`` the classes of BigEarthNet and TreeSatAI; the others have a sensor ``mask`` of classes. Where a sample
    lies is said by the first raster, as the second of BigEarthNet and TreeSatAI states the resolution that it had
    before it was resampled. What belongs to an additional test split is in ``test`` or ``train`` as the table says.

    Args:
        spec: Folder, data set, and which sensors to show.

    Raises:
        ArchiveError: No file of a data set that is read is there, or one is damaged.
        ConfigError: A sensor is wanted that the data set does not have.
    """

    def __init__(self, spec: GeoBench2Spec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        name, files = _chosen(spec)
        about = SETS[name]
        for key in spec.sensors or ():
            if key not in about.rasters:
                raise ConfigError(f"GEO-Bench-2's {name} has no sensor {key!r}.{nearest(key, about.rasters)}")
        wanted = spec.sensors or tuple(about.rasters)
        rows = [row for file in files for row in _rows(spec.root, file, about)]
        place = next(iter(about.rasters.values())).item
        addresses = [row["address"] for row in rows]
        columns: dict[str, Any] = {"split": [row["split"] for row in rows]}
        columns |= {"time": [row["time"] for row in rows]} if about.timed else {}
        columns |= _labels(rows, about, spec.root / files[0])
        super().__init__(
            spec,
            Listing(
                ids=[row["id"] for row in rows],
                addresses=dict.fromkeys(wanted, addresses),
                columns=columns,
                facts={"set": name, "classes": list(about.classes)} if about.classes else {"set": name},
            ),
            {
                key: TortillaReader(spec.root, one.sensor, one.item, place, one.in_file, one.highest)
                for key, one in about.rasters.items()
                if key in wanted
            },
        )


def _files(folder: Path, published: bool = False) -> dict[str, list[str]]:
    """Names of the files of each data set, in order of their parts.

    Args:
        folder: Where they lie.
        published: Whether those without ``geobench_`` before their name are left out.
    """
    found: dict[str, list[str]] = {}
    for path in list_files(folder, SUFFIX):
        match = _FILE.fullmatch(path.name)
        if match and (match[1] or not published):
            found.setdefault(match[2], []).append(path.name)
    return found


def _chosen(spec: GeoBench2Spec) -> tuple[Name, list[str]]:
    found = _files(spec.root)
    names = [name for name in get_args(Name) if name in found and spec.set in (None, name)]
    if len(names) != 1:
        raise ArchiveError(_why_not(spec.root, list(found), spec.set))
    return names[0], found[names[0]]


def _why_not(root: Path, found: Sequence[str], wanted: str | None = None) -> str:
    known = [name for name in found if name in SETS]
    if wanted is not None and found:
        return f"{root} holds no files of GEO-Bench-2's {wanted}, but of {', '.join(found)}; name the folder of them."
    if len(known) > 1:
        return (
            f"{root} holds several of GEO-Bench-2's data sets ({', '.join(known)}); describe the one that is meant in "
            f"a YAML file: {{layout: geobench2, root: {root}, set: {known[0]}}}."
        )
    if found:
        return (
            f"{root} holds GEO-Bench-2's {', '.join(found)}, of which none is read: only {', '.join(SETS)} are, which "
            "have one image of each sensor and a class or a map."
        )
    return f"{root} holds no file like geobench_benv2{SUFFIX}; name the folder that holds the files of one data set."


def _rows(root: Path, file: str, about: _Set) -> Iterator[dict[str, Any]]:
    """What a file's table says of each sample."""
    path = root / file
    try:
        wanted = [_SPLIT, _SHAPE, _TIME, *([about.labels] if about.labels else [])]
        whole = Extent(0, path.stat().st_size)
        for row in read_footer(path, wanted).to_pylist():
            where = f"Sample {row[NAME]!r} of {path}"
            if row[FORMAT] != "TORTILLA":
                raise ArchiveError(f"{where} is of the format {row[FORMAT]!r}, not TORTILLA. Fetch the file again.")
            extent = whole.part(row[OFFSET], row[LENGTH], where)
            address = sample_address(file, extent, _size(row.get(_SHAPE), about, where))
            if (split := row.get(_SPLIT)) not in SPLITS:
                raise ArchiveError(f"{where} is in the split {split!r}, not {', '.join(SPLITS)}. Fetch the file again.")
            yield {
                "id": str(row[NAME]),
                "address": address,
                "split": SPLITS[split],
                "time": _time(row.get(_TIME)),
                "label": row.get(about.labels or ""),
            }
    except (OSError, SampleError) as error:
        raise ArchiveError(str(error)) from error


def _size(stated: Any, about: _Set, where: str) -> tuple[int, int]:
    if about.size is not None:
        return about.size
    if not isinstance(stated, list) or len(stated) != 2 or not all(isinstance(n, int) and n > 0 for n in stated):
        raise ArchiveError(f"{where} has the {_SHAPE} {stated!r}, not height and width. Fetch the file again.")
    return (stated[0], stated[1])


def _time(seconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _labels(rows: Sequence[Mapping[str, Any]], about: _Set, path: Path) -> dict[str, Any]:
    """The column of labels; several of a sample are a list."""
    if about.labels is None:
        return {}
    values = [row["label"] for row in rows]
    try:
        if any(isinstance(value, list) for value in values):
            return {"labels": pa.array(values, pa.list_(pa.string()))}
        return {"label": pa.array(values, pa.string())}
    except (pa.ArrowException, TypeError) as error:
        raise ArchiveError(
            f"{path} has labels in {about.labels!r} that are no names: {error}. Fetch it again."
        ) from error
