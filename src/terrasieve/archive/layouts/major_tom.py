"""Major TOM Core: patches of 10.68 km on a global grid, in Parquet files with a GeoTIFF of each band in every row.

Francis and Czerkawski 2024, "Major TOM: Expandable Datasets for Earth Observation", IGARSS. Columns are those of the
data sets ``Core-S2L1C``, ``Core-S2L2A`` and ``Core-S1RTC``; thumbnails and cloud masks are not read, and ``Core-DEM``,
which is on another grid, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from terrasieve.archive.folders import list_files
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.quality.limits import FlawError, Problem, Rejection
from terrasieve.archive.readers.handles import reading
from terrasieve.archive.readers.parquet import FAILURES, BlobReader, open_parquet, read_table
from terrasieve.archive.readers.patch_reader import item_address
from terrasieve.archive.scenes.acquisition_time import find_time
from terrasieve.console import track_many
from terrasieve.errors import ArchiveError
from terrasieve.sensors import SENSORS, Sensor

SIZE = (1068, 1068)
Product = Literal["s1", "s2c", "s2a"]
FOLDERS: Mapping[str, tuple[str, Sensor]] = {
    "s2a": ("Core-S2L2A", SENSORS["s2-l2a"]),
    "s2c": ("Core-S2L1C", SENSORS["s2-l1c"]),
    "s1": ("Core-S1RTC", SENSORS["s1-linear"].model_copy(update={"nodata": -32768.0})),
}
"""Sentinel-1 RTC is linear backscatter, gamma naught, with -32768 where there is none."""

_ROW = ("grid_cell", "product_id")
_BASELINE = re.compile(r"_N(\d{4})_")

_CITATION = """@inproceedings{francis2024major,
  author    = {Francis, Alistair and Czerkawski, Mikolaj},
  title     = {Major {TOM}: Expandable Datasets for {Earth} Observation},
  booktitle = {IGARSS},
  year      = {2024},
}"""


class MajorTomSpec(ArchiveSpec):
    """A folder of Major TOM Core.

    Attributes:
        root: The folder of one data set, such as ``Core-S2L2A``, or the folder that holds several of them.
        sensors: Which to show; a sample must have all of them. Those that are there when None.
    """

    layout: Literal["major-tom"] = "major-tom"
    root: Path
    sensors: tuple[Product, ...] | None = None

    data_set = DataSet(
        title="Major TOM Core",
        sensors="Sentinel-1 RTC, Sentinel-2 L1C and L2A",
        page="major-tom.md",
        citation=_CITATION,
    )

    def open(self) -> MajorTomArchive:
        """The archive; see :class:`MajorTomArchive`."""
        return MajorTomArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the names of the data sets and the Parquet files in them."""
        found = _folders(folder)
        if not found:
            return None
        names = ", ".join(FOLDERS[key][0] for key in found)
        return Recognition(0.95, f"Parquet files of {names}", cls(root=folder))


@dataclass(frozen=True)
class _Row:
    """One patch of one product."""

    cell: str
    product: str
    address: str

    @property
    def time(self) -> datetime | None:
        return find_time(self.product)

    def seconds_from(self, other: _Row) -> float:
        """Seconds between the two products; without limit where one states no time."""
        if self.time is None or other.time is None:
            return float("inf")
        return abs((self.time - other.time).total_seconds())


