"""The catalogue of an archive: one GeoParquet row for each sample that is fit for use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from terrasieve.archive.catalogued import FILES, ListedArchive, file_states, holds_states, lost_samples, shown
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.folders import NotTaken
from terrasieve.archive.footprints import write_geoparquet
from terrasieve.archive.journal import Journal
from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.packed.integrity import digest
from terrasieve.archive.packed.store import KEY
from terrasieve.archive.protocol import Archive, source_place
from terrasieve.archive.quality.audit import Audit, Auditor, audit
from terrasieve.archive.quality.limits import QualityLimits, QualityReport, Quarantine
from terrasieve.archive.quality.suspicion import Suspicion, suspicions_path, write_suspicions
from terrasieve.archive.readers.parquet import read_table
from terrasieve.archive.readers.zarr_codecs import parse_metadata
from terrasieve.archive.scenes.first_look import FirstLook, FoundBefore, looks_by_name
from terrasieve.archive.scenes.survey import ScenesSpec
from terrasieve.archive.scenes.tiled import ScenesArchive
from terrasieve.archive.source_state import files_state, source_state
from terrasieve.archive.stac.items import unsigned
from terrasieve.errors import ArchiveError, SampleError, TooManyBadSamplesError
from terrasieve.files.local_paths import find_address
from terrasieve.sensors import Sensor

FORMAT = 1
"""Version of the metadata; catalogues of another one are refused."""


@dataclass(frozen=True)
class IndexReport(QualityReport):
    """What indexing found.

    Attributes:
        suspicions: What may spoil a run without stopping it; nothing was left out for it. None where only headers
            were read.
        listed: The JSON file that lists all ids of each; absent where only headers were read.
        placeless: Number of good samples whose files do not say where they lie.
        archive: What was indexed, as it is open.
    """

    suspicions: tuple[Suspicion, ...] | None
    listed: Path
    placeless: int
    archive: Archive = field(repr=False, compare=False)


@dataclass(frozen=True)
class Catalogue:
    """A catalogue as read from its file.

    Attributes:
        path: The GeoParquet file that it was read from.
        table: The rows; columns as ``Archive.table``, and ``bbox``.
        spec: How to open the archive, as it is written in YAML.
        source: The archive's provenance when it was indexed.
        suspicions: What was suspected then, without the lists of ids; None where only headers were read.
        files: State of the listed samples' files then, as ``files_state`` gives it; None in catalogues of earlier
            versions.
        sensors: The archive's sensors by key, as JSON holds them; None in catalogues of earlier versions.
        not_taken: What lay among the archive's files and was neither among its samples nor rejected.
    """

    path: Path
    table: pa.Table
    spec: Mapping[str, Any]
    source: Mapping[str, Any]
    suspicions: tuple[Suspicion, ...] | None = None
    files: str | None = None
    sensors: Mapping[str, Any] | None = None
    not_taken: NotTaken = field(default_factory=NotTaken)

    def open(self, spec: ArchiveSpec) -> Archive:
        """The samples that the catalogue lists, from its rows alone where they say what their files were.

        Args:
            spec: ``spec``, as it was parsed.

        Raises:
            ArchiveError: In a catalogue of an earlier version: a listed sample is no longer in the archive, or a file
                of one has changed since.
        """
        if self.sensors is None or not holds_states(self.table):
            return self.restrict(spec.open_listed(self.table))
        try:
            sensors = {key: Sensor.model_validate(one) for key, one in self.sensors.items()}
        except (ValidationError, AttributeError) as error:
            raise ArchiveError(f"{self.path} has damaged metadata: {error}. Run terrasieve index again.") from error
        return ListedArchive(self, spec, sensors, self.not_taken)

    def restrict(self, archive: Archive) -> CataloguedArchive:
        """The archive's samples that the catalogue lists, in the catalogue's order and with its table.

        Raises:
            ArchiveError: A listed sample is no longer in the archive, or a file of one has changed since.
        """
        return CataloguedArchive(archive, self)


class CataloguedArchive(SubsetArchive):
    """The samples of an archive that a catalogue lists; its table is the catalogue's own.

    Args:
        archive: The whole, as it is opened from the spec of the catalogue.
        catalogue: Its column ``id`` names the samples and their order.

    Raises:
        ArchiveError: A listed sample is no longer in the archive, or a file of one has changed since.
    """

    _not_pickled = SubsetArchive._not_pickled | {"_rows"}

    def __init__(self, archive: Archive, catalogue: Catalogue) -> None:
        position = {name: index for index, name in enumerate(archive.ids.tolist())}
        wanted = catalogue.table["id"].to_pylist()
        lost = [name for name in wanted if name not in position]
        if lost:
            raise ArchiveError(lost_samples(catalogue.path, lost, archive.source))
        super().__init__(archive, [position[name] for name in wanted])
        if catalogue.files not in (None, files_state(self)):
            raise ArchiveError(
                f"{catalogue.path} is out of date: files of {source_place(archive.source)} have changed since it was "
                "written. Run terrasieve index again."
            )
        self.suspicions = catalogue.suspicions
        self._path = catalogue.path
        self._rows = shown(catalogue.table)

    def table(self) -> pa.Table:
        """The rows of the catalogue, without ``bbox`` and without what opening them takes."""
        return self._rows

    @cached_property
    def _rows(self) -> pa.Table:
        return shown(read_catalogue(self._path).table)


def index_archive(
    archive: Archive | ArchiveSpec,
    out: Path,
    limits: QualityLimits | None = None,
    max_bad: float = 0.01,
    depth: Literal["pixels", "headers"] = "pixels",
    workers: int = 0,
    found: FoundBefore | None = None,
) -> IndexReport:
    """Check every sample and write the catalogue of the good ones.

    Memory holds the pixels of one sample for each process, and of the others a row of the table. A run that was
    interrupted goes on when the same call is made again, from a journal beside ``out`` that is removed at the end, and
    comes to the same result; it begins anew where a file or the table has changed since.

    Args:
        archive: Archive of which every sample is checked, or how it is opened. The spec of a folder of scenes saves
            half of the time where scenes are small: header and pixels of a file are read in one open.
        out: The catalogue, ``.parquet``; the list of rejected samples goes to ``<out>.quarantine.csv``, what else is
            suspected to ``<out>.suspicions.json``.
        limits: How much may be missing from a sample; the defaults of ``QualityLimits`` when None.
        max_bad: Highest share of samples that may be rejected, 0 to 1.
        depth: ``pixels`` reads every sample; ``headers`` trusts what the files say about themselves.
        workers: Reader processes; 0 reads in this one. The result is the same.
        found: What parts found of every sample, as ``IndexJob.found`` gives it; no pixel is read then.

    Raises:
        TooManyBadSamplesError: More than ``max_bad`` are bad; the list is written, the catalogue is not.
        ArchiveError: The archive cannot say how it is opened or lies on the net, or no sample is good.
        PartsError: What parts found is damaged, or of other files.
    """
    limits = limits or QualityLimits()
    with ExitStack() as stack:
        look = None
        if isinstance(archive, ScenesSpec) and depth == "pixels" and looks_by_name(archive, found is not None):
            look = FirstLook(_journal_of(out), stack, limits, max_bad, workers, found)
            archive = _survey(archive, look, out)
        elif isinstance(archive, ArchiveSpec):
            archive = archive.open()
        spec = spec_of_files(archive)
        listed = out.with_name(f"{out.name}.quarantine.csv")
        try:
            quarantine = Quarantine.begin(listed, len(archive), archive.rejected, max_bad)
            table = archive.table()
            auditor = Auditor(archive, table, limits)
            if depth == "headers":
                seen = Audit()
            elif look is not None:
                seen = audit(auditor, quarantine, look.record, look.entries, workers, look.judged)
            else:
                record = stack.enter_context(Journal(_journal_of(out), _request(auditor, spec)))
                seen = audit(auditor, quarantine, record, record.replay() if found is None else found.entries, workers)
        except TooManyBadSamplesError:
            # Files are mended next, and what the journal says of them would no longer hold.
            _journal_of(out).unlink(missing_ok=True)
            raise
    good = np.delete(np.arange(len(archive)), sorted(seen.bad))
    quarantine.write()
    if not len(good):
        _journal_of(out).unlink(missing_ok=True)
        raise ArchiveError(f"{source_place(archive.source)} has no good sample; see {quarantine.path}.")
    if seen.suspicions is None:
        # One of an earlier run would tell of samples as nobody looked at them now.
        suspicions_path(out).unlink(missing_ok=True)
    else:
        write_suspicions(seen.suspicions, suspicions_path(out))
    rows = table.take(pa.array(good))
    write_catalogue(archive, rows, seen.suspicions, out)
    # Last of all: a run that is killed before need not read the pixels again.
    _journal_of(out).unlink(missing_ok=True)
    lost, placeless = (quarantine.bad, quarantine.counts), rows["geometry"].null_count
    return IndexReport(
        out, quarantine.path, len(good), *lost, seen.suspicions, suspicions_path(out), placeless, archive
    )


def write_catalogue(archive: Archive, rows: pa.Table, suspicions: Sequence[Suspicion] | None, out: Path) -> None:
    """Write a catalogue.

    Args:
        archive: Archive that the catalogue is of; the catalogue says how it is opened and where it comes from.
        rows: One row for each sample listed; columns as ``Archive.table``, and perhaps more.
        suspicions: What is suspected of them; None where nobody looked.
        out: The GeoParquet file, replaced when the new one is whole.

    Raises:
        ArchiveError: The archive cannot say how it is opened, or lies on the net.
    """
    position = {name: index for index, name in enumerate(archive.ids.tolist())}
    listed = np.array([position[name] for name in rows["id"].to_pylist()], dtype=np.int64)
    provenance = {
        "format": FORMAT,
        "spec": spec_of_files(archive),
        "source": dict(archive.source),
        "files": files_state(archive, listed),
        "sensors": {key: sensor.model_dump(mode="json") for key, sensor in archive.sensors.items()},
        "not_taken": asdict(archive.not_taken),
    }
    if suspicions is not None:
        provenance["suspicions"] = [one.summary() for one in suspicions]
    columns = dict(archive.catalogue_columns(listed))
    if FILES not in columns:
        columns[FILES] = file_states(archive, listed)
    for name, values in columns.items():
        rows = rows.append_column(name, values)
    write_geoparquet(rows, out, {KEY: provenance})


def read_catalogue(path: Path) -> Catalogue:
    """A catalogue from its file.

    Raises:
        ArchiveError: The file is no catalogue, or of a later format.
    """
    try:
        table = read_table(path)
        stored = parse_metadata((table.schema.metadata or {}).get(KEY.encode(), b"{}"), path)
    except (OSError, ValueError, pa.ArrowException, SampleError) as error:
        raise ArchiveError(f"{path} cannot be read as Parquet: {error}. Run terrasieve index again.") from error
    if not {"spec", "source"} <= set(stored) or "id" not in table.column_names:
        raise ArchiveError(f"{path} is not a catalogue: its metadata has no {KEY!r}. Make one with terrasieve index.")
    if len(set(table.column_names)) < len(table.column_names):
        raise ArchiveError(f"{path} has two columns of one name. Run terrasieve index again.")
    if stored.get("format") != FORMAT:
        raise ArchiveError(f"{path} has format {stored.get('format')}, this version reads {FORMAT}; index it again.")
    kept = stored.get("suspicions")
    try:
        suspicions = None if kept is None else tuple(Suspicion.parse(one) for one in kept)
        not_taken = NotTaken(**stored.get("not_taken", {}))
    except (TypeError, ValueError, KeyError) as error:
        raise ArchiveError(f"{path} has damaged metadata: {error}. Run terrasieve index again.") from error
    spec, source, files, sensors = stored["spec"], stored["source"], stored.get("files"), stored.get("sensors")
    return Catalogue(path, table, spec, source, suspicions, files, sensors, not_taken)


def is_catalogue_of(path: Path, place: Path) -> bool:
    """Whether a file is a catalogue of what lies at a place, so that indexing that again brings it up to date.

    Args:
        path: The file, which need not be there.
        place: Folder, table or store.
    """
    try:
        return read_catalogue(path).spec.get("root") == str(place.resolve())
    except ArchiveError:
        return False


def spec_of_files(archive: Archive) -> dict[str, Any]:
    """How an archive is opened, for a catalogue: of an address, which no catalogue may name, there can be none."""
    spec: dict[str, Any] = archive.spec.model_dump(mode="json")
    if (address := find_address(spec)) is not None:
        raise ArchiveError(
            f"{unsigned(address)} is on the net, and a catalogue may name files alone, since whoever opens it would "
            "ask for what it names. Name the store itself, which has its own table, or fetch it first."
        )
    return spec


def _journal_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.journal")


def _survey(spec: ScenesSpec, look: FirstLook, out: Path) -> ScenesArchive:
    try:
        return ScenesArchive(spec, look)
    except ArchiveError:
        if look.complete:  # no scene is usable, and none is read again
            _journal_of(out).unlink(missing_ok=True)
        raise


def _request(auditor: Auditor, spec: Mapping[str, Any]) -> str:
    """Digest of all that the result depends on: a journal of another archive or other limits is not taken up."""
    archive, limits = auditor.archive, auditor.limits
    described = json.dumps([limits.model_dump(), spec, dict(archive.source)], sort_keys=True, default=str)
    return digest([described, source_state(archive, auditor.table), *archive.ids.tolist()])
