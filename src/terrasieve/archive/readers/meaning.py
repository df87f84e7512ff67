"""What stored numbers mean: which of them were measured, and in what unit; said by a sensor, an item or a file.

Whoever reads pixels for an archive gets them in the sensor's unit, and with the sensor's nodata value wherever nothing
was measured; NaN where the sensor has none. Everything behind it then asks
:func:`terrasieve.archive.quality.limits.missing` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.sensors import Sensor

_AS_STORED = ("class", "dn")
"""Units in which what is stored is what is meant, whatever scale is stated."""
_LARGEST = 0.1
"""Scale above which what is stored is no reflectance any more: 0.01, that of per cent, is the largest in use."""
_ALIKE = 1e-6
"""By how much a factor may differ from 1 and still be it: 0.0001 is often stored in 32 bits."""
_WHOLE = 0.01
"""By how much a summand in units of 1/10,000 may differ from a whole number, for the same reason."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a file, or an item of a catalogue, says of the values of a band.

    Attributes:
        nodata: The value that stands for "nothing measured here"; None where there is none.
        scale: Factor from what is stored to what is meant.
        offset: What is added after that.
        saturated: The value that stands for "brighter than can be measured", which counts as missing too; None where
            there is none.
    """

    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    saturated: float | None = None

    def marked(self, dtype: np.dtype[Any]) -> set[float]:
        """The values that stand for something else, as far as pixels of a type can hold them.

        NaN and the infinities are left out, which count as missing anyhow.
        """
        said = (self.nodata, self.saturated)
        return {value for value in said if value is not None and math.isfinite(value) and _holds(dtype, value)}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the values of a band are to be when they have been read.

    Attributes:
        band: Name of the band, for messages.
        unit: The unit that its sensor declares.
        nodata: The sensor's nodata value.
        count: Number of bands that the sensor takes from the file, so that an alpha band among them is a band of its.
        scaled: Whether a scale and an offset that are stated are applied.
        stated: What an item says, by attribute of :class:`Stated`, which goes before what the file says.
    """

    band: str
    unit: str
    nodata: float | None
    count: int
    scaled: bool = True
    stated: Mapping[str, float] = field(default_factory=dict)

    @property
    def marks(self) -> tuple[float, ...]:
        """Values of which an item says that they stand for nothing measured."""
        return tuple(self.stated[name] for name in ("nodata", "saturated") if name in self.stated)


def meanings(sensor: Sensor, positions: Sequence[int], count: int | None = None) -> list[Meaning]:
    """What bands of a sensor are to be.

    Args:
        sensor: Declares unit and nodata value.
        positions: Of the bands, from 0.
        count: Number of bands that the sensor takes from the file; all of its bands when None.
    """
    taken = len(sensor.bands) if count is None else count
    bands = [sensor.bands[position] for position in positions]
    return [Meaning(band.name, band.unit, sensor.nodata, taken, sensor.scaling == "stated") for band in bands]


def settle(
    name: str,
    pixels: NDArray[Any],
    masked: NDArray[np.bool_] | None,
    stated: Sequence[Stated],
    wanted: Sequence[Meaning],
) -> NDArray[Any]:
    """Pixels in the unit of their sensor, with its nodata value, or NaN, where nothing was measured.

    The type stays as it is stored where it can: integers become floating-point where a scale makes fractions of them,
    or where something may be missing and the sensor has no nodata value that they can hold. Which it is depends on
    what is stated alone, so that all reads of a file come in one type.

    Args:
        name: The file, for messages.
        pixels: As stored, shape ``(bands, height, width)``.
        masked: Where a mask says that nothing was measured, same shape; None where there is no mask.
        stated: What the file says of each band.
        wanted: What each band is to be; all of one sensor.

    Raises:
        SampleError: A scale that is stated contradicts the unit that the sensor declares.
    """
    said = [replace(own, **one.stated) if one.stated else own for one, own in zip(wanted, stated, strict=True)]
    lines = [_line(name, one, by) for one, by in zip(wanted, said, strict=True)]
    nodata = wanted[0].nodata
    may_lack = masked is not None or any(by.marked(pixels.dtype) - {nodata} for by in said)
    if np.iscomplexobj(pixels) or not (may_lack or any(lines)):
        return pixels
    fractions = any(line and not _keeps_type(one, line) for one, line in zip(wanted, lines, strict=True))
    lacks_a_value = may_lack and (nodata is None or not _holds(pixels.dtype, nodata))
    kind = np.result_type(pixels.dtype, np.float32) if fractions or lacks_a_value else pixels.dtype
    result = np.empty(pixels.shape, kind)
    for place, (raw, one, by, line) in enumerate(zip(pixels, wanted, said, lines, strict=True)):
        result[place] = _converted(raw, one, line, kind) if line else raw
        absent = np.zeros(raw.shape, np.bool_) if masked is None else masked[place].copy()
        for value in by.marked(pixels.dtype) | {nodata} - {None}:
            absent |= raw == value
        if absent.any():
            result[place][absent] = np.nan if nodata is None or not _holds(kind, nodata) else nodata
    return result


def _line(name: str, one: Meaning, by: Stated) -> tuple[float, float] | None:
    """Factor and summand from what is stored to the sensor's unit; None where what is stored is what is meant."""
    if not one.scaled or one.unit in _AS_STORED or (by.scale, by.offset) == (1, 0):
        return None
    reflectance = one.unit.startswith("reflectance")
    possible = math.isfinite(by.offset) and math.isfinite(by.scale) and by.scale != 0
    if not possible or (reflectance and not 0 < by.scale <= _LARGEST):
        raise FlawError(
            Problem.UNIT,
            f"{name} states the scale {by.scale:g} and the offset {by.offset:g} for band {one.band}, which do not give "
            f"the unit {one.unit} that its sensor declares. Correct what is stated, or, where the pixels are in that "
            "unit as they are, set scaling: ignore in the sensor's declaration.",
        )
    unit = 10_000 if one.unit == "reflectance_e4" else 1
    factor, summand = by.scale * unit, by.offset * unit
    factor = 1.0 if math.isclose(factor, 1, rel_tol=_ALIKE) else factor
    summand = float(round(summand)) if abs(summand - round(summand)) < _WHOLE else summand
    return None if (factor, summand) == (1, 0) else (factor, summand)


def _keeps_type(one: Meaning, line: tuple[float, float]) -> bool:
    """Whether integers stay integers: where only the offset of +1000, or one like it, is taken away."""
    return one.unit == "reflectance_e4" and line[0] == 1 and line[1].is_integer()


def _converted(raw: NDArray[Any], one: Meaning, line: tuple[float, float], kind: np.dtype[Any]) -> NDArray[Any]:
    factor, summand = line
    if not _keeps_type(one, line):
        straight: NDArray[Any] = raw.astype(kind) * kind.type(factor) + kind.type(summand)
        return straight
    # As where the offset is found in the pixels: what was measured comes out neither below 0 nor as missing.
    lowest = 1 if one.nodata == 0 else 0
    shifted = raw.astype(np.float64) + summand
    highest = np.iinfo(kind).max if np.issubdtype(kind, np.integer) else np.inf
    clipped: NDArray[Any] = np.clip(shifted, lowest, highest).astype(kind)
    return clipped


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a value is one of a type."""
    if not np.issubdtype(dtype, np.integer):
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and float(value).is_integer() and limits.min <= value <= limits.max
