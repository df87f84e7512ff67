"""The samples of a catalogue, opened from its rows alone; a file is looked at when it is first read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.derived.wrapper import WrapperArchive
from terrasieve.archive.folders import NotTaken
from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.protocol import Archive, source_place
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.quality.suspicion import Suspicion
from terrasieve.errors import ArchiveError
from terrasieve.sensors import Sensor

HIDDEN = "terrasieve:"
"""How the names of columns begin that say where a sample's pixels are, which no table of an archive shows."""
FILES = f"{HIDDEN}files"
"""Column of the size and the time of change of each file of a sample, in the order of ``Archive.files``."""
_STATES = pa.list_(pa.struct([("bytes", pa.int64()), ("time", pa.int64())]))


class CatalogueRows(Protocol):
    """What a catalogue says; see ``terrasieve.archive.catalogue.Catalogue``."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def table(self) -> pa.Table:
        """Its rows."""

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance of the archive."""

    @property
    def suspicions(self) -> tuple[Suspicion, ...] | None:
        """What is suspected of the samples."""


class ListedArchive(WrapperArchive):
    """The samples that a catalogue lists, in its order and with its table.

    Opening looks at no file. What a layout finds by searching its folders it finds when the first pixels are asked for;
    of scenes the rows say all.

    Args:
        catalogue: Its rows have the column :data:`FILES`.
        spec: How the archive is opened of which it is a catalogue.
        sensors: That archive's sensors by key.
        not_taken: What lay among that archive's files when it was indexed.
    """

    _not_pickled = WrapperArchive._not_pickled | {"_shown"}

    def __init__(
        self, catalogue: CatalogueRows, spec: ArchiveSpec, sensors: Mapping[str, Sensor], not_taken: NotTaken
    ) -> None:
        self.spec, self.rejected, self.suspicions = spec, (), catalogue.suspicions
        self._path, self._source = catalogue.path, dict(catalogue.source)
        self._sensors, self._lost = dict(sensors), not_taken
        self._shown, self._count = catalogue.table, len(catalogue.table)
        self._names = {}
        self._seen = np.zeros(self._count, np.bool_)
        # The state of the files that were looked at last: tiles of one file come one after the other.
        self._last: dict[str, tuple[int, int]] = {}

    @cached_property
    def archive(self) -> Archive:  # type: ignore[override]  # made when it is first asked for
        """The archive as its layout finds it, or as the rows say."""
        spec: ArchiveSpec = self.spec  # type: ignore[assignment]  # of ours, which a catalogue is written of
        return spec.open_listed(self._shown)

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """Those of the archive that was indexed."""
        return self._sensors

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """Names of the listed samples."""
        return np.array(self._shown["id"].to_pylist(), dtype=np.str_)

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance of the archive when it was indexed, with the number of samples listed as ``subset``."""
        return {**self._source, "subset": len(self)}

    @property
    def not_taken(self) -> NotTaken:
        """What lay among the archive's files when it was indexed."""
        return self._lost

    def __len__(self) -> int:
        return self._count

    def files(self, indices: NDArray[np.int64]) -> Any:
        """Those of the listed samples."""
        return self.archive.files(self._places[indices])

    def table(self) -> pa.Table:
        """The rows of the catalogue, without ``bbox`` and without what opening them takes."""
        return shown(self._shown)

    def catalogue_columns(self, indices: NDArray[np.int64]) -> dict[str, pa.ChunkedArray]:
        """What the catalogue says of the files, which a catalogue of some of its samples takes over."""
        rows = self._shown.take(pa.array(indices))
        return {name: rows[name] for name in rows.column_names if name.startswith(HIDDEN)}

    @cached_property
    def _shown(self) -> pa.Table:
        from terrasieve.archive.catalogue import read_catalogue  # it is written on top of this module

        return read_catalogue(self._path).table

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Position of each listed sample in the archive."""
        names = self.archive.ids
        if np.array_equal(names, self.ids):
            return np.arange(len(self))
        position = {name: index for index, name in enumerate(names.tolist())}
        lost = [name for name in self.ids.tolist() if name not in position]
        if lost:
            raise ArchiveError(lost_samples(self._path, lost, self._source))
        return np.array([position[name] for name in self.ids.tolist()], np.int64)

    def _locate(self, index: int, sensor: str) -> tuple[int, str]:
        place = int(self._places[index])
        if not self._seen[index]:
            self._look_at_files(index, place)
            self._seen[index] = True
        return place, sensor

    def _look_at_files(self, index: int, place: int) -> None:
        """Refuse a sample of which a file is not as it was when it was indexed."""
        paths = list(self.archive.files(np.array([place])))
        said = self._shown[FILES][index].as_py() or []
        states = {path: self._last.get(path) or _state(path) for path in paths}
        now = [states[path] for path in paths]
        then = [(one["bytes"], one["time"]) for one in said]
        changed = next((path for path, old, new in zip(paths, then, now, strict=False) if old != new), None)
        if changed is None and len(then) == len(now):
            # What is refused is looked at again: somebody may restore it.
            self._last = states
            return
        raise FlawError(
            Problem.UNREADABLE,
            f"{changed or ', '.join(paths)} has changed since {self._path} was written, or is lost. Run terrasieve "
            "index again.",
        )


def file_states(archive: Archive, indices: NDArray[np.int64]) -> pa.Array:
    """The column :data:`FILES` of some samples of an archive.

    Args:
        archive: Archive whose files are looked at, and not opened.
        indices: Positions of the samples.
    """
    known: dict[str, tuple[int, int]] = {}
    ends, sizes, times = [0], [], []
    for index in indices.tolist():
        for path in archive.files(np.array([index])):
            size, time = known.get(path) or known.setdefault(path, _state(path))
            sizes.append(size)
            times.append(time)
        ends.append(len(sizes))
    states = pa.StructArray.from_arrays([pa.array(sizes, pa.int64()), pa.array(times, pa.int64())], ["bytes", "time"])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), states)


def holds_states(rows: pa.Table) -> bool:
    """Whether the rows of a catalogue say what each file was, as those of earlier versions do not."""
    return FILES in rows.column_names and bool(rows.schema.field(FILES).type.equals(_STATES))


def shown(rows: pa.Table) -> pa.Table:
    """The rows of a catalogue as the table of an archive."""
    return rows.drop_columns([name for name in rows.column_names if name == "bbox" or name.startswith(HIDDEN)])


def lost_samples(path: Path, lost: list[str], source: Mapping[str, Any]) -> str:
    """The words of an error about samples that an archive no longer has.

    Args:
        path: The catalogue that lists them.
        lost: Their names; at least one.
        source: Provenance of the archive.
    """
    return (
        f"{path} lists {len(lost)} samples that {source_place(source)} no longer has, the first being {lost[0]!r}. "
        "Restore the files, or run terrasieve index again."
    )


def _state(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return -1, -1  # lost, or no local file, whose place is all that is known of it
    return found.st_size, found.st_mtime_ns
