"""Which samples are fit for use, and the list of those that are not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv
from pydantic import Field

from terrasieve.errors import SampleError, TooManyBadSamplesError
from terrasieve.files.writing import write_whole
from terrasieve.schema import Spec
from terrasieve.sensors import Sensor


class Problem(StrEnum):
    """What can be wrong with a sample, in the words that reports use."""

    UNREADABLE = "unreadable"
    NODATA = "nodata"
    UNIT = "wrong unit"
    BANDS = "wrong bands"
    GRID = "mismatched grids"
    PARTNER = "missing partner"


class FlawError(SampleError):
    """A sample error that also says which kind of problem it is, so that reports can count kinds."""

    def __init__(self, problem: Problem, message: str) -> None:
        # Both as arguments, by which an exception is pickled on its way from a reader process.
        super().__init__(problem, message)
        self.problem = problem
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Rejection:
    """One entry of the quarantine list.

    Attributes:
        id: The sample's id, or that of the scene where a whole scene is lost.
        sensor: Key of the sensor whose pixels are at fault.
        asset: The file at fault; empty where it does not exist.
        reason: What is wrong, with the file, the value and the fix.
        problem: Its kind, by which reports count.
        samples: How many samples are lost by it.
    """

    id: str
    sensor: str
    asset: str
    reason: str
    problem: Problem = Problem.UNREADABLE
    samples: int = 1

    @classmethod
    def from_error(cls, sample: str, sensor: str, asset: str, error: SampleError) -> Rejection:
        """The entry for a sample whose reading or checking raised ``error``."""
        problem = error.problem if isinstance(error, FlawError) else Problem.UNREADABLE
        return cls(id=sample, sensor=sensor, asset=asset, reason=str(error), problem=problem)


class QualityLimits(Spec):
    """How much may be missing from a sample before it is set aside.

    Attributes:
        max_nodata: Highest share, 0 to 1, of pixels without a value in any one band. NaN, infinities
            and the sensor's nodata value count. A band without a single value is never accepted.
            The default of 0.05 keeps samples that a scene's edge clips and drops those it cuts off.
        check_units: Whether to refuse values that contradict the band's declared unit.
    """

    max_nodata: float = Field(default=0.05, ge=0, le=1)
    check_units: bool = True


def missing(pixels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Where nothing was measured: NaN, infinities and the nodata value.

    Args:
        pixels: Any shape, any real type.
        nodata: The sensor's nodata value, or None.

    Returns:
        Mask of the same shape.
    """
    floating = pixels.dtype.kind == "f"
    absent: NDArray[np.bool_] = ~np.isfinite(pixels) if floating else np.zeros(pixels.shape, dtype=np.bool_)
    if nodata is not None and not math.isnan(nodata):
        absent |= pixels == nodata
    return absent


def check(pixels: NDArray[Any], sensor: Sensor, limits: QualityLimits) -> None:
    """Accept one sensor's pixels of a sample, or say why not.

    Args:
        pixels: Shape ``(bands, height, width)``, all bands of the sensor in its order.
        sensor: Declares bands, units and the nodata value.
        limits: How much may be missing, and whether units are checked.

    Raises:
        SampleError: The band count is wrong, too much is missing in a band, or values contradict the unit.
    """
    if pixels.ndim != 3 or pixels.shape[0] != len(sensor.bands):
        raise FlawError(
            Problem.BANDS,
            f"Pixels of shape {pixels.shape} cannot be the {len(sensor.bands)} bands of sensor {sensor.name!r} "
            f"({', '.join(sensor.names)}); name the sensor that fits the files.",
        )
    if np.iscomplexobj(pixels):
        raise FlawError(
            Problem.UNIT,
            f"Pixels of sensor {sensor.name!r} are {pixels.dtype}; take the power or the magnitude, and export real "
            "numbers.",
        )
    absent = missing(pixels, sensor.nodata)
    # A pixel without a class is left out of scores; it was measured all the same.
    if any(band.unit != "class" for band in sensor.bands):
        _check_absent(absent, sensor, limits)
    if limits.check_units:
        lacking = absent.any()
        for band, values, gone in zip(sensor.bands, pixels, absent, strict=True):
            if suspicion := _suspect_unit(values[~gone] if lacking else values, band.unit):
                raise FlawError(Problem.UNIT, f"Band {band.name} of sensor {sensor.name!r}: {suspicion}")


def _check_absent(absent: NDArray[np.bool_], sensor: Sensor, limits: QualityLimits) -> None:
    if not absent.any():
        return
    shares = absent.reshape(len(sensor.bands), -1).mean(axis=1)
    worst = int(shares.argmax())
    if shares[worst] <= limits.max_nodata and shares[worst] < 1:
        return
    also = "" if sensor.nodata is None else f" or the nodata value {sensor.nodata:g}"
    raise FlawError(
        Problem.NODATA,
        f"Band {sensor.names[worst]} of sensor {sensor.name!r} is {shares[worst]:.1%} NaN{also}; "
        f"the limit max_nodata is {limits.max_nodata:.1%}.",
    )


