"""Which asset of an item holds which band of a sensor: as the item says, or as the user does, never by guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.stac.items import Item
from terrasieve.band_names import canonical_name, names_of_band
from terrasieve.sensors import Sensor

_NOT_DATA = {"thumbnail", "overview", "visual", "metadata"}


@dataclass(frozen=True)
class Place:
    """Where a band is.

    Attributes:
        asset: Key of the asset.
        position: Band of its file, from 0.
    """

    asset: str
    position: int


def find_bands(item: Item, sensor: Sensor, explicit: Mapping[str, str]) -> dict[str, Place]:
    """The place of each band of a sensor.

    An asset names its bands under ``bands`` (STAC 1.1), ``eo:bands`` or ``sar:polarizations``. A name is that of the
    band in any spelling, or its common name where only one band of the sensor has it. Assets that are pictures for
    people (roles ``visual``, ``overview``, ``thumbnail``) and other formats than TIFF do not count.

    Args:
        item: The item, whose assets are looked through.
        sensor: The sensor, whose bands are looked for.
        explicit: What the user says, by band: the asset's key, or ``KEY:N`` for the N-th band of its file, from 1. Goes
            before what the item says.

    Raises:
        SampleError: A band is not there, or is there twice.
    """
    return {band: _find(item, sensor, band, explicit.get(band)) for band in sensor.names}


def _find(item: Item, sensor: Sensor, band: str, told: str | None) -> Place:
    if told is not None:
        return _told(item, told)
    found = list(_named(item, _names(sensor, band)))
    if len(found) == 1:
        return found[0]
    if not found:
        raise FlawError(
            Problem.BANDS,
            f"Item {item.id} has no asset that names a band {band!r} of sensor {sensor.name!r}; its assets are "
            f"{', '.join(item.assets)}. Say which it is: assets: {{{band}: KEY}}.",
        )
    keys = ", ".join(f"{one.asset}:{one.position + 1}" for one in found)
    raise FlawError(Problem.BANDS, f"Item {item.id} has band {band!r} in {keys}; say which: assets: {{{band}: KEY}}.")


def _told(item: Item, told: str) -> Place:
    # A key may hold a colon itself.
    key, _, number = told.rpartition(":") if told not in item.assets else (told, "", "1")
    if key not in item.assets or not number.isdecimal() or int(number) < 1:
        raise FlawError(
            Problem.BANDS, f"Item {item.id} has no asset {told!r}; its assets are {', '.join(item.assets)}."
        )
    return Place(key, int(number) - 1)


def _names(sensor: Sensor, band: str) -> set[str]:
    """What an item may call a band."""
    own = next(one for one in sensor.bands if one.name == band)
    # red edge, for one, is the common name of three bands of Sentinel-2.
    shared = Counter(name for one in sensor.bands for name in names_of_band(one))
    return {canonical_name(band)} | {name for name in names_of_band(own) if shared[name] == 1}


def _named(item: Item, names: set[str]) -> Iterator[Place]:
    for key, asset in item.assets.items():
        kind = str(asset.get("type") or "image/tiff")
        if not kind.startswith("image/tiff") or _NOT_DATA & set(asset.get("roles") or ()):
            continue
        for position, said in enumerate(_stated(asset)):
            if said & names:
                yield Place(key, position)


def _stated(asset: Mapping[str, Any]) -> list[set[str]]:
    """The names of each band of an asset's file."""
    for field in ("bands", "eo:bands"):
        bands = asset.get(field)
        if isinstance(bands, list) and any(_names_of(one) for one in bands):
            return [_names_of(one) for one in bands]
    polarisations = asset.get("sar:polarizations")
    return [{canonical_name(str(one))} for one in polarisations] if isinstance(polarisations, list) else []


def _names_of(band: Any) -> set[str]:
    if not isinstance(band, dict):
        return set()
    said = (band.get("name"), band.get("eo:common_name"), band.get("common_name"))
    return {canonical_name(str(one)) for one in said if one}
