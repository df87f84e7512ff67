"""TenGeoP-SARwv: Sentinel-1A Wave Mode vignettes of 2016, each with one of ten geophysical phenomena.

Wang et al. 2019, "A labelled ocean SAR imagery dataset of ten geophysical phenomena from Sentinel-1 wave mode",
Geoscience Data Journal 6(2), doi 10.17882/56796. Folders ``F`` to ``O`` by class, of GeoTIFF or of PNG, and a list with
a row for each vignette: file, class, swath, time and two coordinates. The list says ``.png`` also where the files are
GeoTIFF.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal

import pyarrow as pa

from terrasieve.archive.folders import CROWDED, DEPTH, list_files, walk
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.class_folders import find_class_folders, list_class_folders
from terrasieve.archive.patches.listing import SEED, Listing, PatchesArchive, grouped_split, stratified_split
from terrasieve.archive.readers.patch_reader import StackReader
from terrasieve.archive.scenes.acquisition_time import find_time
from terrasieve.errors import ArchiveError
from terrasieve.sensors import Band, Sensor

CLASSES: Mapping[str, str] = {
    "F": "Pure Ocean Waves",
    "G": "Wind Streaks",
    "H": "Micro Convective Cells",
    "I": "Rain Cells",
    "J": "Biological Slicks",
    "K": "Sea Ice",
    "L": "Iceberg",
    "M": "Low Wind Area",
    "N": "Atmospheric Front",
    "O": "Oceanic Front",
}
"""Class names by folder, as the data set's own list of definitions has them."""

SENSOR = Sensor(
    name="s1-wv-dn",
    kind="radar",
    bands=(Band(name="VV", common_name="VV", gsd=50, unit="dn", valid_range=(0, 65535)),),
)
"""Backscatter averaged to 50 m, freed of its trend over incidence and stretched to integers, so without calibration."""

SHARES = {"train": 0.80, "val": 0.05, "test": 0.15}
"""Shares of the parts in the two splits that are drawn here."""

Files = Literal["tiff", "png"]
_SUFFIXES: Mapping[str, Files] = {".tif": "tiff", ".png": "png"}
_ROW = re.compile(r"[F-O]/\S+ [F-O] wv[12] \S+ \S+ \S+")
_ORBIT = re.compile(r"-(\d{6})-[0-9a-f]{6}-\d{3}$")
_PLACES = 50
"""Folders that the list, and the class folders, are looked for in."""
_FIELDS = 6
"""Columns of the list: file, class, swath, time and two coordinates."""

_CITATION = """@article{wang2019labelled,
  author  = {Wang, Chen and Mouche, Alexis and others},
  title   = {A labelled ocean {SAR} imagery dataset of ten geophysical phenomena from {Sentinel-1} wave mode},
  journal = {Geoscience Data Journal},
  year    = {2019},
  note    = {doi:10.17882/56796},
}"""


