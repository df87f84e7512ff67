"""One run of packing: samples in, chunks and the record of how far it is out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.progress import Progress as ProgressBar
from rich.progress import TaskID

from terrasieve import __version__
from terrasieve.archive.footprints import write_geoparquet
from terrasieve.archive.journal import Journal
from terrasieve.archive.packed.integrity import digest, digest_bytes
from terrasieve.archive.packed.progress import PROGRESS, PackingProgress, WrittenChunk, append_chunk
from terrasieve.archive.packed.resuming import changed_sources, explain_writing
from terrasieve.archive.packed.store import (
    CATALOGUE,
    ArrayLayout,
    Manifest,
    StoreLayout,
    check_fits,
    chunk_path,
    create_arrays,
    open_arrays,
    publish,
    trim,
    write_coordinates,
)
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.audit import Auditor
from terrasieve.archive.quality.findings import Finding, SuspicionCollector
from terrasieve.archive.quality.limits import Problem, QualityLimits, Quarantine, Rejection
from terrasieve.archive.quality.suspicion import Suspicion, suspicions_path, write_suspicions
from terrasieve.archive.source_state import source_state
from terrasieve.archive.statistics import StreamingStatistics
from terrasieve.console import progress_bar, track_many
from terrasieve.errors import ArchiveError
from terrasieve.files.writing import link_or_copy
from terrasieve.processes.parallel import PART, map_processes

FINDINGS = "findings.jsonl"
"""Findings at the samples of an unfinished store, grown by every chunk and removed at the end."""
_BEST_COMPRESSION = 0.2
"""Share of its size that compressed imagery takes at the very least."""
_PART_BYTES = 4 * 2**20
"""Of pixels that a reader process sends at once."""

Sample: TypeAlias = tuple[dict[str, NDArray[Any]], list[Rejection], Finding | None]
"""Pixels by sensor, what is wrong with them, and what they show where nothing is."""


class SampleReader(Auditor):
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

    def take(self, index: int) -> Sample:
        """One sample; without its pixels where it is not fit for use."""
        pixels, flaws = self.read(index)
        return ({}, flaws, None) if flaws else (pixels, flaws, self.inspect(index, pixels))


@dataclass(frozen=True)
class StagedChunk:
    """A chunk that a part has packed.

    Attributes:
        stop: Position in the archive after its last sample.
        filled: Number of samples in it.
        rejected: Positions of the samples left out on the way.
        rejections: What is wrong with them.
        findings: What the others show, by position.
        sums: Statistics of it alone, by sensor key.
        digests: BLAKE2b digest of its pixels by sensor key; none where it holds no sample.
        files: Its files by sensor key; none of a sensor whose chunk compression leaves out.
    """

    stop: int
    filled: int
    rejected: tuple[int, ...]
    rejections: tuple[Rejection, ...]
    findings: Sequence[tuple[int, Finding]]
    sums: Mapping[str, StreamingStatistics]
    digests: Mapping[str, str]
    files: Mapping[str, Path]


class Staged(Protocol):
    """What parts have packed of an archive."""

    @property
    def layout(self) -> tuple[Mapping[str, ArrayLayout], int]:
        """Layouts by sensor key, and samples a chunk."""

    def chunk_at(self, position: int) -> StagedChunk | None:
        """The chunk that begins with the sample at a position of the archive; None where none does."""

    def samples(self, position: int) -> Iterator[Sample]:
        """The samples from a position of the archive on, as a ``SampleReader`` gives them."""


class StoreWriter:
    """One run: takes samples, fills chunks, writes them and the record of how far it is.

    Args:
        archive: What is packed.
        table: The table of the archive.
        out: Folder of the store.
        limits: What a sample may lack.
        progress: How far it is.
        quarantine: Takes in the bad samples.
        compress: Whether chunks are compressed.

    Raises:
        ArchiveError: The disk has not enough room, or what is written is not as it was.
        TooManyBadSamplesError: The samples that were left out before are too many.
    """

    def __init__(
        self,
        archive: Archive,
        table: pa.Table,
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
        self.table = table
        self.reader = SampleReader(archive, table, limits, progress.arrays)
        self.collector = SuspicionCollector(archive.sensors)
        quarantine.extend(Rejection(**{**r, "problem": Problem(r["problem"])}) for r in progress.rejections)
        self.sums = {
            key: StreamingStatistics.from_state(state, archive.sensors[key].nodata)
            for key, state in progress.sums.items()
        }
        # Before a byte is written, not when the disk is full hours later.
        self.check_space(compress)
        layout = StoreLayout(progress.arrays, progress.chunk, compress)
        with explain_writing(out):
            if not progress.kept:
                create_arrays(out, archive.sensors, layout, len(archive))
            self.arrays = open_arrays(out, layout)
        self.check_written()

    def check_written(self) -> None:
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

    def check_space(self, compress: bool) -> None:
        """Refuse to begin what certainly does not fit."""
        each = sum(layout.sample_bytes for layout in self.progress.arrays.values())
        needed = each * (len(self.archive) - self.progress.position) * (_BEST_COMPRESSION if compress else 1)
        free = shutil.disk_usage(self.out).free
        if needed > free:
            raise ArchiveError(
                f"{self.out} needs {needed / 1e9:,.2f} GB more and its disk has {free / 1e9:,.2f} GB free. Make room "
                "and run the same command again, or choose another --out."
            )

    def deliver(self, number: int) -> None:
        """What is done with the files of a chunk before the record says that it is written: nothing here."""

    def complete(self) -> None:
        """What is done with a finished store before its record goes: nothing here."""

    def run(self, workers: int) -> None:
        """Fill and write chunks until the archive is read to its end."""
        left = range(self.progress.position, len(self.archive))
        each = sum(layout.sample_bytes for layout in self.progress.arrays.values())
        part = max(1, min(PART, _PART_BYTES // each))
        with map_processes(self.reader.take, left, workers, part) as samples:
            self._fill_chunks(samples)

    def gather(self, staged: Staged) -> None:
        """Make the store of what parts have packed: whole chunks by their files, others sample by sample."""
        size, total, taken = self.progress.chunk, len(self.archive), None
        with Journal(self.out / FINDINGS, self.progress.request) as findings, progress_bar() as bar:
            self._recall(findings)
            task = bar.add_task("Merging", total=total, completed=self.progress.position, note="")
            while self.progress.position < total:
                whole = staged.chunk_at(self.progress.position)
                if whole is not None and (whole.filled == size or whole.stop == total):
                    # Chunks begin anew with the part's: what was taken before of its samples is of no use any more.
                    taken = None
                    self._adopt(whole, findings)
                else:
                    taken = taken or staged.samples(self.progress.position)
                    self._fill_and_write(self._buffers(), taken, findings, bar, task)
                bar.update(task, completed=self.progress.position)

    def _fill_chunks(self, samples: Iterator[Sample]) -> None:
        buffers = self._buffers()
        with Journal(self.out / FINDINGS, self.progress.request) as findings, progress_bar() as bar:
            self._recall(findings)
            task = bar.add_task("Packing", total=len(self.archive), completed=self.progress.position, note="")
            while self.progress.position < len(self.archive):
                self._fill_and_write(buffers, samples, findings, bar, task)

    def _buffers(self) -> dict[str, NDArray[Any]]:
        arrays = self.progress.arrays.items()
        return {key: np.zeros((self.progress.chunk, *layout.shape), layout.dtype) for key, layout in arrays}

    def _fill_and_write(
        self,
        buffers: Mapping[str, NDArray[Any]],
        samples: Iterator[Sample],
        findings: Journal,
        bar: ProgressBar,
        task: TaskID,
    ) -> None:
        chunk, found = self._fill(buffers, samples, bar, task)
        # Before the pixels: a chunk without findings would stay so, one that is not written is read anew.
        findings.write({"from": self.progress.position, "found": found})
        with explain_writing(self.out):
            self._write(buffers, chunk)

    def _adopt(self, whole: StagedChunk, findings: Journal) -> None:
        """Take a chunk over as a part has written it."""
        self.quarantine.extend(whole.rejections)
        for position, finding in whole.findings:
            self.collector.add(position, finding)
        self._merge_sums(whole.sums)
        findings.write({"from": self.progress.position, "found": [(at, one.record()) for at, one in whole.findings]})
        number = self.progress.kept // self.progress.chunk
        with explain_writing(self.out):
            for key, path in whole.files.items():
                link_or_copy(path, self.out / chunk_path(key, number))
        chunk = WrittenChunk(
            position=whole.stop,
            kept=self.progress.kept + whole.filled,
            rejected=whole.rejected,
            rejections=tuple({**asdict(flaw), "problem": flaw.problem.value} for flaw in whole.rejections),
            sums={key: sums.state() for key, sums in self.sums.items()},
            digests=whole.digests,
            own={key: sums.state() for key, sums in whole.sums.items()},
        )
        with explain_writing(self.out):
            self._record(number, chunk)

    def _merge_sums(self, own: Mapping[str, StreamingStatistics]) -> None:
        for key, sums in own.items():
            self.sums[key].merge(sums)

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
            self.complete()
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
        self, buffers: Mapping[str, NDArray[Any]], samples: Iterator[Sample], bar: ProgressBar, task: TaskID
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
        sensors = self.archive.sensors
        # Chunk by chunk, as parts measure them.
        own = {
            key: StreamingStatistics(layout.shape[0], sensors[key].nodata)
            for key, layout in self.progress.arrays.items()
        }
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
                    own[key].update(values)
                self.collector.add(position, finding)
                found.append((position, finding.record()))
                filled += 1
            position += 1
            bar.update(task, completed=position)
        self._merge_sums(own)
        chunk = WrittenChunk(
            position=position,
            kept=self.progress.kept + filled,
            rejected=tuple(rejected),
            rejections=tuple(rejections),
            sums={key: sums.state() for key, sums in self.sums.items()},
            own={key: sums.state() for key, sums in own.items()},
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
        self._record(start // self.progress.chunk, chunk.model_copy(update={"digests": digests}))

    def _record(self, number: int, chunk: WrittenChunk) -> None:
        self.deliver(number)
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
