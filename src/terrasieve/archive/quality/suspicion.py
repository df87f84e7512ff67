"""What a suspicion is: something that corrupts a run without stopping it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from terrasieve.files.writing import write_text


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
    OVERLAP = "overlapping samples"
    TIMES = "partners of other times"


MEND: Mapping[Kind, str] = {
    Kind.OFFSET: "Index or pack with --harmonise, which subtracts it.",
    Kind.MIXED_OFFSET: (
        "Index or pack with --harmonise, which subtracts it from the samples that carry it, and from no other."
    ),
    Kind.UNIT: "Declare the sensor in the unit that the files have, or export them anew.",
    Kind.RANGE: "Declare the value as the sensor's nodata, or the sensor's true valid_range.",
    Kind.ORDER: "Declare the sensor with its bands in the order of the files.",
    Kind.NODATA: "Index or pack with --max-nodata 0, which leaves these samples out.",
    Kind.CONSTANT: "Fetch the files again, or remove them.",
    Kind.DUPLICATE: "Remove the repeats: across a split they leak, within one they count twice.",
    Kind.GRID: "Resample one sensor onto the other's grid.",
    Kind.OVERLAP: "Across a split they leak: probe with --group COLUMN or --block-km, which hold places out whole.",
    Kind.TIMES: "Index or pack with --max-days, which leaves out what lies further apart in time.",
}
"""The switch or edit that mends each kind."""
_PLAINLY: Mapping[Kind, str] = {
    Kind.OFFSET: "Subtract it when the archive is indexed or packed.",
    Kind.MIXED_OFFSET: "Subtract it from the samples that carry it when the archive is indexed or packed.",
    Kind.NODATA: "Leave these samples out when the archive is indexed or packed.",
    Kind.OVERLAP: "Across a split they leak: hold places out whole.",
    Kind.TIMES: "Leave out what lies further apart in time when the archive is indexed or packed.",
}
"""The same without switches, for commands that have not got them."""


def advice(kind: Kind, options: Collection[str]) -> str:
    """What mends a kind, as a command may say it: no switch is named that the command has not.

    Args:
        kind: Which kind of trouble is suspected.
        options: The switches of the command, such as ``--harmonise``.
    """
    return MEND[kind] if set(re.findall(r"--[a-z-]+", MEND[kind])) <= set(options) else _PLAINLY[kind]


@dataclass(frozen=True)
class Suspicion:
    """One kind of trouble in one sensor of an archive. It warns: no sample is left out for it.

    Attributes:
        kind: Which kind of trouble is suspected.
        sensor: Key of the sensor; empty where it concerns whole samples.
        samples: Number of samples that show it.
        total: Number of samples that were looked at.
        example: The id of one that shows it.
        asset: The file of that sample and sensor; empty where there is none.
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

    def line(self, options: Collection[str] = ()) -> str:
        """All of it in one line.

        Args:
            options: The switches of the command that prints it, see :func:`advice`.
        """
        return f"{self.headline}, for example {self.example}: {self.seen} {advice(self.kind, options)}"

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