def _suspect_unit(values: NDArray[Any], unit: str) -> str | None:
    """Why the values measured cannot be of the unit, or None; only contradictions that no real scene shows."""
    floating = np.issubdtype(values.dtype, np.floating)
    # Bands without a single value have been refused before: there is a least and a greatest one.
    if unit == "db" and not floating:
        return f"decibels cannot be {values.dtype} without losing their fraction; declare unit dn, or export float32."
    if unit == "db" and values.min() >= 0:
        return "no value lies below 0 dB, so this is linear power or an empty border; declare unit linear if it is."
    if unit == "linear" and values.min() < 0:
        return "values lie below 0, so this is decibels; declare unit db."
    if unit == "reflectance" and values.max() > 100:
        return "values exceed 100, so this is reflectance times 10,000; declare unit reflectance_e4."
    if unit == "reflectance_e4" and floating and values.max() <= 2:
        return "no value exceeds 2, so this is reflectance already divided by 10,000; declare unit reflectance."
    return None


@dataclass(frozen=True)
class QualityReport:
    """What became of an archive's samples.

    Attributes:
        path: What was written from the good ones, or its address.
        quarantine: The list of rejected samples.
        samples: Number of good samples, which were taken.
        rejected: Number of samples that were left out.
        counts: Samples left out by kind of problem.
    """

    path: Path | str
    quarantine: Path
    samples: int
    rejected: int
    counts: Mapping[str, int]

    def summary(self) -> str:
        """One line for the screen."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        listed = f" ({kinds}), listed in {self.quarantine}" if kinds else ""
        return f"{self.samples:,} samples in {self.path}; {self.rejected:,} rejected{listed}."


class Quarantine:
    """Collects rejected samples, lists them in a CSV file and stops the run when they are too many.

    Args:
        path: The list; columns ``id, sensor, asset, reason, problem, samples``.
        total: Number of samples of the run, rejected ones included.
        max_bad: Highest share of ``total``, 0 to 1, that may be rejected.
    """

    def __init__(self, path: Path, total: int, max_bad: float = 0.01) -> None:
        self.path = path
        self.total = total
        self.max_bad = max_bad
        self.rejections: list[Rejection] = []
        self._lost: dict[str, int] = {}

    @classmethod
    def begin(cls, path: Path, samples: int, rejected: Sequence[Rejection], max_bad: float = 0.01) -> Quarantine:
        """A list for a run over an archive, with what the archive itself rejected on opening already in it.

        Args:
            path: The list, a CSV file.
            samples: Number of samples of the archive.
            rejected: What the archive rejected on opening, with the reasons.
            max_bad: Highest share of all samples, 0 to 1, that may be rejected.

        Raises:
            TooManyBadSamplesError: What the archive rejected alone passes ``max_bad``.
        """
        lost = {rejection.id: rejection.samples for rejection in rejected}
        quarantine = cls(path, samples + sum(lost.values()), max_bad)
        quarantine.extend(rejected)
        return quarantine

    def add(self, rejection: Rejection) -> None:
        """Take one rejection in; a sample that fails for two sensors is listed twice and counted once.

        Raises:
            TooManyBadSamplesError: More than ``max_bad`` of all samples are now lost; the list is written first.
        """
        self.extend([rejection])

    def extend(self, rejections: Iterable[Rejection]) -> None:
        """Take several in before judging their share, so that the report counts all of them.

        Raises:
            TooManyBadSamplesError: As ``add``.
        """
        # Of one sample with several flaws the one that loses most counts.
        for rejection in rejections:
            self.rejections.append(rejection)
            self._lost[rejection.id] = max(self._lost.get(rejection.id, 0), rejection.samples)
        self._stop_if_too_many()

    @property
    def bad(self) -> int:
        """Number of samples lost."""
        return sum(self._lost.values())

    @property
    def counts(self) -> dict[str, int]:
        """Samples lost by kind of problem, most frequent first; the first problem of a sample counts."""
        first: dict[str, Rejection] = {}
        for rejection in self.rejections:
            first.setdefault(rejection.id, rejection)
        tally: Counter[str] = Counter()
        for rejection in first.values():
            tally[rejection.problem.value] += self._lost[rejection.id]
        return dict(tally.most_common())

    def summary(self) -> str:
        """One line for the screen, such as ``12 of 6400 rejected (9 nodata, 3 unreadable)``."""
        if not self.rejections:
            return f"none of {self.total} rejected"
        return f"{self.bad} of {self.total} rejected ({', '.join(f'{n} {kind}' for kind, n in self.counts.items())})"

    def write(self) -> None:
        """Write the list, also when it is empty, so that it never tells of an earlier run."""
        columns = {field.name: [asdict(r)[field.name] for r in self.rejections] for field in fields(Rejection)}
        columns["problem"] = [r.problem.value for r in self.rejections]
        schema = pa.schema([(f.name, pa.int64() if f.name == "samples" else pa.string()) for f in fields(Rejection)])
        with write_whole(self.path) as partial:
            csv.write_csv(pa.table(columns, schema=schema), partial)

    def _stop_if_too_many(self) -> None:
        if self.bad <= self.max_bad * self.total:
            return
        self.write()
        last = self.rejections[-1]
        raise TooManyBadSamplesError(
            f"{self.summary()}: more than the limit of {self.max_bad:.2%}. All are listed in {self.path}; "
            f"the latest is {last.id}: {last.reason} Mend or remove the files, or allow more with --max-bad."
        )
