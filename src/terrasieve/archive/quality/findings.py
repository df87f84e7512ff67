"""What single samples show, and the suspicions that findings at many samples come to.

A :class:`Finding` is small, and pixels are let go. Offsets and duplicates show among several samples only, so that
:class:`SuspicionCollector` comes to suspicions when all findings are there.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.quality import offset
from terrasieve.archive.quality.checks import (
    Check,
    PixelSummary,
    find_constant,
    find_grids_apart,
    find_missing,
    find_other_unit,
    find_stray_values,
)
from terrasieve.archive.quality.limits import Problem, Rejection
from terrasieve.archive.quality.offset import OffsetVerdict, find_exchanged_bands
from terrasieve.archive.quality.suspicion import MEND, Kind, Suspicion
from terrasieve.archive.quality.table_checks import TABLE_CHECKS
from terrasieve.sensors import Sensor

Judgement: TypeAlias = "tuple[list[Rejection], Finding | None]"
"""What is wrong with a sample, and what it shows where nothing is."""

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

    @property
    def positions(self) -> NDArray[np.int64]:
        """Positions of the samples taken in so far, in the order in which they came."""
        return np.array(self._positions, np.int64)

    def add(self, position: int, finding: Finding) -> None:
        """Take in what one sample showed.

        Args:
            position: Position of the sample in the archive; each comes once, in any order.
            finding: What the sample showed, as :func:`inspect_sample` gives it.
        """
        self._positions.append(position)
        self._digests.append(finding.digest)
        for key, verdicts in self._verdicts.items():
            code, seen = finding.verdicts.get(key, (OffsetVerdict.UNSURE, ""))
            verdicts.append(code)
            if code == OffsetVerdict.CARRIES:
                self._see((Kind.OFFSET, key), position, seen)
        for name, key, seen in finding.flags:
            which = (Kind(name), key)
            self._flagged.setdefault(which, array("q")).append(position)
            self._see(which, position, seen)

    def _see(self, which: tuple[Kind, str], position: int, seen: str) -> None:
        """Keep what the first sample of the archive shows, whichever came first."""
        if which not in self._seen or position < self._seen[which][0]:
            self._seen[which] = (position, seen)

    def conclude(self, table: pa.Table) -> tuple[Suspicion, ...]:
        """What all of it comes to.

        Args:
            table: The archive's table, with ``id`` and ``asset:<sensor>``.

        Returns:
            One suspicion for each kind and sensor that shows it, in the order of :class:`Kind`.
        """
        order = np.argsort(self.positions)
        found = [self._offset(key, table, order) for key in self._verdicts]
        found += [
            self._suspicion(kind, key, np.sort(positions), *self._seen[kind, key], table)
            for (kind, key), positions in self._flagged.items()
        ]
        found.append(self._duplicates(table, order))
        positions = self.positions[order]
        for kind, look in TABLE_CHECKS.items():
            if (seen := look(table, positions)) is not None:
                key, shown, words = seen
                found.append(self._suspicion(kind, key, shown, int(shown[0]), words, table))
        kinds = list(Kind)
        return tuple(sorted((one for one in found if one), key=lambda one: (kinds.index(one.kind), one.sensor)))

    def _offset(self, key: str, table: pa.Table, order: NDArray[np.intp]) -> Suspicion | None:
        positions = self.positions[order]
        # Samples of one file share what its product has, which decides where pixels of one alone do not.
        assets = table[f"asset:{key}"].take(pa.array(positions))
        stated = table[offset.STATED].take(pa.array(positions)) if offset.STATED in table.column_names else None
        verdicts = offset.settle(np.array(self._verdicts[key], dtype=np.int8)[order], assets, stated)
        carry, free = (int((verdicts == one).sum()) for one in (OffsetVerdict.CARRIES, OffsetVerdict.FREE))
        if not carry:
            return None
        kind = Kind.MIXED_OFFSET if free else Kind.OFFSET
        rest = f" {free:,} samples do not carry it." if free else ""
        rest += f" {len(verdicts) - free - carry:,} are too bright to tell." if free + carry < len(verdicts) else ""
        first = int(positions[verdicts == OffsetVerdict.CARRIES][0])
        example, seen = self._seen.get((Kind.OFFSET, key), (first, "its product states so."))
        return self._suspicion(kind, key, positions[verdicts == OffsetVerdict.CARRIES], example, seen + rest, table)

    def _duplicates(self, table: pa.Table, order: NDArray[np.intp]) -> Suspicion | None:
        positions, digests = self.positions[order], np.array(self._digests)[order]
        positions, digests = positions[digests != 0], digests[digests != 0]
        # Of copies the first in the archive counts as the original, and the others as its repeats.
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


def record_judgement(flaws: Sequence[Rejection], finding: Finding | None) -> list[Any]:
    """A judgement as JSON can hold it, for a journal and on the way from a reader process."""
    return [
        [{**asdict(flaw), "problem": flaw.problem.value} for flaw in flaws],
        None if finding is None else finding.record(),
    ]


def parse_judgement(stored: Sequence[Any]) -> Judgement:
    """The judgement that :func:`record_judgement` gave."""
    flaws, finding = stored
    return (
        [Rejection(**{**flaw, "problem": Problem(flaw["problem"])}) for flaw in flaws],
        None if finding is None else Finding.parse(finding),
    )


class Verdicts:
    """What is known of the samples of an archive so far, taken in any order.

    Args:
        sensors: The archive's sensors by key.

    Attributes:
        collector: Holds what good samples show.
        flaws: What is wrong with the bad ones, by position.
    """

    def __init__(self, sensors: Mapping[str, Sensor]) -> None:
        self.collector = SuspicionCollector(sensors)
        self.flaws: dict[int, list[Rejection]] = {}

    def take(self, index: int, flaws: list[Rejection], finding: Finding | None) -> None:
        """Take in one judgement.

        Args:
            index: Position of the sample in the archive; each comes once.
            flaws: What is wrong with it.
            finding: What it shows, where nothing is wrong.
        """
        if flaws:
            self.flaws[index] = flaws
        if finding is not None:
            self.collector.add(index, finding)

    def missing(self, total: int) -> NDArray[np.int64]:
        """Positions of the samples that were not judged, ascending.

        Args:
            total: Number of samples of the archive.
        """
        left = np.ones(total, np.bool_)
        left[self.collector.positions] = False
        left[list(self.flaws)] = False
        return np.flatnonzero(left)


def _digest(summaries: Mapping[str, PixelSummary]) -> int:
    """Hash of 64 bits: among a million samples two that differ share one with a chance of 1 in 40 million."""
    state = hashlib.blake2b(digest_size=8)
    measured = [summary.pixels for summary in summaries.values() if summary.sensor.kind != "map"]
    for pixels in measured:
        state.update(f"{pixels.dtype.str}{pixels.shape}".encode())
        state.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(state.digest(), "little") if measured else 0
