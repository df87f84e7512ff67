"""A plain table of files, CSV or Parquet: ``id``, ``path``, and whatever else is known of each sample.

What every data set that no layout reads can be brought into. ``path`` is relative to the table; for several sensors
there is a column ``path:KEY`` each. ``label``, ``split`` and ``time`` are what they say; further columns are kept,
numbers as floating-point, so that they can be regressed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from pydantic import Field

from terrasieve.archive.layout import ArchiveSpec, DataSet
from terrasieve.archive.patches.labels import class_names, is_class
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.quality.limits import Problem, Rejection
from terrasieve.archive.quality.offset import STATED, stated_free
from terrasieve.archive.readers.byte_limits import check_file_bytes
from terrasieve.archive.readers.images import SUFFIXES, SuffixReader
from terrasieve.archive.readers.parquet import read_table
from terrasieve.archive.scenes.acquisition_time import parse_time
from terrasieve.console import track_many
from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.files.local_paths import local_path
from terrasieve.sensors import SENSORS, Sensor, anchored_sensor, load_sensor

SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
_TEXTS = ("id", "label", "split", "time")
_RESERVED = ("geometry", "bbox", "crs", "transform")
_TIME = pa.timestamp("us", tz="UTC")


class PlainTableSpec(ArchiveSpec):
    """A table of files.

    Attributes:
        root: The table, ``.csv`` or ``.parquet``.
        sensors: Of each key the sensor: the name of a built-in one, the path of a YAML declaration (relative to the
            archive's own YAML file, else to the table's folder), or the declaration itself. With one sensor the column
            is ``path`` or ``path:KEY``, with several ``path:KEY``.
        outside: Whether paths may lead out of the table's folder.
    """

    layout: Literal["table"] = "table"
    root: Path
    sensors: dict[str, str | Sensor] = Field(default_factory=dict)
    outside: bool = False

    data_set = DataSet(
        title="plain table", sensors="any, named by you", labels="class, numbers", split="yours", page="plain-table.md"
    )

    def anchored(self, folder: Path) -> PlainTableSpec:
        """The same with a relative root, and sensors that are files, taken from a folder."""
        sensors = {key: anchored_sensor(said, folder) for key, said in self.sensors.items()}
        return super().anchored(folder).model_copy(update={"sensors": sensors})

    def open(self) -> PlainTableArchive:
        """The archive; see :class:`PlainTableArchive`."""
        return PlainTableArchive(self)


class PlainTableArchive(PatchesArchive):
    """The samples that a table lists, in its order.

    Files that are absent or empty, of an unknown suffix, or not named at all are rejected. ``split`` is ``train``,
    ``val`` (or ``validation``) or ``test``; ``time`` is ISO 8601, in UTC where it names no zone. An empty cell of a CSV
    file, and one that says NA, null or NaN, is unknown.

    Args:
        spec: Path of the table, the sensor of each of its columns of paths, and where these may lead.

    Raises:
        ArchiveError: The table cannot be read, lacks a column, names no sensor, or a path leads out of its folder.
        BandError: A sensor is unknown.
    """

    _not_pickled = PatchesArchive._not_pickled | {"_with_stated"}

    def __init__(self, spec: PlainTableSpec) -> None:
        path = spec.root.resolve()
        if not spec.sensors:
            raise ArchiveError(
                f"{path} does not say what its files are of: name the sensor, for example --sensor s2=s2-l2a, or in a "
                f"YAML file with layout: table and sensors. Built in: {', '.join(SENSORS)}."
            )
        sensors: dict[str, Sensor] = {}
        for key, said in spec.sensors.items():
            # A built-in name goes before a file of that name, and a file beside the table before one in this folder.
            beside = isinstance(said, str) and said not in SENSORS and (path.parent / said).is_file()
            sensors[key] = said if isinstance(said, Sensor) else load_sensor(path.parent / said if beside else said)
        # Sensors as a catalogue keeps them: a YAML file, which may be moved, is replaced by what it declares.
        kept_sensors = {
            key: said if isinstance(said, str) and said in SENSORS else sensors[key]
            for key, said in spec.sensors.items()
        }
        spec = spec.model_copy(update={"root": path, "sensors": kept_sensors})
        table = _read(path)
        ids = _ids(table, path)
        paths = {key: _column_of_paths(table, key, len(sensors), path) for key in sensors}
        if not spec.outside:
            for column in paths.values():
                _refuse_outside(column, path)
        rejected = _reject(ids, paths, path)
        lost = {rejection.id for rejection in rejected}
        kept = [place for place, name in enumerate(ids) if name not in lost]
        columns = _columns(table.take(pa.array(kept, pa.int64())), path)
        super().__init__(
            spec,
            Listing(
                ids=[ids[place] for place in kept],
                addresses={key: [column[place] or "" for place in kept] for key, column in paths.items()},
                columns=columns,
                rejected=rejected,
            ),
            {key: SuffixReader(path.parent, sensor) for key, sensor in sensors.items()},
        )

    def table(self) -> pa.Table:
        """See ``Archive.table``; with every column of the table, and whether files state an offset."""
        return self._with_stated

    @cached_property
    def _with_stated(self) -> pa.Table:
        table = super().table()
        free = stated_free(self.sensors, self.stated_offsets, len(self))
        if False not in free:
            return table
        # What the table itself says was true of the pixels as they are stored.
        own = table[STATED].to_pylist() if STATED in table.column_names else [None] * len(table)
        merged = [False if lifted is False else said for lifted, said in zip(free, own, strict=True)]
        kept = table.drop_columns([STATED]) if STATED in table.column_names else table
        return kept.append_column(STATED, pa.array(merged, pa.bool_()))


def is_table(path: Path) -> bool:
    """Whether a file is a plain table: a CSV file, or a Parquet file with ``id`` and ``path`` or ``path:KEY``."""
    if path.suffix != ".parquet" or not path.is_file():
        return path.suffix == ".csv" and path.is_file()
    try:
        names = pq.read_schema(local_path(path)).names
    except (OSError, pa.ArrowException):
        return False
    return "id" in names and any(name == "path" or name.startswith("path:") for name in names)


def table_spec_from_options(path: Path, sensors: Sequence[str]) -> PlainTableSpec:
    """A table's spec from what fits on a command line.

    Args:
        path: The table, ``.csv`` or ``.parquet``.
        sensors: Texts of the form ``key=sensor``, such as ``s2=s2-l2a``.

    Raises:
        ConfigError: An entry is malformed, or a key is used twice.
    """
    found: dict[str, str | Sensor] = {}
    for text in sensors:
        key, _, sensor = text.partition("=")
        if not key or not sensor or key in found:
            raise ConfigError(f"--sensor {text!r} is not key=sensor, such as s2=s2-l2a, with a key of its own.")
        found[key] = sensor
    return PlainTableSpec(root=path, sensors=found)


# ------------------------------------------------------------------- the table


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise ArchiveError(f"{path} does not exist; name a .csv or .parquet file.")
    try:
        table = read_table(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} cannot be read as a table: {error}. Write it again.") from error
    # Columns that a table of an archive gets from elsewhere.
    taken = [name for name in table.column_names if name in _RESERVED or name.startswith("asset:")]
    doubled = [name for name in table.column_names if table.column_names.count(name) > 1]
    if taken or doubled:
        raise ArchiveError(f"{path} has a column {(taken or doubled)[0]!r}, which is taken; rename or remove it.")
    return table


def _read_csv(path: Path) -> pa.Table:
    check_file_bytes(path)
    # The names come first: what looks like numbers in the columns of texts, such as the id 007, has to stay text.
    with path.open(encoding="utf-8-sig") as file:
        names = [name.strip().strip('"') for name in file.readline().split(",")]
    texts = {name: pa.string() for name in names if name in _TEXTS or name.partition(":")[0] == "path"}
    return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=texts, strings_can_be_null=True))


def _ids(table: pa.Table, path: Path) -> list[str]:
    if "id" not in table.column_names:
        raise ArchiveError(f"{path} has no column 'id'; it has {', '.join(table.column_names)}. Add one, unique a row.")
    ids = table["id"].cast(pa.string()).to_pylist()
    if None in ids:
        raise ArchiveError(f"{path}, row {ids.index(None) + 1} has no id; give it one.")
    name, count = Counter(ids).most_common(1)[0] if ids else ("", 0)
    if count > 1:
        raise ArchiveError(f"{path} has {count} rows with the id {name!r}; give each its own.")
    return [str(name) for name in ids]


# ------------------------------------------------------------------- its files


def _column_of_paths(table: pa.Table, key: str, sensors: int, path: Path) -> list[str | None]:
    names = [f"path:{key}"] + (["path"] if sensors == 1 else [])
    found = next((name for name in names if name in table.column_names), None)
    if found is None:
        have = ", ".join(table.column_names)
        raise ArchiveError(f"{path} has no column {names[0]!r} for the sensor {key!r}; it has {have}.")
    return [None if one is None else str(one) for one in table[found].to_pylist()]


def _refuse_outside(column: Sequence[str | None], path: Path) -> None:
    """Refuse a table with a path that leads elsewhere, by ``..``, by being absolute or through a link."""
    folders: dict[str, bool] = {}
    for number, one in enumerate(column, start=1):
        # Folders are few and files many: each folder is followed once, a file only where it is a link.
        folder = os.path.dirname(one or "")
        if folder not in folders:
            folders[folder] = _is_within(path.parent / folder, path.parent)
        file = path.parent / (one or "")
        leads_out = file.name == ".." or (os.path.islink(file) and not _is_within(file, path.parent))
        if leads_out or not folders[folder]:
            raise ArchiveError(
                f"{path}, row {number}: {one!r} leads out of the table's folder. Correct it, or set outside: true in a "
                "YAML file with layout: table if you trust the table."
            )


def _is_within(place: Path, folder: Path) -> bool:
    try:
        return place.resolve().is_relative_to(folder)
    except (OSError, ValueError):
        return True  # no such place can exist; its files are rejected as absent


def _reject(ids: Sequence[str], paths: Mapping[str, Sequence[str | None]], table: Path) -> tuple[Rejection, ...]:
    """The samples with a file that cannot be a patch; names and sizes are looked at, no pixels."""
    rejected: list[Rejection] = []
    for number, name in enumerate(track_many(ids, f"Files of {table.name}")):
        for key, column in paths.items():
            one = column[number]
            reason = "names no file. Add its path." if not one else _why_not(table.parent / one)
            if reason:
                asset = str(table.parent / one) if one else ""
                where = asset or f"{table}, row {number + 1}, sensor {key!r}"
                rejected.append(Rejection(name, key, asset, f"{where} {reason}", Problem.UNREADABLE))
    return tuple(rejected)


def _why_not(file: Path) -> str | None:
    if file.suffix.lower() not in SUFFIXES:
        return f"is none of {', '.join(SUFFIXES)}. Convert it."
    try:
        size = file.stat().st_size if file.is_file() else None
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}. Correct the path."
    if size is None:
        return "does not exist, or is no file. Correct the path, or fetch it."
    return None if size else "is empty. Fetch it again."


# ----------------------------------------------------------- its other columns


def _columns(table: pa.Table, path: Path) -> dict[str, pa.Array]:
    """Every column but the names of samples and files, in the type that a table of an archive has."""
    found: dict[str, pa.Array] = {}
    for name in table.column_names:
        values = table[name].combine_chunks()
        if name == "id" or name == "path" or name.startswith("path:"):
            continue
        if name == "split":
            found[name] = pa.array([_split(one, path) for one in values.to_pylist()], pa.string())
        elif name == "time":
            found[name] = _times(values, path)
        else:
            found[name] = _typed(values, name, path)
    return found


def _typed(values: pa.Array, name: str, path: Path) -> pa.Array:
    """Numbers as floating-point, labels as text (null where one names no class), all else as it is."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if name == "label":
        if pa.types.is_nested(values.type):
            raise ArchiveError(f"{path} has a label of type {values.type}; call a column of several labels 'labels'.")
        return class_names(values)
    # A target of regression is looked for among floating-point columns.
    whole = pa.types.is_integer(values.type) or pa.types.is_decimal(values.type)
    return values.cast(pa.float64()) if whole else values


def _split(said: str | None, path: Path) -> str | None:
    if said is None:
        return None
    if str(said) not in SPLITS:
        raise ArchiveError(f"{path} has the split {said!r}; write {', '.join(SPLITS)}, or leave it empty.")
    return SPLITS[str(said)]


def _times(values: pa.Array, path: Path) -> pa.Array:
    """Microseconds in UTC, from times of any resolution, days, or texts that state one each."""
    if pa.types.is_timestamp(values.type):
        # Nanoseconds, as pandas writes them, are cut off.
        return values.cast(pa.timestamp("us", tz=values.type.tz), safe=False).cast(_TIME)
    if pa.types.is_date(values.type):
        return values.cast(pa.timestamp("us")).cast(_TIME)
    return pa.array([_time(one, path) for one in values.to_pylist()], _TIME)


def _time(said: object, path: Path) -> datetime | None:
    text = None if said is None else str(said)
    if text is None or not is_class(text):
        return None
    found = parse_time(text)
    if found is None:
        raise ArchiveError(f"{path} has the time {said!r}; write ISO 8601, such as 2016-02-29T17:05:00Z.")
    return found
