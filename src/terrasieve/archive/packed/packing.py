"""Writing a packed store: chunk by chunk, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from rich.progress import Progress as ProgressBar
from rich.progress import TaskID

from terrasieve import __version__
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.footprints import write_geoparquet
from terrasieve.archive.journal import Journal
from terrasieve.archive.packed.integrity import digest, digest_bytes
from terrasieve.archive.packed.progress import PROGRESS, PackingProgress, WrittenChunk, append_chunk
from terrasieve.archive.packed.resuming import (
    changed_sources,
    explain_writing,
    finished_manifest,
    remove_store,
    request_of,
    resumed_progress,
)
from terrasieve.archive.packed.store import (
    CATALOGUE,
    ArrayLayout,
    Manifest,
    StoreLayout,
    check_fits,
    create_arrays,
    open_arrays,
    plan_arrays,
    publish,
    trim,
    write_coordinates,
)
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.audit import Auditor
from terrasieve.archive.quality.findings import Finding, SuspicionCollector
from terrasieve.archive.quality.limits import (
    Problem,
    QualityLimits,
    QualityReport,
    Quarantine,
    Rejection,
)
from terrasieve.archive.quality.suspicion import Suspicion, suspicions_path, write_suspicions
from terrasieve.archive.source_state import source_state
from terrasieve.archive.statistics import StreamingStatistics
from terrasieve.console import progress_bar, track_many
from terrasieve.errors import ArchiveError
from terrasieve.parallel import PART, map_processes
from terrasieve.writing import clear_partials

FINDINGS = "findings.jsonl"
"""Findings at the samples of an unfinished store, grown by every chunk and removed at the end."""
CHUNK_BYTES = 64 * 2**20
"""Upper bound of one chunk, unless a single sample is larger: some sixteen thousand files for a terabyte."""
_BEST_COMPRESSION = 0.2
"""Share of its size that compressed imagery takes at the very least."""
_PART_BYTES = 4 * 2**20
"""Of pixels that a reader process sends at once."""


@dataclass(frozen=True)
class PackReport(QualityReport):
    """What packing did.

    Attributes:
        bytes: Size of the store's files.
        done_before: Whether the store was already whole, so that there was nothing to do.
        suspicions: What may spoil a run without stopping it, without the lists of ids; all are in
            ``<out>.suspicions.json``.
    """

    bytes: int
    suspicions: tuple[Suspicion, ...] = ()
    done_before: bool = False


def pack(
    archive: Archive,
    out: Path,
    *,
    compress: bool = False,
    indices: ArrayLike | None = None,
    max_bad: float = 0.01,
    limits: QualityLimits | None = None,
    overwrite: bool = False,
    workers: int = 0,
) -> PackReport:
    """Write the good samples of an archive as one packed store.

    Every sample is read once and checked; those not fit for use are listed in ``<out>.quarantine.csv``. A run
    that was interrupted in any way goes on when the same call is made again, and its store, statistics
    included, equals that of an uninterrupted run. A finished store is left as it is. Neither is gone on from where a
    file that is read, or what is known of the samples, has changed since.

    Args:
        archive: What to pack. All samples must have the size and type of the first good one.
        out: Folder of the store.
        compress: Zstandard in shards, for storage and remote reading; otherwise plain chunks to be mapped.
        indices: Samples to pack, in this order, shape ``(n,)``; all when None.
        max_bad: Highest share of samples that may be rejected, 0 to 1.
        limits: What a sample may lack; the defaults of ``QualityLimits`` when None.
        overwrite: Whether a store that is there, finished or not, is removed and packed anew.
        workers: Reader processes; 0 reads in this one. The store is the same.

    Raises:
        ArchiveError: ``out`` holds something else or the half of another store, files have changed since it was
            packed or begun, the disk is full, or no sample is good.
        TooManyBadSamplesError: More than ``max_bad`` are bad; mend them or allow more, and run again.
    """
    chosen = archive if indices is None else SubsetArchive(archive, indices)
    limits = limits or QualityLimits()
    request = request_of(chosen, compress, limits)
    quarantine = Quarantine.begin(out.with_name(f"{out.name}.quarantine.csv"), len(chosen), chosen.rejected, max_bad)
    if overwrite:
        remove_store(out)
    clear_partials(out.parent, escape(out.name))
    sources = source_state(chosen, chosen.table())
    done = finished_manifest(out, request, sources)
    done_before = done is not None
    if done is None:
        progress = resumed_progress(out, request, sources) or _begin(chosen, out, request, sources, quarantine, limits)
        packing = _Packing(chosen, out, limits, progress, quarantine, compress)
        packing.run(workers)
        done = packing.finish()
    (out / FINDINGS).unlink(missing_ok=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    suspicions = tuple(Suspicion.parse(one) for one in done.suspicions)
    lost = done.rejected, quarantine.counts
    return PackReport(out, quarantine.path, done.samples, *lost, size, suspicions, done_before)


_Sample: TypeAlias = tuple[dict[str, NDArray[Any]], list[Rejection], Finding | None]
"""Pixels by sensor, what is wrong with them, and what they show where nothing is."""


class _Reader(Auditor):
    """Reads samples that fit the store.

    Args:
        archive: Its samples are read whole and packed.
        table: The table of the archive: ``id`` and ``asset:<sensor>``.
        limits: How much may be missing from a sample that is packed.
        arrays: Types and shapes of the store's arrays, by key of the sensor.
    """

    def __init__(
        self, archive: Archive, table: pa.Table, limits: QualityLimits, arrays: Mapping[str, ArrayLayout]
    ) -> None:
        super().__init__(archive, table, limits)
        self.arrays = arrays

    def accept(self, key: str, pixels: NDArray[Any]) -> None:
        """See ``Auditor.accept``; also refused is what has another shape or type than the store."""
        super().accept(key, pixels)
        check_fits(pixels, self.arrays[key])

    def take(self, index: int) -> _Sample:
        """One sample; without its pixels where it is not fit for use."""
        pixels, flaws = self.read(index)
        return ({}, flaws, None) if flaws else (pixels, flaws, self.inspect(index, pixels))


class _Packing:
    """One run: takes samples, fills chunks, writes them and the record of how far it is."""

    def __init__(
        self,
        archive: Archive,
        out: Path,
        limits: QualityLimits,
        progress: PackingProgress,
        quarantine: Quarantine,
        compress: bool,
    ) -> None:
        self.archive = archive
        self.out = out
        self.progress = progress
        self.quarantine = quarantine
        self.table = archive.table()
        self.reader = _Reader(archive, self.table, limits, progress.arrays)
        self.collector = SuspicionCollector(archive.sensors)
        quarantine.extend(Rejection(**{**r, "problem": Problem(r["problem"])}) for r in progress.rejections)
        self.sums = {
            key: StreamingStatistics.from_state(state, archive.sensors[key].nodata)
            for key, state in progress.sums.items()
        }
        # Before a byte is written, not when the disk is full hours later.
        _check_space(out, progress, len(archive), compress)
        layout = StoreLayout(progress.arrays, progress.chunk, compress)
        with explain_writing(out):
            if not progress.kept:
                create_arrays(out, archive.sensors, layout, len(archive))
            self.arrays = open_arrays(out, layout)
        self._check_written()

    def _check_written(self) -> None:
        """Refuse to go on from chunks that are not as they were written."""
        for key, digests in self.progress.digests.items():
            for number, expected in enumerate(track_many(digests, f"Verifying {key}")):
                start, end = (min(n * self.progress.chunk, self.progress.kept) for n in (number, number + 1))
                with explain_writing(self.out):
                    pixels = np.ascontiguousarray(self.arrays[key][start:end])
                if digest_bytes(pixels.data) != expected:
                    raise ArchiveError(
                        f"{self.out}: chunk {number} of {key!r} was changed since it was written. Remove the store, or "
                        "pack again with --overwrite."
                    )

    def run(self, workers: int) -> None:
        """Fill and write chunks until the archive is read to its end."""
        left = range(self.progress.position, len(self.archive))
        each = sum(layout.sample_bytes for layout in self.progress.arrays.values())
        part = max(1, min(PART, _PART_BYTES // each))
        with map_processes(self.reader.take, left, workers, part) as samples:
            self._fill_chunks(samples)

    def _fill_chunks(self, samples: Iterator[_Sample]) -> None:
        arrays = self.progress.arrays.items()
        buffers = {key: np.zeros((self.progress.chunk, *layout.shape), layout.dtype) for key, layout in arrays}
        with Journal(self.out / FINDINGS, self.progress.request) as findings, progress_bar() as bar:
            self._recall(findings)
            task = bar.add_task("Packing", total=len(self.archive), completed=self.progress.position, note="")
            while self.progress.position < len(self.archive):
                chunk, found = self._fill(buffers, samples, bar, task)
                # Before the pixels: a chunk without findings would stay so, one that is not written is read anew.
                findings.write({"from": self.progress.position, "found": found})
                with explain_writing(self.out):
                    self._write(buffers, chunk)

    def finish(self) -> Manifest:
        """Trim the arrays to the samples kept, and turn the folder into a finished store."""
        progress = self.progress
        if progress.sources not in (None, source_state(self.archive, self.table)):
            raise changed_sources(self.out, "while it was packed")
        kept = np.delete(np.arange(len(self.archive)), list(progress.rejected))
        table = self.table.take(pa.array(kept))
        suspicions = self.collector.conclude(self.table)
        with explain_writing(self.out):
            trim(self.arrays, progress.kept)
            write_coordinates(self.out, self.archive.sensors, table["id"].to_pylist())
            write_geoparquet(table, self.out / CATALOGUE, {})
            write_suspicions(suspicions, suspicions_path(self.out))
            manifest = self._manifest(suspicions)
            # Before the store counts as finished: nothing would write the list afterwards.
            self.quarantine.write()
            publish(self.out, manifest)
            (self.out / PROGRESS).unlink()
        return manifest

    def _recall(self, findings: Journal) -> None:
        """Take in what was found in the chunks that are written.

        Of a chunk that was not written after all, the samples are read anew, so that it may come twice.
        """
        done: set[int] = set()
        for entry in findings.replay():
            start = entry["from"]
            if start < self.progress.position and start not in done:
                done.add(start)
                for position, stored in entry["found"]:
                    self.collector.add(position, Finding.parse(stored))

    def _fill(
        self, buffers: Mapping[str, NDArray[Any]], samples: Iterator[_Sample], bar: ProgressBar, task: TaskID
    ) -> tuple[WrittenChunk, list[tuple[int, Any]]]:
        """Take samples until the buffers are full or the archive ends.

        Returns:
            What the record will be told once they are written, but for digests, and what the samples taken showed, by
            position.
        """
        position, filled = self.progress.position, 0
        found: list[tuple[int, Any]] = []
        rejected: list[int] = []
        rejections: list[dict[str, Any]] = []
        while position < len(self.archive) and filled < self.progress.chunk:
            pixels, flaws, finding = next(samples)
            if finding is None:
                rejected.append(position)
                rejections += [{**asdict(flaw), "problem": flaw.problem.value} for flaw in flaws]
                self.quarantine.extend(flaws)
                bar.update(task, note=self.quarantine.summary())
            else:
                for key, values in pixels.items():
                    buffers[key][filled] = values
                    self.sums[key].update(values)
                self.collector.add(position, finding)
                found.append((position, finding.record()))
                filled += 1
            position += 1
            bar.update(task, completed=position)
        sums = {key: sums.state() for key, sums in self.sums.items()}
        chunk = WrittenChunk(
            position=position,
            kept=self.progress.kept + filled,
            rejected=tuple(rejected),
            rejections=tuple(rejections),
            sums=sums,
        )
        return chunk, found

    def _write(self, buffers: Mapping[str, NDArray[Any]], chunk: WrittenChunk) -> None:
        start, filled = self.progress.kept, chunk.kept - self.progress.kept
        digests = {}
        for key, buffer in buffers.items() if filled else ():
            # The rest of the last chunk is padding that ``trim`` cuts off; what an earlier chunk left is no part of it.
            buffer[filled:] = 0
            self.arrays[key][start : start + len(buffer)] = buffer
            digests[key] = digest_bytes(buffer[:filled].data)
        chunk = chunk.model_copy(update={"digests": digests})
        # Last of all: what it says is written is written, whatever happens from here on.
        append_chunk(self.out / PROGRESS, chunk)
        self.progress = self.progress.after([chunk])

    def _manifest(self, suspicions: tuple[Suspicion, ...]) -> Manifest:
        sensors, source = self.archive.sensors, self.archive.source
        assets = (str(value) for key in sensors for value in self.table[f"asset:{key}"].to_pylist())
        return Manifest(
            version=__version__,
            simulated=bool(source.get("simulated")),
            samples=self.progress.kept,
            rejected=self.quarantine.bad,
            sensors=dict(sensors),
            statistics={key: sums.result(sensors[key].names) for key, sums in self.sums.items()},
            source=dict(source),
            request=self.progress.request,
            sources=self.progress.sources,
            assets=digest(assets),
            chunks=self.progress.digests,
            catalogue=digest_bytes((self.out / CATALOGUE).read_bytes()),
            suspicions=tuple(one.summary() for one in suspicions),
        )


def _begin(
    archive: Archive, out: Path, request: str, sources: str, quarantine: Quarantine, limits: QualityLimits
) -> PackingProgress:
    """The record of a store that nothing is written to yet, shaped after the archive's first good sample."""
    arrays = plan_arrays(archive, limits, quarantine)
    longest = max(1, CHUNK_BYTES // max(layout.sample_bytes for layout in arrays.values()))
    # As many chunks as the bound asks for, but of even length: less of the last one is padding.
    chunks = -(-len(archive) // longest)
    progress = PackingProgress(
        request=request,
        sources=sources,
        arrays=arrays,
        chunk=-(-len(archive) // chunks),
        sums={key: StreamingStatistics(layout.shape[0]).state() for key, layout in arrays.items()},
        digests=dict.fromkeys(arrays, ()),
    )
    with explain_writing(out):
        out.mkdir(parents=True, exist_ok=True)
        progress.write(out / PROGRESS)
    return progress


def _check_space(out: Path, progress: PackingProgress, samples: int, compress: bool) -> None:
    """Refuse to begin what certainly does not fit."""
    each = sum(layout.sample_bytes for layout in progress.arrays.values())
    needed = each * (samples - progress.position) * (_BEST_COMPRESSION if compress else 1)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise ArchiveError(
            f"{out} needs {needed / 1e9:,.2f} GB more and its disk has {free / 1e9:,.2f} GB free. Make room and run "
            "the same command again, or choose another --out."
        )
