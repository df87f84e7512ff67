"""What a suspicion is: something that corrupts a run without stopping it."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
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
from terrasieve.archive.quality.look import Check, Look
from terrasieve.archive.quality.offset import Verdict
from terrasieve.sensors import Sensor
from terrasieve.writing import write_text


class Kind(StrEnum):
    """What is suspected, in the words that reports use."""

    OFFSET = "+1000 offset"
    MIXED_OFFSET = "+1000 offset in some samples"
    UNIT = "doubtful unit"
    RANGE = "values out of range"
    ORDER = "doubtful band order"
    NODATA = "missing pixels"
    CONSTANT = "constant band"
    DUPLICATE = "duplicate samples"
    GRID = "grids that do not line up"


MEND: Mapping[Kind, str] = {
    Kind.OFFSET: "--harmonise subtracts it.",
    Kind.MIXED_OFFSET: "--harmonise subtracts it from the samples that carry it, and from no other.",
    Kind.UNIT: "Declare the sensor in the unit that the files have, or export them anew.",
    Kind.RANGE: "Declare the value as the sensor's nodata, or the sensor's true valid_range.",
    Kind.ORDER: "Declare the sensor with its bands in the order of the files.",
    Kind.NODATA: "--max-nodata 0 leaves these samples out.",
    Kind.CONSTANT: "Fetch the files again, or remove them.",
    Kind.DUPLICATE: "Remove the repeats: across a split they leak, within one they count twice.",
    Kind.GRID: "Resample one sensor onto the other's grid.",
}
"""The switch or edit that mends each kind."""


@dataclass(frozen=True)
class Suspicion:
    """One kind of trouble in one sensor of an archive. It warns: no sample is left out for it.

    Attributes:
        kind: What is suspected.
        sensor: Key of the sensor; empty where it concerns whole samples.
        samples: How many samples show it.
        total: How many were looked at.
        example: The id of one that shows it.
        asset: That sample's file.
        seen: What was seen in it, in numbers.
        mend: The switch or edit that mends it.
        ids: All samples that show it; empty where only the summary was kept.
    """

    kind: Kind
    sensor: str
    samples: int
    total: int
    example: str
    asset: str
    seen: str
    mend: str
    ids: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """Kind, sensor and count, such as ``+1000 offset: s2, 3 of 5 samples``."""
        where = f"{self.sensor}, " if self.sensor else ""
        return f"{self.kind.value}: {where}{self.samples:,} of {self.total:,} samples"

    def line(self) -> str:
        """All of it in one line."""
        return f"{self.headline}, for example {self.example}: {self.seen} {self.mend}"

    def summary(self) -> dict[str, Any]:
        """JSON-able, without the list of all ids."""
        return {name: value for name, value in asdict(self).items() if name != "ids"}

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> Suspicion:
        """From what ``summary`` or a record of :func:`write_suspicions` gave."""
        values = {**stored, "kind": Kind(stored["kind"]), "ids": tuple(stored.get("ids", ()))}
        return cls(**values)


def suspicions_path(out: Path) -> Path:
    """Where the suspicions about what becomes ``out`` are listed."""
    return out.with_name(f"{out.name}.suspicions.json")


def write_suspicions(suspicions: Iterable[Suspicion], path: Path) -> None:
    """Write all of them with all their ids, also when there are none, so that a file never tells of an earlier run."""
    write_text(path, json.dumps([asdict(one) for one in suspicions], indent=1))


# -------------------------------------------------------------------- suspects
# From looks at single samples to suspicions about an archive.

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


def look_at(
    pixels: Mapping[str, NDArray[Any]], sensors: Mapping[str, Sensor], assets: Mapping[str, str] | None = None
) -> Finding:
    """Look at one sample.

    Args:
        pixels: By key of the sensor, shape ``(bands, height, width)``, all bands in the sensor's order.
        sensors: By the same keys.
        assets: The file of each sensor, where their grids are to be compared.
    """
    looks = {key: Look(values, sensors[key]) for key, values in pixels.items()}
    flags = [
        (kind.value, key, seen)
        for key, look in looks.items()
        for kind, check in CHECKS.items()
        if (seen := check(look)) is not None
    ]
    if assets and (apart := find_grids_apart(assets)):
        flags.append((Kind.GRID.value, *apart))
    verdicts = {key: _verdict(look) for key, look in looks.items() if offset.may_carry(look.sensor)}
    constant = any(kind == Kind.CONSTANT for kind, *_ in flags)
    return Finding(0 if constant else _digest(looks), verdicts, flags)


class Suspects:
    """What was found so far in the samples of an archive: positions and numbers, never pixels.

    Args:
        sensors: The archive's.
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
            finding: As ``look_at`` gave it.
        """
        self._positions.append(position)
        self._digests.append(finding.digest)
        for key, verdicts in self._verdicts.items():
            code, seen = finding.verdicts.get(key, (Verdict.UNSURE, ""))
            verdicts.append(code)
            if code == Verdict.CARRIES:
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
        carry, free = (int((verdicts == one).sum()) for one in (Verdict.CARRIES, Verdict.FREE))
        if not carry:
            return None
        kind = Kind.MIXED_OFFSET if free else Kind.OFFSET
        rest = f" {free:,} samples do not carry it." if free else ""
        rest += f" {len(verdicts) - free - carry:,} are too bright to tell." if free + carry < len(verdicts) else ""
        example, seen = self._seen[Kind.OFFSET, key]
        return self._suspicion(kind, key, positions[verdicts == Verdict.CARRIES], example, seen + rest, table)

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


def _verdict(look: Look) -> tuple[int, str]:
    verdict = offset.judge(look)
    return int(verdict), offset.describe(look) if verdict is Verdict.CARRIES else ""


def _digest(looks: Mapping[str, Look]) -> int:
    """Of 64 bits: among a million samples two that differ share one with a chance of 1 in 40 million."""
    state = hashlib.blake2b(digest_size=8)
    measured = [look.pixels for look in looks.values() if look.sensor.kind != "map"]
    for pixels in measured:
        state.update(f"{pixels.dtype.str}{pixels.shape}".encode())
        state.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(state.digest(), "little") if measured else 0
