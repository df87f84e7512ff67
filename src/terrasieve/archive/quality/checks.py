"""What may be wrong with the pixels of one sample without making it unfit for use; each check says what it saw.

Checked are pixels that are missing within what ``QualityLimits`` allows, bands that hold one value, files that do not
cover the same ground, the order of bands, values that a band cannot have, and units.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.offset import CLEAR_AIR, FLOOR, OFFSET, may_carry
from terrasieve.archive.quality.pixel_summary import PixelSummary
from terrasieve.archive.readers.geotiff import Header, read_header
from terrasieve.errors import SampleError

_NODATA_SHARE = 0.01
"""A lesser share of the nodata value can be dark ground: 0 is nodata to Sentinel-2, and deep water comes near it."""


def find_missing(summary: PixelSummary) -> str | None:
    """NaN or infinities anywhere, or a hundredth of nodata in a band; see ``Check``."""
    if not summary.absent.any():
        return None
    shares = summary.absent.reshape(len(summary.absent), -1).mean(axis=1)
    worst = int(shares.argmax())
    broken = np.issubdtype(summary.pixels.dtype, np.floating) and not np.isfinite(summary.pixels).all()
    if not broken and shares[worst] < _NODATA_SHARE:
        return None
    return f"{shares[worst]:.2%} of {summary.sensor.names[worst]} is {'NaN or infinite' if broken else 'nodata'}."


def find_constant(summary: PixelSummary) -> str | None:
    """A band that holds one value only; see ``Check``. A map may, and so may a band of few coarse pixels."""
    if summary.sensor.kind == "map" or summary.pixels[0].size < 2:
        return None
    finest = min(band.gsd for band in summary.sensor.bands)
    for band, pixels, absent in zip(summary.sensor.bands, summary.pixels, summary.absent, strict=True):
        coarse = pixels.size * (finest / band.gsd) ** 2 < 16
        values = pixels[~absent] if absent.any() else pixels
        if not coarse and values.size and values.min() == values.max():
            return f"every pixel of {band.name} is {values.flat[0]:g}."
    return None


# ----------------------------------------------------------------------- grids
# Whether the files of a sample's sensors cover the same ground.

_SCREENED = ("scenes", "packed", "simulated", "simulated-ocean")
"""Layouts whose grids were compared on opening, or are those of files elsewhere, or of none."""
_TOLERANCE = 0.5
"""Pixels of the finer file by which corners may differ."""


def worth_comparing(archive: Archive) -> bool:
    """Whether the archive's files can be compared, and were not on opening."""
    return len(archive.sensors) > 1 and archive.source.get("layout") not in _SCREENED


def find_grids_apart(assets: Mapping[str, str]) -> tuple[str, str] | None:
    """The sensor whose file does not cover what that of the first covers, and by how much.

    Args:
        assets: File by key of the sensor. Files that are no rasters, or do not say where they lie, are left out.
    """
    headers = {key: header for key, path in assets.items() if (header := _header(path)) is not None}
    if len(headers) < 2:
        return None
    (first, reference), *others = headers.items()
    for key, header in others:
        if header.crs != reference.crs:
            return key, f"its file is in {header.crs}, that of {first} in {reference.crs}."
        apart = np.abs(_extent(header) - _extent(reference)).max()
        pixel = min(_pixel(header), _pixel(reference))
        if apart > _TOLERANCE * pixel:
            return key, f"its corners lie up to {apart:g} from those of {first}, at {pixel:g} a pixel."
    return None


def _header(path: str) -> Header | None:
    try:
        header = read_header(Path(path)) if path else None
    except SampleError:
        return None
    return header if header is not None and header.crs else None


def _extent(header: Header) -> NDArray[np.float64]:
    """Coordinates of the first and the last corner."""
    corners = np.array([[0, header.width], [0, header.height], [1, 1]])
    placed: NDArray[np.float64] = header.matrix @ corners
    return placed[:2]


def _pixel(header: Header) -> float:
    return float(np.hypot(header.matrix[0, 0], header.matrix[1, 0]))


# ----------------------------------------------------------------------- order
# Band order that contradicts the spectra.
# Files of 13 Sentinel-2 bands come in two orders, with B8A after B08 or last, and most say nothing of it. Read in the
# wrong one, B09 to B12 and B8A each show a neighbour.

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
    """Which bands look exchanged; see ``Check``."""
    if not may_carry(summary.sensor):
        return None
    return _cirrus(summary) or _near_infrared(summary)


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
    if not np.nanstd(summary.thinned[wide]) > _TEXTURE:
        return None
    own = summary.correlation(wide, names.index("B8A"))
    for name in (one for one in _LIKE_B08 if one in names):
        other = summary.correlation(wide, names.index(name))
        if other > _CLOSE and other > own + _MARGIN and _gap(summary, name) < _gap(summary, "B8A"):
            return f"{name} follows B08 with a correlation of {other:.2f}, B8A with {own:.2f}; B8A should."
    return None


