"""What may be wrong with the pixels of one sample without making it unfit for use; each check says what it saw.

Checked are pixels that are missing within what ``QualityLimits`` allows, bands that hold one value, files that do not
cover the same ground, the order of bands, values that a band cannot have, and units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.limits import missing
from terrasieve.archive.readers.geotiff import Header, read_header
from terrasieve.errors import SampleError
from terrasieve.sensors import Sensor

_LEVELS = (0.01, 0.5, 0.99)
_ENOUGH = 4096
"""Pixels of a band that levels are taken from: the 1st percentile then rests on some forty of them."""


@dataclass(frozen=True)
class PixelSummary:
    """The pixels of one sensor of one sample, with the numbers that several checks need, each computed once.

    Attributes:
        pixels: Shape ``(bands, height, width)``, all bands of the sensor in its order.
        sensor: The sensor that the pixels are said to be of.
    """

    pixels: NDArray[Any]
    sensor: Sensor

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """Where nothing was measured, shape of the pixels."""
        return missing(self.pixels, self.sensor.nodata)

    @cached_property
    def lacks(self) -> bool:
        """Whether anything was not measured."""
        return bool(self.absent.any())

    @cached_property
    def thinned(self) -> NDArray[np.float32]:
        """Every n-th row and column, NaN where nothing was measured, shape ``(bands, pixels)``."""
        step = max(1, int(np.sqrt(self.pixels[0].size / _ENOUGH)))
        part = (slice(None), slice(None, None, step), slice(None, None, step))
        values = self.pixels[part].astype(np.float32)
        if self.lacks:
            values[self.absent[part]] = np.nan
        return values.reshape(len(values), -1)

    @cached_property
    def levels(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Percentiles 1, 50 and 99 of each band, shape ``(bands,)`` each; NaN where no pixel is left."""
        ordered = np.sort(self.thinned, axis=1)  # NaN comes last
        if not self.lacks:
            low, middle, high = ordered[:, [round(share * (ordered.shape[1] - 1)) for share in _LEVELS]].T
            return low.astype(np.float64), middle.astype(np.float64), high.astype(np.float64)
        last = np.isfinite(ordered).sum(axis=1) - 1
        ranks = np.rint(np.outer(_LEVELS, np.maximum(last, 0))).astype(np.intp)
        low, middle, high = np.take_along_axis(ordered, ranks.T, axis=1).T.astype(np.float64)
        return low, middle, high

    @property
    def low(self) -> NDArray[np.float64]:
        """The 1st percentile of each band."""
        return self.levels[0]

    @property
    def middle(self) -> NDArray[np.float64]:
        """The median of each band."""
        return self.levels[1]

    @property
    def high(self) -> NDArray[np.float64]:
        """The 99th percentile of each band."""
        return self.levels[2]

    def correlation(self, one: int, other: int) -> float:
        """Pearson's correlation of two bands over the pixels that both have; 0 where one does not vary."""
        pair = self.thinned[[one, other]]
        pair = pair[:, np.isfinite(pair).all(axis=0)]
        if pair.shape[1] < 3 or not pair.std(axis=1).all():
            return 0.0
        return float(np.asarray(np.corrcoef(pair))[0, 1])


Check = Callable[[PixelSummary], str | None]
"""What a check saw in one sensor's pixels, in numbers; None where there is nothing to suspect."""


# -------------------------------------------------------- missing and constant

_NODATA_SHARE = 0.01
"""A lesser share of the nodata value can be dark ground: 0 is nodata to Sentinel-2, and deep water comes near it."""


def find_missing(summary: PixelSummary) -> str | None:
    """NaN or infinities anywhere, or a hundredth of nodata in a band; see ``Check``."""
    if not summary.lacks:
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
        # Coarse bands come resampled: the few pixels that were measured may be alike by chance.
        coarse = pixels.size * (finest / band.gsd) ** 2 < 16
        values = pixels[~absent] if summary.lacks else pixels
        if not coarse and values.size and values.min() == values.max():
            return f"every pixel of {band.name} is {values.flat[0]:g}."
    return None


# ----------------------------------------------------------------------- grids

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


# ---------------------------------------------------------------------- ranges

_SHARE = 0.01
"""Share of a band from which on stray values are no longer noise."""


def find_stray_values(summary: PixelSummary) -> str | None:
    """Which band has more than a hundredth of its values out of its ``valid_range``; see ``Check``.

    Such are values like -9999 where no nodata value is declared.
    """
    if summary.sensor.kind == "map":
        return None
    for band, values in zip(summary.sensor.bands, summary.thinned, strict=True):
        low, high = band.valid_range
        stray = values[(values < low) | (values > high)]
        if stray.size > _SHARE * values.size:
            # The most frequent one tells most: often it is a nodata value, which then can be declared.
            common, count = np.unique(stray, return_counts=True)
            return (
                f"{stray.size / values.size:.1%} of {band.name} lies outside {low:g} to {high:g}, "
                f"most often at {common[count.argmax()]:g}."
            )
    return None


# ----------------------------------------------------------------------- units

_BRIGHT_DB = -2.0
"""Median in decibels above which a scene would outshine a city: C-band sigma0 of cities is about -5 dB."""
_STRONG_LINEAR = 10.0
"""Median of linear power, 10 dB, that no scene reaches; digital numbers of a product are in the hundreds."""
_NEGATIVE = -200.0
"""Median reflectance times 10,000 that no processing leaves; an offset subtracted twice does."""


def find_other_unit(summary: PixelSummary) -> str | None:
    """Which band's values look like another unit; see ``Check``.

    The values do not quite contradict the unit, or the sample would have been refused, but a scientist would doubt it.
    """
    for position, band in enumerate(summary.sensor.bands):
        judge = _JUDGES.get(band.unit)
        said = judge(summary, position) if judge else None
        if said:
            return f"{band.name} is declared {band.unit}, but {said}."
    return _other_scale(summary)


def _decibels(summary: PixelSummary, position: int) -> str | None:
    median = summary.middle[position]
    if median > _BRIGHT_DB:
        return f"its median is {median:.2f}, brighter than a city; standardised or rescaled values are"
    values = summary.thinned[position]
    if summary.lacks:
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


_LAND, _DARK_LAND = 1.5, 700.0
"""Near infrared over green from which on a scene is land, and its median, a reflectance of 0.07, that land exceeds."""


def _other_scale(summary: PixelSummary) -> str | None:
    """Why reflectance times 10,000 may be reflectance times 1,000 or 100: land that is as dark as water."""
    units = {band.name: band.unit for band in summary.sensor.bands}
    if any(units.get(name) != "reflectance_e4" for name in ("B03", "B08")):
        return None
    green, infrared = (float(summary.middle[summary.sensor.names.index(name)]) for name in ("B03", "B08"))
    # Not where a bright part, such as a cloud over water, shows what the scale is.
    if not (0 < _LAND * max(green, 1) < infrared < _DARK_LAND and np.nanmax(summary.high) < 3 * _DARK_LAND):
        return None
    return (
        f"B08 is declared reflectance_e4, but over what looks like land its median is {infrared:,.0f} where B03 has "
        f"{green:,.0f}; reflectance times 1,000 is as small."
    )


_JUDGES = {"db": _decibels, "linear": _linear, "reflectance": _reflectance, "reflectance_e4": _reflectance_e4}