class TenGeoPSpec(ArchiveSpec):
    """A TenGeoP-SARwv folder.

    Attributes:
        root: The folder of the class folders, or one up to six levels above it.
        files: ``tiff`` or ``png``; what is there when None.
    """

    layout: Literal["tengeop-sarwv"] = "tengeop-sarwv"
    root: Path
    files: Files | None = None

    data_set = DataSet(
        title="TenGeoP-SARwv",
        sensors="Sentinel-1 Wave Mode",
        labels="class",
        split="drawn: random, by pass",
        page="tengeop-sarwv.md",
        citation=_CITATION,
    )

    def open(self) -> TenGeoPArchive:
        """The archive; see :class:`TenGeoPArchive`."""
        return TenGeoPArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the ten class folders, of one letter each."""
        for place in islice(walk(folder, 1, tuple(CLASSES), CROWDED), _PLACES):
            if all((place / code).is_dir() for code in CLASSES):
                return Recognition(0.9, f"folders F to O in {place}", cls(root=folder))
        return None


@dataclass(frozen=True)
class _Listed:
    """One row of the list."""

    code: str
    swath: str
    time: datetime | None
    coordinates: tuple[float, float]


class TenGeoPArchive(PatchesArchive):
    """Vignettes of one band, VV, with the class as label; a sample's id is its file's stem.

    The data set publishes no split. Two are drawn with a fixed seed, 80 to 5 to 15: ``split_random`` with the same
    shares of every class, and ``split_pass``, where the vignettes of one orbit, which may show the same scene, stay
    together; it is there where every file's name states its orbit. ``swath`` is ``wv1`` (near 23 degrees of incidence)
    or ``wv2`` (near 36.5). ``longitude`` and ``latitude`` are there where the list is: which of its two numbers is
    which is told by their range, and ``source`` says under ``coordinates`` how it turned out.

    Args:
        spec: Folder of the data set, and which kind of its files to read.

    Raises:
        ArchiveError: The ten class folders are not there, hold both kinds of files, or the list contradicts them.
    """

    def __init__(self, spec: TenGeoPSpec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        folder, suffix = _choose(spec)
        found = list_class_folders(folder, tuple(CLASSES), suffix)
        stems = [Path(address).stem for _, address in found]
        listed, path = _read_list(spec.root)
        for code, address in found:
            row = listed.get(Path(address).stem)
            if row is not None and row.code != code:
                raise ArchiveError(
                    f"{path} says class {row.code} of {address}, which lies in folder {code}; fetch both again."
                )
        labels = [CLASSES[code] for code, _ in found]
        known = [listed.get(stem) for stem in stems]
        order, columns = _coordinates(known)
        super().__init__(
            spec,
            Listing(
                ids=stems,
                addresses={"s1": [address for _, address in found]},
                columns={
                    "label": labels,
                    "time": [(row and row.time) or find_time(stem) for stem, row in zip(stems, known, strict=True)],
                    "swath": [_swath(stem, row) for stem, row in zip(stems, known, strict=True)],
                    **columns,
                    **_splits(stems, labels),
                },
                facts={"coordinates": order, "seed": SEED, "listed_but_absent": len(set(listed) - set(stems))},
            ),
            {"s1": StackReader(folder, SENSOR)},
        )


def _choose(spec: TenGeoPSpec) -> tuple[Path, str]:
    """The folder of the class folders, and the suffix of its files."""
    found = find_class_folders(spec.root, tuple(CLASSES), tuple(_SUFFIXES)) if spec.root.is_dir() else {}
    fitting = [suffix for suffix in found if spec.files in (None, _SUFFIXES[suffix])]
    if not fitting:
        kind = f" with {spec.files} files" if spec.files else ""
        raise ArchiveError(
            f"{spec.root} does not hold the ten class folders F to O{kind} within {DEPTH} levels; name the folder that "
            "the download was unpacked to."
        )
    if len(fitting) > 1:
        kinds = " and ".join(f"{suffix} in {found[suffix]}" for suffix in fitting)
        raise ArchiveError(f"{spec.root} holds {kinds}; set files to tiff or png, or name one of the folders.")
    return found[fitting[0]], fitting[0]


def _read_list(root: Path) -> tuple[dict[str, _Listed], Path | None]:
    """Rows by the stem of the file that they name, and the list; it may be absent."""
    places = [*islice(walk(root, 1, tuple(CLASSES), CROWDED), _PLACES), root.parent]
    for path in (path for place in places for path in list_files(place, ".txt")):
        with path.open(encoding="utf-8", errors="replace") as file:
            # The download may hold other text files; the list is known by its first row, not by its name.
            if not _ROW.match(file.readline()):
                continue
            rows = [line.split() for line in (path.read_text(encoding="utf-8", errors="replace")).splitlines() if line]
        return {Path(row[0]).stem: _parse(row, number, path) for number, row in enumerate(rows, start=1)}, path
    return {}, None


def _parse(row: Sequence[str], number: int, path: Path) -> _Listed:
    try:
        _, code, swath, time, one, other = row[:_FIELDS]
        return _Listed(code, swath, find_time(time), (float(one), float(other)))
    except ValueError as error:
        raise ArchiveError(
            f"{path}, line {number}: {' '.join(row)!r} is no row of the list. Fetch it again."
        ) from error


def _swath(stem: str, row: _Listed | None) -> str | None:
    if row is not None:
        return row.swath
    match = re.search(r"-(wv[12])-", stem)
    return match[1] if match else None


def _coordinates(known: Sequence[_Listed | None]) -> tuple[str, dict[str, pa.Array]]:
    """Which number is the longitude: the one that passes 90 degrees somewhere; no columns where neither does."""
    rows = [row.coordinates for row in known if row is not None]
    if not rows:
        return "no list", {}
    # The published list says neither; only a longitude can pass 90.
    far = [any(abs(pair[place]) > 90 for pair in rows) for place in (0, 1)]
    if far[0] == far[1]:
        return "undecided: both numbers, or neither, pass 90 degrees", {}
    longitude, latitude = (0, 1) if far[0] else (1, 0)
    values = {
        name: pa.array([None if row is None else row.coordinates[place] for row in known], pa.float64())
        for name, place in (("longitude", longitude), ("latitude", latitude))
    }
    return "longitude, latitude" if far[0] else "latitude, longitude", values


def _splits(stems: Sequence[str], labels: Sequence[str]) -> dict[str, list[str]]:
    splits = {"split_random": stratified_split(labels, SHARES)}
    # Vignettes of one orbit may overlap; without every orbit known, two of one scene could come to both sides.
    orbits = [match[1] for stem in stems if (match := _ORBIT.search(stem))]
    if orbits and len(orbits) == len(stems):
        splits["split_pass"] = grouped_split(orbits, SHARES)
    return splits
