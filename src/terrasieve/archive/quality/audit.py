"""One pass over all pixels of an archive: which samples are fit for use, and what is suspicious about the others.

What one sample shows is kept as a small :class:`Finding`, and pixels are let go. Offsets and duplicates show among
several samples only, so that :class:`SuspicionCollector` comes to suspicions when all findings are there.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.journal import Journal
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality import offset
from terrasieve.archive.quality.checks import (
    Check,
    PixelSummary,
    find_constant,
    find_grids_apart,
    find_missing,
    find_other_unit,
    find_stray_values,
    worth_comparing,
)
from terrasieve.archive.quality.limits import FlawError, Problem, QualityLimits, Quarantine, Rejection, check
from terrasieve.archive.quality.offset import OffsetVerdict, find_exchanged_bands
from terrasieve.archive.quality.suspicion import MEND, Kind, Suspicion
from terrasieve.archive.quality.table_checks import TABLE_CHECKS
from terrasieve.console import progress_bar
from terrasieve.errors import SampleError
from terrasieve.parallel import map_processes
from terrasieve.sensors import Sensor

Judgement: TypeAlias = "tuple[list[Rejection], Finding | None]"
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
    """Read every sample once and judge it; what an interrupted run did is not done again.

    Args:
        auditor: Reads and judges the samples of the archive.
        quarantine: Takes in the bad ones.
        journal: Where to record how far the pass is; it stays, and the caller removes it when the result is written.
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
            done: list[Any] = []  # judged, but not in the journal yet
            for position, (flaws, finding) in zip(range(known, total), verdicts, strict=True):
                run.take(position, flaws, finding)
                done.append(_record(flaws, finding))
                bar.advance(task)
                if len(done) == BATCH or position == total - 1:
                    record.write({"samples": done})
                    done = []
                if flaws:
                    bar.update(task, note=quarantine.summary())
        return run.conclude()


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
        # The table of a catalogue may name any file; those alone are compared that the sample is read from.
        read = set(map(str, self.archive.files(np.array([index])))) if self._compare else set()
        assets = {key: asset for key in self.sensors if (asset := self.asset(index, key)) in read}
        return inspect_sample(pixels, self.sensors, assets)


def _too_large(pixels: NDArray[Any], error: MemoryError) -> FlawError:
    """The flaw of a sample that could be read, but not looked at."""
    return FlawError(
        Problem.UNREADABLE, f"Its pixels of shape {pixels.shape} are too many to check in memory ({error}). Cut it."
    )


class _AuditPass:
    """The running state of :func:`audit`."""

    def __init__(self, auditor: Auditor, quarantine: Quarantine) -> None:
        self.table = auditor.table
        self.quarantine = quarantine
        self.bad: set[int] = set()
        self._collector = SuspicionCollector(auditor.sensors)

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
            self._collector.add(index, finding)

    def conclude(self) -> Audit:
        return Audit(frozenset(self.bad), self._collector.conclude(self.table))


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
    auditor, collector = Auditor(archive, table, QualityLimits()), SuspicionCollector(archive.sensors)
    for index in sorted({int(i) for i in np.linspace(0, len(archive) - 1, min(len(archive), samples)).round()}):
        try:
            collector.add(index, auditor.inspect(index, {key: archive.read(index, key) for key in archive.sensors}))
        except SampleError:
            continue  # whoever needs the sample will say what is wrong with it
    return collector.conclude(table)


# -------------------------------------------------------------------- findings

CHECKS: Mapping[Kind, Check] = {
    Kind.UNIT: find_other_unit,
    Kind.RANGE: find_stray_values,
    Kind.ORDER: find_exchanged_bands,
    Kind.NODATA: find_missing,
    Kind.CONSTANT: find_constant,
}
"""What is looked for in one sensor's pixels of one sample. Offsets and duplicates show among several."""


@dataclass(frozen=True)
class Finding:
    """What one sample showed; as small as can be, since there are many.

    Attributes:
        digest: Hash of all its pixels but those of maps, 64 bits; 0 where they are constant or there are none.
        verdicts: By key of the sensor, whether it carries the offset as an :class:`OffsetVerdict`, and in what numbers
            where it does.
        flags: Kind of the suspicion, key of the sensor, and what was seen.
    """

    digest: int
    verdicts: Mapping[str, tuple[int, str]]
    flags: Sequence[tuple[str, str, str]]

    def record(self) -> list[Any]:
        """The finding as JSON can hold it, for a journal."""
        return [self.digest, dict(self.verdicts), list(self.flags)]

    @classmethod
    def parse(cls, stored: Sequence[Any]) -> Finding:
        """The finding that :meth:`record` gave."""
        digest, verdicts, flags = stored
        return cls(digest, {key: (code, seen) for key, (code, seen) in verdicts.items()}, [tuple(one) for one in flags])


def inspect_sample(
    pixels: Mapping[str, NDArray[Any]], sensors: Mapping[str, Sensor], assets: Mapping[str, str] | None = None
) -> Finding:
    """What the pixels of one sample show.

    Args:
        pixels: By key of the sensor, shape ``(bands, height, width)``, all bands in the sensor's order.
        sensors: What the pixels are said to be, by the same keys.
        assets: The file of each sensor, where their grids are to be compared.
    """
    summaries = {key: PixelSummary(values, sensors[key]) for key, values in pixels.items()}
    flags = [
        (kind.value, key, seen)
        for key, summary in summaries.items()
        for kind, check in CHECKS.items()
        if (seen := check(summary)) is not None
    ]
    if assets and (apart := find_grids_apart(assets)):
        flags.append((Kind.GRID.value, *apart))
    verdicts = {}
    for key, summary in summaries.items():
        if offset.may_carry(summary.sensor):
            verdict = offset.judge(summary)
            verdicts[key] = int(verdict), offset.evidence(summary) if verdict is OffsetVerdict.CARRIES else ""
    # Empty samples equal each other, but are no copies of one place: they are reported as constant already.
    constant = any(kind == Kind.CONSTANT for kind, *_ in flags)
    return Finding(0 if constant else _digest(summaries), verdicts, flags)


