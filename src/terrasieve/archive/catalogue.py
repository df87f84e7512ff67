"""The catalogue of an archive: one GeoParquet row for each sample that is fit for use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from terrasieve.archive.geoparquet import write_geoparquet
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality import QualityLimits, QualityReport, Quarantine, Rejection, check
from terrasieve.archive.subset import SubsetArchive
from terrasieve.console import progress_bar
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.schema import Spec

FORMAT = 1
_KEY = "terrasieve"


@dataclass(frozen=True)
class Catalogue:
    """A catalogue as read from its file.

    Attributes:
        path: The file.
        table: The rows; columns as ``Archive.table``, and ``bbox``.
        spec: How to open the archive, as it is written in YAML.
        source: The archive's provenance when it was indexed.
    """

    path: Path
    table: pa.Table
    spec: Mapping[str, Any]
    source: Mapping[str, Any]

    def restrict(self, archive: Archive) -> SubsetArchive:
        """The archive's samples that the catalogue lists, in the catalogue's order.

        Raises:
            ArchiveError: A listed sample is no longer in the archive.
        """
        position = {name: index for index, name in enumerate(archive.ids.tolist())}
        wanted = self.table["id"].to_pylist()
        lost = [name for name in wanted if name not in position]
        if lost:
            raise ArchiveError(
                f"{self.path} lists {len(lost)} samples that {archive.source.get('root')} no longer has, the first "
                f"being {lost[0]!r}. Restore the files, or run terrasieve index again."
            )
        return SubsetArchive(archive, [position[name] for name in wanted])


def index_archive(
    archive: Archive,
    out: Path,
    limits: QualityLimits | None = None,
    max_bad: float = 0.01,
    depth: Literal["pixels", "headers"] = "pixels",
) -> QualityReport:
    """Check every sample and write the catalogue of the good ones.

    Args:
        archive: What to index.
        out: The catalogue, ``.parquet``; the list of rejected samples goes to ``<out>.quarantine.csv``.
        limits: What a sample may lack.
        max_bad: Highest share of samples that may be rejected, 0 to 1.
        depth: ``pixels`` reads every sample; ``headers`` trusts what the files say about themselves.

    Raises:
        TooManyBadSamplesError: More than ``max_bad`` are bad; the list is written, the catalogue is not.
        ArchiveError: The archive cannot say how it is opened, or no sample is good.
    """
    spec = _spec_of(archive)
    quarantine = Quarantine.of(archive, out.with_name(f"{out.name}.quarantine.csv"), max_bad)
    table = archive.table()
    bad = _reject_bad_pixels(archive, table, limits or QualityLimits(), quarantine) if depth == "pixels" else set()
    good = [index for index in range(len(archive)) if index not in bad]
    if not good:
        raise ArchiveError(f"{archive.source.get('root')} has no good sample; see {quarantine.path}.")
    quarantine.write()
    provenance = {"format": FORMAT, "spec": spec, "source": dict(archive.source)}
    write_geoparquet(table.take(pa.array(good)), out, {_KEY: provenance})
    return QualityReport(out, quarantine.path, len(good), quarantine.bad, quarantine.counts)


def read_catalogue(path: Path) -> Catalogue:
    """A catalogue from its file.

    Raises:
        ArchiveError: The file is no catalogue, or of a later format.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ArchiveError(f"{path} cannot be read as Parquet: {error}. Run terrasieve index again.") from error
    stored = json.loads((table.schema.metadata or {}).get(_KEY.encode(), b"null"))
    if not isinstance(stored, dict) or "spec" not in stored:
        raise ArchiveError(f"{path} is not a catalogue: its metadata has no {_KEY!r}. Make one with terrasieve index.")
    if stored.get("format") != FORMAT:
        raise ArchiveError(f"{path} has format {stored.get('format')}, this version reads {FORMAT}; index it again.")
    return Catalogue(path=path, table=table, spec=stored["spec"], source=stored["source"])


def _reject_bad_pixels(archive: Archive, table: pa.Table, limits: QualityLimits, quarantine: Quarantine) -> set[int]:
    bad: set[int] = set()
    with progress_bar() as bar:
        task = bar.add_task("Checking samples", total=len(archive), note="")
        for index in range(len(archive)):
            if flaws := list(_find_flaws(archive, index, table, limits)):
                quarantine.extend(flaws)
                bad.add(index)
                bar.update(task, note=quarantine.summary())
            bar.advance(task)
    return bad


def _find_flaws(archive: Archive, index: int, table: pa.Table, limits: QualityLimits) -> Iterator[Rejection]:
    """Read one sample whole, and say for each sensor that is not fit for use why."""
    for key, sensor in archive.sensors.items():
        try:
            check(archive.read(index, key), sensor, limits)
        except SampleError as error:
            asset = table[f"asset:{key}"][index].as_py() or ""
            yield Rejection.from_error(table["id"][index].as_py(), key, asset, error)


def _spec_of(archive: Archive) -> dict[str, Any]:
    """How to open the archive again; for a subset, the whole of which it is a part."""
    while isinstance(archive, SubsetArchive):
        archive = archive.archive
    spec = getattr(archive, "spec", None)
    if isinstance(spec, Spec):
        return spec.model_dump(mode="json")
    if "root" in archive.source:
        return {"layout": archive.source["layout"], "root": archive.source["root"]}
    raise ArchiveError(f"{type(archive).__name__} cannot say how it is opened; a catalogue of it could not be used.")
