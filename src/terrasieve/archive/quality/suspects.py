"""From summaries at single samples to suspicions about an archive."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.quality import offset
from terrasieve.archive.quality.checks import (
    find_constant,
    find_exchanged_bands,
    find_grids_apart,
    find_missing,
    find_other_unit,
    find_stray_values,
)
from terrasieve.archive.quality.offset import OffsetVerdict
from terrasieve.archive.quality.pixel_summary import Check, PixelSummary
from terrasieve.archive.quality.suspicion import MEND, Kind, Suspicion
from terrasieve.sensors import Sensor

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
        digest: Of all its pixels but those of maps; 0 where they are constant or there are none.
        verdicts: By key of the sensor, whether it carries the offset, and in what numbers where it does.
        flags: Kind, sensor and what was seen.
    """

    digest: int
    verdicts: Mapping[str, tuple[int, str]]
    flags: Sequence[tuple[str, str, str]]

    def record(self) -> list[Any]:
        """JSON-able."""
        return [self.digest, dict(self.verdicts), list(self.flags)]

    @classmethod
    def parse(cls, stored: Sequence[Any]) -> Finding:
        """From what ``record`` gave."""
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
    verdicts = {key: _verdict(summary) for key, summary in summaries.items() if offset.may_carry(summary.sensor)}
    constant = any(kind == Kind.CONSTANT for kind, *_ in flags)
    return Finding(0 if constant else _digest(summaries), verdicts, flags)


class Suspects:
    """What was found so far in the samples of an archive: positions and numbers, never pixels.

    Args:
        sensors: The archive's sensors by key.
    """

    def __init__(self, sensors: Mapping[str, Sensor]) -> None:
        self._positions = array("q")
        self._digests = array("Q")
        self._verdicts = {key: array("b") for key, sensor in sensors.items() if offset.may_carry(sensor)}
        self._flagged: dict[tuple[Kind, str], array[int]] = {}
        self._seen: dict[tuple[Kind, str], tuple[int, str]] = {}

    def add(self, position: int, finding: Finding) -> None:
        """Take in what one sample showed.

        Args:
            position: Of the sample, in the archive; each comes once.
            finding: As ``inspect_sample`` gave it.
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
            table: Of the archive: ``id`` and ``asset:<sensor>``.
        """
        found = [self._offset(key, table) for key in self._verdicts]
        found += [
            self._suspicion(kind, key, np.asarray(positions), *self._seen[kind, key], table)
            for (kind, key), positions in self._flagged.items()
        ]
        found.append(self._duplicates(table))
        order = list(Kind)
        return tuple(sorted((one for one in found if one), key=lambda one: (order.index(one.kind), one.sensor)))

    def _offset(self, key: str, table: pa.Table) -> Suspicion | None:
        positions = np.asarray(self._positions)
        assets = table[f"asset:{key}"].take(pa.array(positions))
        verdicts = offset.settle(np.asarray(self._verdicts[key], dtype=np.int8), assets)
        carry, free = (int((verdicts == one).sum()) for one in (OffsetVerdict.CARRIES, OffsetVerdict.FREE))
        if not carry:
            return None
        kind = Kind.MIXED_OFFSET if free else Kind.OFFSET
        rest = f" {free:,} samples do not carry it." if free else ""
        rest += f" {len(verdicts) - free - carry:,} are too bright to tell." if free + carry < len(verdicts) else ""
        example, seen = self._seen[Kind.OFFSET, key]
        return self._suspicion(kind, key, positions[verdicts == OffsetVerdict.CARRIES], example, seen + rest, table)

    def _duplicates(self, table: pa.Table) -> Suspicion | None:
        positions, digests = np.asarray(self._positions), np.asarray(self._digests)
        positions, digests = positions[digests != 0], digests[digests != 0]
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


def _verdict(summary: PixelSummary) -> tuple[int, str]:
    verdict = offset.judge(summary)
    return int(verdict), offset.describe(summary) if verdict is OffsetVerdict.CARRIES else ""


def _digest(summaries: Mapping[str, PixelSummary]) -> int:
    """Of 64 bits: among a million samples two that differ share one with a chance of 1 in 40 million."""
    state = hashlib.blake2b(digest_size=8)
    measured = [summary.pixels for summary in summaries.values() if summary.sensor.kind != "map"]
    for pixels in measured:
        state.update(f"{pixels.dtype.str}{pixels.shape}".encode())
        state.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(state.digest(), "little") if measured else 0
