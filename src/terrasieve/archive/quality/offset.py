"""Two pitfalls of Sentinel-2's files that only the pixels tell of: the offset of +1000, and the order of the bands.

Products since processing baseline 04.00 store ``reflectance * 10,000 + 1,000`` (``RADIO_ADD_OFFSET`` and
``BOA_ADD_OFFSET`` of -1000 in the metadata). Reprocessed scenes of earlier years have it too, so the date of
acquisition decides nothing, and patches cut from products seldom keep the metadata.

Files of 13 bands come in two orders, with B8A after B08 or last, and most say nothing of it. Read in the wrong one, B09
to B12 and B8A each show a neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from terrasieve.archive.quality.checks import PixelSummary
from terrasieve.archive.quality.limits import missing
from terrasieve.sensors import SENSORS, Sensor

OFFSET = 1000
STATED = "offset_stated"
"""Column of a table: whether a sample carries the offset, by what its product states; null where nothing is stated."""
_S2_BANDS = frozenset(SENSORS["s2-l1c"].names)

# The offset lifts every band. The darkest hundredth of a band may then lie a little below 1,000, as surface
# reflectances come out slightly negative over water and in shadow, but not as low as -0.005; a sample with a lower
# band does not carry it, whatever the other bands show.
FLOOR = 950
# A band whose darkest hundredth is below a reflectance of -0.02, were there an offset, rules it out.
_RULED_OUT = 800
# B10 sees no ground: water vapour absorbs it, and clear air shows 0.001 to 0.005, high and dry ground to 0.02. So
# with the offset its darkest hundredth lies at 1,000 to 1,200. Without, only cirrus of a reflectance of 0.1 over
# the whole sample gets there. Between the two nothing is said.
CLEAR_AIR = 200
_CIRRUS_FREE = 500
# Without B10 two bands that see the ground must both be dark. Red: water, shadow and plants have 0.00 to 0.04, and
# 0.04 more allows for sparse cover; B12: water and shadow 0.00 to 0.02, plants 0.04 to 0.10. Bright ground is told
# apart by one of the two: a desert without the offset has red above 0.20 and B12 above 0.35, snow has red above 0.6,
# a cloud both; where its blue happens to lie near 1,000 that is not enough. Only evenly grey ground of a
# reflectance of 0.10 to 0.14 in all bands, without a hundredth of shadow, could be mistaken.
_RED_CARRIES, _SWIR_CARRIES = 1400, 2000


class OffsetVerdict(IntEnum):
    """Whether a sample carries the offset."""

    UNSURE = 0
    FREE = 1
    CARRIES = 2


def may_carry(sensor: Sensor) -> bool:
    """Whether a sensor has bands of Sentinel-2 in reflectance times 10,000."""
    return sensor.kind == "optical" and bool(offset_bands(sensor))


def stated_free(
    sensors: Mapping[str, Sensor], stated: Callable[[str], Sequence[float]], samples: int
) -> list[bool | None]:
    """Of each sample whether an offset was taken away on reading, as its file states: False where one was, else None.

    Pixels of such a sample are not to be asked for the offset any more.

    Args:
        sensors: The archive's, by key.
        stated: The offset that the file of each sample, or scene, states for a sensor; asked of those it matters to.
        samples: Number of samples, or scenes.
    """
    keys = [key for key, sensor in sensors.items() if may_carry(sensor) and sensor.scaling == "stated"]
    each = [stated(key) for key in keys]
    return [False if any(offsets[place] for offsets in each) else None for place in range(samples)]


def offset_bands(sensor: Sensor) -> frozenset[str]:
    """Names of the bands that the offset lifts, where there is one."""
    return frozenset(b.name for b in sensor.bands if b.unit == "reflectance_e4" and b.name in _S2_BANDS)


def judge(summary: PixelSummary) -> OffsetVerdict:
    """Whether the pixels carry the offset.

    Args:
        summary: Pixels of a sensor that :func:`may_carry` it.
    """
    low = _lows(summary)
    darkest = min(low.values())
    if darkest < _RULED_OUT or low.get("B10", np.inf) < _CIRRUS_FREE:
        return OffsetVerdict.FREE
    # Also where nothing was measured: NaN compares as false.
    if not darkest >= FLOOR:
        return OffsetVerdict.UNSURE
    if "B10" in low:
        return OffsetVerdict.CARRIES if low["B10"] <= OFFSET + CLEAR_AIR else OffsetVerdict.UNSURE
    dark = low.get("B04", np.inf) <= _RED_CARRIES and low.get("B12", np.inf) <= _SWIR_CARRIES
    return OffsetVerdict.CARRIES if dark else OffsetVerdict.UNSURE


def evidence(summary: PixelSummary) -> str:
    """What :func:`judge` went by, in numbers."""
    low = _lows(summary)
    if "B10" in low:
        middle = summary.middle[summary.sensor.names.index("B10")]
        return f"B10 has the median {middle:,.0f}, clear air shows 10 to 60."
    return (
        f"the darkest hundredth of B04 lies at {low['B04']:,.0f} and of B12 at {low['B12']:,.0f}, "
        f"and no band goes below {min(low.values()):,.0f}."
    )


def settle(
    verdicts: NDArray[np.int8],
    assets: pa.ChunkedArray | pa.Array,
    stated: pa.ChunkedArray | pa.Array | None = None,
) -> NDArray[np.int8]:
    """Verdicts in which a sample that is unsure takes that of the other samples of its file: a product has it or not.

    Args:
        verdicts: One :class:`OffsetVerdict` a sample, shape ``(n,)``.
        assets: The file of each sample; null where unknown.
        stated: Whether each sample carries the offset, by what its product states, which goes before what its pixels
            show; null where nothing is stated. Nothing is stated of any when None.

    Returns:
        The same, with fewer that are unsure; where a file's samples are evenly divided they stay so.
    """
    if stated is not None:
        codes = pc.if_else(stated, int(OffsetVerdict.CARRIES), int(OffsetVerdict.FREE)).fill_null(-1)
        known = np.array(codes.to_pylist(), dtype=np.int8)
        verdicts = np.where(known >= 0, known, verdicts)
    # Owner 0 stands for samples whose file is unknown.
    column = assets.combine_chunks() if isinstance(assets, pa.ChunkedArray) else assets
    owners = column.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    votes = (verdicts == OffsetVerdict.CARRIES).astype(np.float64) - (verdicts == OffsetVerdict.FREE)
    tally = np.bincount(owners, weights=votes, minlength=1)
    tally[0] = 0  # no known file: nothing in common
    said = np.where(tally > 0, OffsetVerdict.CARRIES, np.where(tally < 0, OffsetVerdict.FREE, OffsetVerdict.UNSURE))
    settled: NDArray[np.int8] = np.where(verdicts == OffsetVerdict.UNSURE, said[owners], verdicts).astype(np.int8)
    return settled


def remove(pixels: NDArray[Any], lifted: NDArray[np.bool_], nodata: float | None) -> NDArray[Any]:
    """Pixels less the offset.

    Missing pixels stay as they are. What would fall below 0 becomes 0; or 1 where 0 is the nodata value, so that a
    pixel that was measured does not come out as one that was not.

    Args:
        pixels: Shape ``(bands, height, width)``.
        lifted: Which of the bands carry the offset, shape ``(bands,)``.
        nodata: The sensor's nodata value.

    Returns:
        Same shape and type.
    """
    lowest = 1 if nodata == 0 else 0
    # Unsigned integers would wrap around below 0: clip first, then subtract.
    lowered = np.maximum(pixels, OFFSET + lowest) - np.asarray(OFFSET, pixels.dtype)
    result: NDArray[Any] = np.where(lifted[:, None, None] & ~missing(pixels, nodata), lowered, pixels)
    return result.astype(pixels.dtype, copy=False)


def _lows(summary: PixelSummary) -> Mapping[str, float]:
    """The darkest hundredth of each band that the offset would lift."""
    lifted = offset_bands(summary.sensor)
    return {name: float(low) for name, low in zip(summary.sensor.names, summary.low, strict=True) if name in lifted}


# ----------------------------------------------------------------------- order

# B8A and B08 see nearly the same light (0.865 and 0.833 um): over land no other band of this group follows B08 as
# closely. Water is left out, where all of them are noise: there B08 varies by less than a reflectance of 0.01.
_LIKE_B08 = ("B09", "B11", "B12")
_TEXTURE = 100.0
_CLOSE, _MARGIN = 0.9, 0.05
# B10 sees no ground and lies below its neighbours. Of the two, B09 is brighter always; B11 is not over water or
# under clouds of ice, so that only a B11 as dark as clear air in B10 speaks against the order.
_ABOVE_B09 = 100.0
_ABOVE_B11, _DARK_B11 = 300.0, 300.0


def find_exchanged_bands(summary: PixelSummary) -> str | None:
    """Which bands seem to be exchanged; see ``Check``."""
    if not may_carry(summary.sensor):
        return None
    return _cirrus(summary) or _near_infrared(summary) or _visible(summary)


def _cirrus(summary: PixelSummary) -> str | None:
    level = _levels(summary)
    if "B10" not in level:
        return None
    cirrus, vapour, swir = level["B10"], level.get("B09"), level.get("B11")
    if vapour is not None and cirrus > vapour + _ABOVE_B09:
        return f"B10, which sees no ground, has the median {cirrus:,.0f} above that of B09, {vapour:,.0f}."
    if swir is not None and swir < _DARK_B11 and cirrus > swir + _ABOVE_B11:
        return f"B10, which sees no ground, has the median {cirrus:,.0f} above that of B11, {swir:,.0f}."
    return None


def _near_infrared(summary: PixelSummary) -> str | None:
    names = summary.sensor.names
    if not {"B08", "B8A"} <= set(names):
        return None
    wide = names.index("B08")
    # Negated, so that a band of NaN is left out as well.
    if not np.nanstd(summary.thinned[wide]) > _TEXTURE:
        return None
    own = summary.correlation(wide, names.index("B8A"))
    for name in (one for one in _LIKE_B08 if one in names):
        other = summary.correlation(wide, names.index(name))
        if other > _CLOSE and other > own + _MARGIN and _gap(summary, name) < _gap(summary, "B8A"):
            return f"{name} follows B08 with a correlation of {other:.2f}, B8A with {own:.2f}; B8A should."
    return None


# Spectra of the ground are smooth: blue lies near the middle of coastal and green, red near that of green and B05.
# Plants are as dark in blue as in red, where nothing is said.
_ROUGHER, _ROUGH = 2.0, 30.0


def _visible(summary: PixelSummary) -> str | None:
    names = summary.sensor.names
    if not {"B01", "B02", "B03", "B04", "B05"} <= set(names):
        return None
    coastal, blue, green, red, edge = (summary.thinned[names.index(f"B0{number}")] for number in range(1, 6))
    short, long = (coastal + green) / 2, (green + edge) / 2
    absent = ~np.isfinite(short + long + blue + red)
    if absent.all():
        return None
    as_said = float((np.abs(blue - short) + np.abs(red - long))[~absent].mean())
    exchanged = float((np.abs(red - short) + np.abs(blue - long))[~absent].mean())
    if as_said <= max(_ROUGHER * exchanged, exchanged + _ROUGH):
        return None
    return (
        f"B02 and B04 leave the line between their neighbours B01, B03 and B05 by {as_said:,.0f} as they stand, and by "
        f"{exchanged:,.0f} exchanged."
    )


def _gap(summary: PixelSummary, name: str) -> float:
    """How far the median of a band is from that of B08."""
    level = _levels(summary)
    return abs(level[name] - level["B08"])


def _levels(summary: PixelSummary) -> dict[str, float]:
    """Medians by band, above what the darkest one has where that is the offset."""
    darkest = float(summary.low.min())
    lifted = OFFSET if FLOOR <= darkest <= CLEAR_AIR + OFFSET else 0
    return {name: float(middle) - lifted for name, middle in zip(summary.sensor.names, summary.middle, strict=True)}
