"""One pass over all pixels of an archive: which samples are fit for use, and what is suspicious about the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.journal import Journal
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.checks import worth_comparing
from terrasieve.archive.quality.limits import Problem, QualityLimits, Quarantine, Rejection, check
from terrasieve.archive.quality.suspects import Finding, Suspects, inspect_sample
from terrasieve.archive.quality.suspicion import Suspicion
from terrasieve.console import progress_bar
from terrasieve.errors import SampleError
from terrasieve.parallel import map_processes

Judgement: TypeAlias = tuple[list[Rejection], Finding | None]
"""What is wrong with a sample, and what it shows where nothing is."""
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


def audit(auditor: Auditor, quarantine: Quarantine, journal: Path, request: str, workers: int = 0) -> Audit:
    """Read every sample once, check it and look at it; what an interrupted run did is not done again.

    Args:
        auditor: Reads and judges the samples of the archive.
        quarantine: Takes in the bad ones.
        journal: Where to record how far the pass is; removed when it is through.
        request: Digest of all that the result depends on.
        workers: Reader processes; 0 reads in this one.

    Raises:
        TooManyBadSamplesError: The quarantine is full.
        ArchiveError: The journal cannot be written.
    """
    run, total = _AuditPass(auditor, quarantine), len(auditor.archive)
    with Journal(journal, request) as record:
        known = run.recall(record)
        with map_processes(auditor.judge, range(known, total), workers) as verdicts, progress_bar() as bar:
            note = f"{known:,} were done before" if known else ""
            task = bar.add_task("Checking samples", total=total, completed=known, note=note)
            done: list[Any] = []
            for position, (flaws, finding) in zip(range(known, total), verdicts, strict=True):
                run.take(position, flaws, finding)
                done.append(_record(flaws, finding))
                bar.advance(task)
                if len(done) == BATCH or position == total - 1:
                    record.write({"samples": done})
                    done = []
                if flaws:
                    bar.update(task, note=quarantine.summary())
        found = run.conclude()
        record.discard()
    return found


class Auditor:
    """Reads samples whole, checks each and looks at it.

    Args:
        archive: Its samples are read whole, one at a time.
        table: Of the archive: ``id`` and ``asset:<sensor>``.
        limits: How much may be missing from a good sample.
    """

    def __init__(self, archive: Archive, table: pa.Table, limits: QualityLimits) -> None:
        self.archive = archive
        self.sensors = dict(archive.sensors)
        self.limits = limits
        self.table = table
        self._compare = worth_comparing(archive)

    def asset(self, index: int, key: str) -> str:
        """The file of a sample, empty where there is none."""
        return self.table[f"asset:{key}"][index].as_py() or ""

    def flaw(self, index: int, key: str, error: SampleError) -> Rejection:
        """The entry of the quarantine for an error."""
        return Rejection.from_error(self.table["id"][index].as_py(), key, self.asset(index, key), error)

    def read(self, index: int) -> tuple[dict[str, NDArray[Any]], list[Rejection]]:
        """The pixels of one sample by sensor, and what is wrong with them."""
        pixels, flaws = {}, []
        for key in self.sensors:
            try:
                pixels[key] = self.archive.read(index, key)
                self.accept(key, pixels[key])
            except SampleError as error:
                flaws.append(self.flaw(index, key, error))
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
        return flaws, None if flaws else self.inspect(index, pixels)

    def inspect(self, index: int, pixels: Mapping[str, NDArray[Any]]) -> Finding:
        """What the pixels of a good sample show."""
        assets = {key: self.asset(index, key) for key in self.sensors} if self._compare else None
        return inspect_sample(pixels, self.sensors, assets)


class _AuditPass:
    """The running state of :func:`audit`."""

    def __init__(self, auditor: Auditor, quarantine: Quarantine) -> None:
        self.table = auditor.table
        self.quarantine = quarantine
        self.bad: set[int] = set()
        self._suspects = Suspects(auditor.sensors)

    def recall(self, journal: Journal) -> int:
        """Take in what an interrupted run found; how many samples that were."""
        position = 0
        for entry in journal.replay():
            for stored in entry["samples"]:
                self.take(position, *_parse(stored))
                position += 1
        return position

    def take(self, index: int, flaws: Sequence[Rejection], finding: Finding | None) -> None:
        if flaws:
            self.bad.add(index)
            self.quarantine.extend(flaws)
        if finding is not None:
            self._suspects.add(index, finding)

    def conclude(self) -> Audit:
        return Audit(frozenset(self.bad), self._suspects.conclude(self.table))


def _record(flaws: Sequence[Rejection], finding: Finding | None) -> list[Any]:
    return [
        [{**asdict(flaw), "problem": flaw.problem.value} for flaw in flaws],
        None if finding is None else finding.record(),
    ]


def _parse(stored: Sequence[Any]) -> Judgement:
    flaws, finding = stored
    return (
        [Rejection(**{**flaw, "problem": Problem(flaw["problem"])}) for flaw in flaws],
        None if finding is None else Finding.parse(finding),
    )


def suspicions_of(archive: Archive, samples: int = 256) -> tuple[Suspicion, ...]:
    """What is suspicious about an archive: as it was indexed or packed, else of some samples spread evenly over it.

    Args:
        archive: A catalogue or a packed store says by itself; of any other, samples are read.
        samples: Number of samples that are read, where the archive has as many.
    """
    if archive.suspicions is not None:
        return archive.suspicions
    table = archive.table()
    auditor, suspects = Auditor(archive, table, QualityLimits()), Suspects(archive.sensors)
    for index in sorted({int(i) for i in np.linspace(0, len(archive) - 1, min(len(archive), samples)).round()}):
        try:
            suspects.add(index, auditor.inspect(index, {key: archive.read(index, key) for key in archive.sensors}))
        except SampleError:
            continue  # whoever needs the sample will say what is wrong with it
    return suspects.conclude(table)
