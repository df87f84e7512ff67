"""One pass over all pixels of an archive: which samples are fit for use, and what is suspicious about the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.journal import Journal
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.checks import worth_comparing
from terrasieve.archive.quality.findings import (
    Finding,
    Judgement,
    SuspicionCollector,
    Verdicts,
    inspect_sample,
    parse_judgement,
    record_judgement,
)
from terrasieve.archive.quality.limits import FlawError, Problem, QualityLimits, Quarantine, Rejection, check
from terrasieve.archive.quality.suspicion import Suspicion
from terrasieve.archive.readers.gdal import many_files
from terrasieve.console import progress_bar
from terrasieve.errors import SampleError
from terrasieve.processes.parallel import map_processes

BATCH = 64
"""Samples between two entries of the journal: what an interruption costs at most."""


@dataclass(frozen=True)
class Audit:
    """What the pass came to.

    Attributes:
        bad: Positions of the samples that are not fit for use.
        suspicions: About the others; None where pixels were not looked at.
    """

    bad: frozenset[int] = field(default_factory=frozenset)
    suspicions: tuple[Suspicion, ...] | None = None


def audit(
    auditor: Auditor,
    quarantine: Quarantine,
    record: Journal,
    entries: Iterable[Mapping[str, Any]],
    workers: int = 0,
    judged: Verdicts | None = None,
) -> Audit:
    """Read every sample once and judge it; what was judged before is not read again.

    Args:
        auditor: Reads and judges the samples of the archive.
        quarantine: Takes in the bad ones, in their order in the archive.
        record: Where to say how far the pass is; it stays, and the caller removes it when the result is written.
        entries: What an interrupted pass wrote there, in order; exhausted before anything is written.
        workers: Reader processes; 0 reads in this one.
        judged: The samples that were judged when their files' headers were read; none when None.

    Raises:
        TooManyBadSamplesError: The quarantine is full.
        ArchiveError: The journal cannot be written.
    """
    judged = judged or Verdicts(auditor.sensors)
    total, left = len(auditor.archive), judged.missing(len(auditor.archive))
    run = _AuditPass(judged, quarantine)
    known = 0
    for entry in entries:
        for stored in entry["samples"]:
            run.take(int(left[known]), *parse_judgement(stored))
            known += 1
    run.take_rest(int(left[known]) if known < len(left) else math.inf)
    with (
        many_files(),
        map_processes(_AtPosition(auditor, left), range(known, len(left)), workers) as verdicts,
        progress_bar() as bar,
    ):
        before = total - len(left) + known
        note = f"{before:,} were done before" if before else ""
        task = bar.add_task("Checking samples", total=total, completed=before, note=note)
        done: list[Any] = []  # judged, but not in the journal yet
        for place, (flaws, finding) in zip(range(known, len(left)), verdicts, strict=True):
            run.take(int(left[place]), flaws, finding)
            done.append(record_judgement(flaws, finding))
            bar.advance(task)
            if len(done) == BATCH or place == len(left) - 1:
                record.write({"samples": done})
                done = []
            if flaws:
                bar.update(task, note=quarantine.summary())
    run.take_rest()
    return Audit(frozenset(judged.flaws), judged.collector.conclude(auditor.table))


class Auditor:
    """Reads samples whole and says of each what is wrong with it, or what it shows.

    Each reader process has a copy: it holds the table for names and files, and no result.

    Args:
        archive: Archive whose samples are read whole, one at a time.
        table: The archive's table, with ``id`` and ``asset:<sensor>``.
        limits: How much may be missing from a good sample.
    """

    def __init__(self, archive: Archive, table: pa.Table, limits: QualityLimits) -> None:
        self.archive = archive
        self.sensors = dict(archive.sensors)
        self.limits = limits
        self.table = table
        self._compare = worth_comparing(archive)

    def name(self, index: int) -> str:
        """The id of a sample."""
        return str(self.table["id"][index].as_py())

    def asset(self, index: int, key: str) -> str:
        """The file of a sample, empty where there is none."""
        return self.table[f"asset:{key}"][index].as_py() or ""

    def flaw(self, index: int, key: str, error: SampleError) -> Rejection:
        """The entry of the quarantine for an error."""
        return Rejection.from_error(self.name(index), key, self.asset(index, key), error)

    def read(self, index: int) -> tuple[dict[str, NDArray[Any]], list[Rejection]]:
        """The pixels of one sample by sensor, and what is wrong with them."""
        pixels, flaws = {}, []
        for key in self.sensors:
            try:
                pixels[key] = self.archive.read(index, key)
                self.accept(key, pixels[key])
            except SampleError as error:
                flaws.append(self.flaw(index, key, error))
            except MemoryError as error:
                flaws.append(self.flaw(index, key, _too_large(pixels[key], error)))
        return pixels, flaws

    def accept(self, key: str, pixels: NDArray[Any]) -> None:
        """Refuse what is not fit for use.

        Raises:
            SampleError: It says why.
        """
        check(pixels, self.sensors[key], self.limits)

    def judge(self, index: int) -> Judgement:
        """What is wrong with one sample; what it shows where nothing is."""
        pixels, flaws = self.read(index)
        if flaws:
            return flaws, None
        try:
            return flaws, self.inspect(index, pixels)
        except MemoryError as error:
            key = max(pixels, key=lambda one: pixels[one].nbytes)
            return [self.flaw(index, key, _too_large(pixels[key], error))], None

    def inspect(self, index: int, pixels: Mapping[str, NDArray[Any]]) -> Finding:
        """What the pixels of a good sample show."""
        if not self._compare:
            return inspect_sample(pixels, self.sensors)
        # The table of a catalogue may name any file; those alone are compared that the sample is read from.
        read = set(self.archive.files(np.array([index])))
        assets = {key: asset for key in self.sensors if (asset := self.asset(index, key)) in read}
        return inspect_sample(pixels, self.sensors, assets)


def _too_large(pixels: NDArray[Any], error: MemoryError) -> FlawError:
    """The flaw of a sample that could be read, but not looked at."""
    return FlawError(
        Problem.UNREADABLE, f"Its pixels of shape {pixels.shape} are too many to check in memory ({error}). Cut it."
    )


@dataclass(frozen=True)
class _AtPosition:
    """Judges the sample at a place of a list of positions; where processes are not forked, it is pickled."""

    auditor: Auditor
    positions: NDArray[np.int64]

    def __call__(self, place: int) -> Judgement:
        return self.auditor.judge(int(self.positions[place]))


class _AuditPass:
    """The running state of :func:`audit`: brings the flaws found before and those found now into one order."""

    def __init__(self, judged: Verdicts, quarantine: Quarantine) -> None:
        self._judged, self._quarantine = judged, quarantine
        self._before = sorted(judged.flaws.items(), reverse=True)

    def take(self, index: int, flaws: list[Rejection], finding: Finding | None) -> None:
        self.take_rest(index)
        self._judged.take(index, flaws, finding)
        if flaws:
            self._quarantine.extend(flaws)

    def take_rest(self, end: float = math.inf) -> None:
        """Report what was found before, of the samples below a position."""
        while self._before and self._before[-1][0] < end:
            self._quarantine.extend(self._before.pop()[1])


def suspicions_of(archive: Archive, samples: int = 256) -> tuple[Suspicion, ...]:
    """What is suspicious about an archive: as it was indexed or packed, else of some samples spread evenly over it.

    Args:
        archive: A catalogue or a packed store says by itself; of any other, samples are read.
        samples: Number of samples that are read, where the archive has as many.
    """
    if archive.suspicions is not None:
        return archive.suspicions
    table = archive.table()
    auditor, collector = Auditor(archive, table, QualityLimits()), SuspicionCollector(archive.sensors)
    for index in sorted({int(i) for i in np.linspace(0, len(archive) - 1, min(len(archive), samples)).round()}):
        try:
            collector.add(index, auditor.inspect(index, {key: archive.read(index, key) for key in archive.sensors}))
        except SampleError:
            continue  # whoever needs the sample will say what is wrong with it
    return collector.conclude(table)