class MajorTomArchive(PatchesArchive):
    """Patches of 1068x1068 px on the grid of the bands of 10 m.

    A sample's id is ``<grid cell>/<product>`` of the first sensor shown; of the others it has the product of the same
    cell that is nearest in time. Cells that lack a sensor are counted under ``unpaired`` in ``source``, as parts of the
    data sets are fetched that cover other cells. The column ``baseline`` is the processing baseline that the product's
    name states, such as ``0509``: from ``0400`` on Sentinel-2 carries an offset of 1000.

    Args:
        spec: Folder of one or several of the data sets, and which sensors to show.

    Raises:
        ArchiveError: No Parquet file is there, or no cell has all sensors.
    """

    def __init__(self, spec: MajorTomSpec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        folders = _folders(spec.root)
        wanted: tuple[str, ...] = spec.sensors or tuple(folders)
        lacking = [key for key in wanted or FOLDERS if key not in folders]
        if lacking:
            names = " or ".join(FOLDERS[key][0] for key in lacking)
            raise ArchiveError(f"{spec.root} holds no Parquet files of {names}; name the folder that holds them.")
        rejected: list[Rejection] = []
        rows = {key: _scan(spec.root, folders[key], key, rejected) for key in wanted}
        samples, unpaired = _pair([rows[key] for key in wanted])
        firsts = [sample[0] for sample in samples]
        super().__init__(
            spec,
            Listing(
                ids=[f"{row.cell}/{row.product}" for row in firsts],
                addresses={key: [one[place].address for one in samples] for place, key in enumerate(wanted)},
                columns={
                    "time": [row.time for row in firsts],
                    "grid_cell": [row.cell for row in firsts],
                    "product_id": [row.product for row in firsts],
                    "baseline": [match[1] if (match := _BASELINE.search(row.product)) else None for row in firsts],
                },
                rejected=tuple(rejected),
                facts={"unpaired": unpaired},
            ),
            {key: BlobReader(spec.root, FOLDERS[key][1], _columns(key), SIZE) for key in wanted},
        )


def _columns(key: str) -> dict[str, str]:
    """The column of each band: its name, in small letters for Sentinel-1."""
    return {name: name.lower() if key == "s1" else name for name in FOLDERS[key][1].names}


def _folders(root: Path) -> dict[str, str]:
    """The folder of each product that is there, relative to the root."""
    # The root may be the folder of several data sets, or that of one.
    below = {key: name for key, (name, _) in FOLDERS.items() if _parts(root, name)}
    own = {key: "." for key, (name, _) in FOLDERS.items() if root.name == name and _parts(root, ".")}
    return own or below


def _parts(root: Path, folder: str) -> list[str]:
    """The Parquet files of a product, relative to the root; ``metadata.parquet`` beside them has no pixels."""
    return sorted(str(path.relative_to(root)) for path in list_files(root / folder / "images", ".parquet"))


def _scan(root: Path, folder: str, key: str, rejected: list[Rejection]) -> list[_Row]:
    """The rows of a product's files; what cannot be read or lacks a column is noted."""
    rows: list[_Row] = []
    for part in track_many(_parts(root, folder), f"Files of {FOLDERS[key][0]}"):
        try:
            rows += _rows(root, part, key)
        except FlawError as error:
            rejected.append(Rejection(part, key, str(root / part), str(error), error.problem))
    return rows


def _rows(root: Path, part: str, key: str) -> list[_Row]:
    path = root / part
    with open_parquet(path) as file, reading(path, FAILURES):
        needed = [*_ROW, *_columns(key).values()]
        if lacking := [name for name in needed if name not in file.schema_arrow.names]:
            raise FlawError(
                Problem.BANDS, f"{path} has no column {lacking[0]!r} of {FOLDERS[key][0]}; it is another product."
            )
        lengths = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
        places = ((group, row) for group, length in enumerate(lengths) for row in range(length))
        # A file's pixels are in the same groups, and are not touched.
        cells, products = (column.to_pylist() for column in read_table(path, _ROW).select(_ROW).columns)
        rows = zip(cells, products, places, strict=True)
        return [_Row(cell, name, item_address(part, *place)) for cell, name, place in rows]


def _pair(products: Sequence[Sequence[_Row]]) -> tuple[list[tuple[_Row, ...]], int]:
    """Rows of the first product with the row of each other that is of the same cell and nearest in time."""
    first, *others = products
    cells = [_by_cell(rows) for rows in others]
    samples = [
        (row, *(min(known[row.cell], key=row.seconds_from) for known in cells))
        for row in first
        if all(row.cell in known for known in cells)
    ]
    used = {row.cell for row, *_ in samples}
    return samples, len({row.cell for rows in products for row in rows} - used)


def _by_cell(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = {}
    for row in rows:
        found.setdefault(row.cell, []).append(row)
    return found