def _gap(summary: PixelSummary, name: str) -> float:
    """How far the median of a band is from that of B08."""
    level = _levels(summary)
    return abs(level[name] - level["B08"])


def _levels(summary: PixelSummary) -> dict[str, float]:
    """Medians by band, above what the darkest one has where that is the offset."""
    darkest = float(summary.low.min())
    lifted = OFFSET if FLOOR <= darkest <= CLEAR_AIR + OFFSET else 0
    return {name: float(middle) - lifted for name, middle in zip(summary.sensor.names, summary.middle, strict=True)}


# ---------------------------------------------------------------------- ranges
# Values that a band cannot have, such as -9999 where no nodata value is declared.

_SHARE = 0.01
"""Share of a band from which on stray values are no longer noise."""


def find_stray_values(summary: PixelSummary) -> str | None:
    """Which band has more than a hundredth of its values out of its ``valid_range``; see ``Check``."""
    if summary.sensor.kind == "map":
        return None
    for band, values in zip(summary.sensor.bands, summary.thinned, strict=True):
        low, high = band.valid_range
        stray = values[(values < low) | (values > high)]
        if stray.size > _SHARE * values.size:
            common, count = np.unique(stray, return_counts=True)
            return (
                f"{stray.size / values.size:.1%} of {band.name} lies outside {low:g} to {high:g}, "
                f"most often at {common[count.argmax()]:g}."
            )
    return None


# ----------------------------------------------------------------------- units
# Units that the values do not quite contradict: what ``quality.check`` cannot refuse, but a scientist would doubt.

_BRIGHT_DB = -2.0
"""Median in decibels above which a scene would outshine a city: C-band sigma0 of cities is about -5 dB."""
_STRONG_LINEAR = 10.0
"""Median of linear power, 10 dB, that no scene reaches; digital numbers of a product are in the hundreds."""
_NEGATIVE = -200.0
"""Median reflectance times 10,000 that no processing leaves; an offset subtracted twice does."""


def find_other_unit(summary: PixelSummary) -> str | None:
    """Which band's values look like another unit; see ``Check``."""
    for position, band in enumerate(summary.sensor.bands):
        judge = _JUDGES.get(band.unit)
        said = judge(summary, position) if judge else None
        if said:
            return f"{band.name} is declared {band.unit}, but {said}."
    return None


def _decibels(summary: PixelSummary, position: int) -> str | None:
    median = summary.middle[position]
    if median > _BRIGHT_DB:
        return f"its median is {median:.2f}, brighter than a city; standardised or rescaled values are"
    values = summary.thinned[position]
    values = values[np.isfinite(values)]
    if values.size > 1 and (values == np.round(values)).all():
        return f"no value of {values.size:,} has a fraction; decibels were cast to integers once"
    return None


def _linear(summary: PixelSummary, position: int) -> str | None:
    if np.issubdtype(summary.pixels.dtype, np.integer):
        return f"its type is {summary.pixels.dtype}, which holds a stretched picture or digital numbers, not power"
    if summary.middle[position] > _STRONG_LINEAR:
        return f"its median is {summary.middle[position]:,.1f}, which uncalibrated digital numbers have"
    return None


def _reflectance(summary: PixelSummary, position: int) -> str | None:
    if summary.pixels.dtype == np.uint8:
        return "its type is uint8, a picture stretched to 8 bits"
    if summary.middle[position] > 2:
        return f"its median is {summary.middle[position]:.2f}; reflectance in per cent is as large"
    return None


def _reflectance_e4(summary: PixelSummary, position: int) -> str | None:
    if summary.pixels.dtype == np.uint8:
        return "its type is uint8, a picture stretched to 8 bits"
    if np.issubdtype(summary.pixels.dtype, np.floating) and np.nanmax(summary.high) <= 100:
        return f"no band exceeds {np.nanmax(summary.high):.2f}: reflectance in per cent, divided or standardised"
    if summary.middle[position] < _NEGATIVE:
        return f"its median is {summary.middle[position]:,.0f}; an offset of 1,000 was subtracted once too often"
    return None


_JUDGES = {"db": _decibels, "linear": _linear, "reflectance": _reflectance, "reflectance_e4": _reflectance_e4}
