"""What an item says of the values in its files: nodata, scale, offset, and whether Sentinel-2's offset is in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_APPLIED = "earthsearch:boa_offset_applied"
_BASELINE = "s2:processing_baseline"
_SINCE = 4.0
"""Processing baseline from which on products of Sentinel-2 have an offset of +1000."""


def values_stated(said: Mapping[str, Any], position: int) -> dict[str, float]:
    """What is stated of the values of a band, by attribute of ``terrasieve.archive.readers.meaning.Stated``.

    The raster extension states it under ``raster:bands``; from STAC 1.1 on it stands under ``bands``. Earth Search
    states the offset of Sentinel-2 also of files from which it was subtracted, and says so: there it is 0.

    Args:
        said: Properties of the asset, with those of its item.
        position: Band of the file, from 0.
    """
    found: dict[str, float] = {}
    for key in ("raster:bands", "bands"):
        bands = said.get(key)
        band = bands[position] if isinstance(bands, list) and position < len(bands) else None
        for name in ("nodata", "scale", "offset") if isinstance(band, dict) else ():
            value = _number(band.get(name, band.get(f"raster:{name}")))  # type: ignore[union-attr]  # a dict, see above
            if value is not None:
                found.setdefault(name, value)
    if said.get(_APPLIED) is True and found.get("offset"):
        found["offset"] = 0.0
    return found


def carries_offset(properties: Mapping[str, Any], stated: Iterable[Mapping[str, float]]) -> bool | None:
    """Whether pixels carry the offset of +1000 once what is stated of them was applied; None where nothing says so.

    Args:
        properties: Those of the item.
        stated: What is applied to each band, as :func:`values_stated` gives it.
    """
    if properties.get(_APPLIED) is True or any("offset" in one for one in stated):
        return False
    baseline = _number(properties.get(_BASELINE))
    return None if baseline is None else baseline >= _SINCE


def _number(said: Any) -> float | None:
    """A number, which may be written as text, as JSON has no NaN; None where it is none."""
    if isinstance(said, bool) or not isinstance(said, int | float | str):
        return None
    try:
        return float(said)
    except (ValueError, OverflowError):
        return None