class SuspicionCollector:
    """Comes from findings at single samples to suspicions about an archive; holds positions and numbers, never pixels.

    Args:
        sensors: The archive's sensors by key.
    """

    def __init__(self, sensors: Mapping[str, Sensor]) -> None:
        # Typed arrays take 8 bytes a sample, lists of Python's numbers four times that.
        self._positions = array("q")
        self._digests = array("Q")
        self._verdicts = {key: array("b") for key, sensor in sensors.items() if offset.may_carry(sensor)}
        self._flagged: dict[tuple[Kind, str], array[int]] = {}
        self._seen: dict[tuple[Kind, str], tuple[int, str]] = {}

    def add(self, position: int, finding: Finding) -> None:
        """Take in what one sample showed.

        Args:
            position: Position of the sample in the archive; each comes once.
            finding: What the sample showed, as :func:`inspect_sample` gives it.
        """
        self._positions.append(position)
        self._digests.append(finding.digest)
        for key, verdicts in self._verdicts.items():
            code, seen = finding.verdicts.get(key, (OffsetVerdict.UNSURE, ""))
            verdicts.append(code)
            if code == OffsetVerdict.CARRIES:
                self._seen.setdefault((Kind.OFFSET, key), (position, seen))
        for name, key, seen in finding.flags:
            which = (Kind(name), key)
            self._flagged.setdefault(which, array("q")).append(position)
            self._seen.setdefault(which, (position, seen))

    def conclude(self, table: pa.Table) -> tuple[Suspicion, ...]:
        """What all of it comes to.

        Args:
            table: The archive's table, with ``id`` and ``asset:<sensor>``.

        Returns:
            One suspicion for each kind and sensor that shows it, in the order of :class:`Kind`.
        """
        found = [self._offset(key, table) for key in self._verdicts]
        found += [
            self._suspicion(kind, key, np.asarray(positions), *self._seen[kind, key], table)
            for (kind, key), positions in self._flagged.items()
        ]
        found.append(self._duplicates(table))
        positions = np.asarray(self._positions)
        for kind, look in TABLE_CHECKS.items():
            if (seen := look(table, positions)) is not None:
                key, shown, words = seen
                found.append(self._suspicion(kind, key, shown, int(shown[0]), words, table))
        order = list(Kind)
        return tuple(sorted((one for one in found if one), key=lambda one: (order.index(one.kind), one.sensor)))

    def _offset(self, key: str, table: pa.Table) -> Suspicion | None:
        positions = np.asarray(self._positions)
        # Samples of one file share what its product has, which decides where pixels of one alone do not.
        assets = table[f"asset:{key}"].take(pa.array(positions))
        stated = table[offset.STATED].take(pa.array(positions)) if offset.STATED in table.column_names else None
        verdicts = offset.settle(np.asarray(self._verdicts[key], dtype=np.int8), assets, stated)
        carry, free = (int((verdicts == one).sum()) for one in (OffsetVerdict.CARRIES, OffsetVerdict.FREE))
        if not carry:
            return None
        kind = Kind.MIXED_OFFSET if free else Kind.OFFSET
        rest = f" {free:,} samples do not carry it." if free else ""
        rest += f" {len(verdicts) - free - carry:,} are too bright to tell." if free + carry < len(verdicts) else ""
        first = int(positions[verdicts == OffsetVerdict.CARRIES][0])
        example, seen = self._seen.get((Kind.OFFSET, key), (first, "its product states so."))
        return self._suspicion(kind, key, positions[verdicts == OffsetVerdict.CARRIES], example, seen + rest, table)

    def _duplicates(self, table: pa.Table) -> Suspicion | None:
        positions, digests = np.asarray(self._positions), np.asarray(self._digests)
        positions, digests = positions[digests != 0], digests[digests != 0]
        # Of copies the one that was read first counts as the original, and the others as its repeats.
        _, first, group = np.unique(digests, return_index=True, return_inverse=True)
        originals = positions[first][group]
        repeats = positions != originals
        if not repeats.any():
            return None
        original = table["id"][int(originals[repeats][0])].as_py()
        seen = f"every pixel of it equals those of {original}."
        return self._suspicion(Kind.DUPLICATE, "", positions[repeats], int(positions[repeats][0]), seen, table)

    def _suspicion(
        self, kind: Kind, key: str, positions: NDArray[np.int64], example: int, seen: str, table: pa.Table
    ) -> Suspicion:
        ids = table["id"].take(pa.array(positions)).to_pylist()
        column = f"asset:{key}" if key else next(name for name in table.column_names if name.startswith("asset:"))
        name, asset = table["id"][example].as_py(), table[column][example].as_py() or ""
        return Suspicion(kind, key, len(ids), len(self._positions), name, asset, seen, MEND[kind], tuple(ids))


def _digest(summaries: Mapping[str, PixelSummary]) -> int:
    """Hash of 64 bits: among a million samples two that differ share one with a chance of 1 in 40 million."""
    state = hashlib.blake2b(digest_size=8)
    measured = [summary.pixels for summary in summaries.values() if summary.sensor.kind != "map"]
    for pixels in measured:
        state.update(f"{pixels.dtype.str}{pixels.shape}".encode())
        state.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(state.digest(), "little") if measured else 0
