"""Which asset of an item holds which band of a sensor: as the item says, or as the user does, never by guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.stac.items import Item
from terrasieve.band_names import canonical_name, names_of_band
from terrasieve.sensors import Sensor

_NOT_DATA = {"thumbnail", "overview", "visual", "metadata"}
"""Roles of pictures for people, and keys under which catalogues keep them with the role of data."""

_FORMATS = ("image/tiff", "image/vnd.stac.geotiff")


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

    An asset whose key is the band's name holds it, whatever its role. Else an asset names its bands under ``bands``
    (STAC 1.1), ``eo:bands`` or ``sar:polarizations``: by name in any spelling, or by a common name where only one band
    of the sensor has it. Last comes an asset that names no band and has such a name for its key. Assets that are
    pictures for people (roles ``visual``, ``overview``, ``thumbnail``) and other formats than TIFF do not count.

    Args:
        item: The item, whose assets are looked through.
        sensor: The sensor, whose bands are looked for.
        explicit: What the user says, by band: the asset's key, or ``KEY:N`` for the N-th band of its file, from 1. Goes
            before what the item says.

    Raises:
        SampleError: Bands are not there, or are there twice; all of them are named.
    """
    found: dict[str, list[Place]] = {}
    for band in sensor.names:
        found[band] = [_told(item, explicit[band])] if band in explicit else _candidates(item, sensor, band)
    if any(len(places) != 1 for places in found.values()):
        raise _unresolved(item, sensor, found)
    return {band: places[0] for band, places in found.items()}


def _candidates(item: Item, sensor: Sensor, band: str) -> list[Place]:
    """Where a band may be, by the strongest evidence that there is."""
    name, others = canonical_name(band), _other_names(sensor, band)
    data = {key: asset for key, asset in item.assets.items() if not _NOT_DATA & set(asset.get("roles") or ())}
    ranks = (
        _keyed(item.assets, {name, band.casefold()}),
        _named(data, {name}),
        _named(data, others),
        _keyed({key: asset for key, asset in data.items() if not _stated(asset)}, others),
    )
    places = next((rank for rank in ranks if rank), [])
    # Planetary Computer gives its picture in true colours the role of data, too.
    return [one for one in places if one.asset.casefold() not in _NOT_DATA] or places


def _unresolved(item: Item, sensor: Sensor, found: Mapping[str, Sequence[Place]]) -> FlawError:
    absent = ", ".join(repr(band) for band, places in found.items() if not places)
    several = [
        f"band {band!r} in {', '.join(f'{one.asset}:{one.position + 1}' for one in places)}"
        for band, places in found.items()
        if len(places) > 1
    ]
    lacking = [f"no asset that names a band {absent} of sensor {sensor.name!r}"] if absent else []
    snippet = ", ".join(f"{band}: KEY" for band, places in found.items() if len(places) != 1)
    return FlawError(
        Problem.BANDS,
        f"Item {item.id} has {' and '.join(lacking + several)}; say which, in a YAML file with layout: stac, below the "
        f"sensor: assets: {{{snippet}}}. Its assets are {', '.join(item.assets)}.",
    )


def _told(item: Item, told: str) -> Place:
    # A key may hold a colon itself.
    key, _, number = told.rpartition(":") if told not in item.assets else (told, "", "1")
    if key not in item.assets or not number.isdecimal() or int(number) < 1:
        raise FlawError(
            Problem.BANDS, f"Item {item.id} has no asset {told!r}; its assets are {', '.join(item.assets)}."
        )
    return Place(key, int(number) - 1)


def _other_names(sensor: Sensor, band: str) -> set[str]:
    """What an item may call a band beside its name."""
    own = next(one for one in sensor.bands if one.name == band)
    # red edge, for one, is the common name of three bands of Sentinel-2.
    shared = Counter(name for one in sensor.bands for name in names_of_band(one))
    return {name for name in names_of_band(own) if shared[name] == 1}


def _keyed(assets: Mapping[str, Mapping[str, Any]], names: set[str]) -> list[Place]:
    """Assets whose keys are such a name: their band of that name, or the only one."""
    places = []
    for key, asset in assets.items():
        if key.casefold() not in names or not _is_tiff(asset):
            continue
        stated = _stated(asset)
        positions = [position for position, said in enumerate(stated) if said & names]
        if positions or len(stated) <= 1:
            places.append(Place(key, positions[0] if positions else 0))
    return places


def _named(assets: Mapping[str, Mapping[str, Any]], names: set[str]) -> list[Place]:
    return [
        Place(key, position)
        for key, asset in assets.items()
        if _is_tiff(asset)
        for position, said in enumerate(_stated(asset))
        if said & names
    ]


def _is_tiff(asset: Mapping[str, Any]) -> bool:
    return str(asset.get("type") or _FORMATS[0]).startswith(_FORMATS)


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
