"""What others call bands, in one spelling: ``B2``, ``b02`` and ``Band 2``; ``red`` and ``R``; ``Sigma0_VV_db``.

The one place that compares what a file or a catalogue says of a band with what a sensor declares.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from terrasieve.errors import BandError
from terrasieve.sensors import SENSORS, Band, Sensor

_NUMBERED = re.compile(r"(?<![a-z0-9])(?:band|b)[\s_-]?0*(\d{1,2})(a?)(?![a-z0-9])")
_POLARISED = re.compile(r"(?<![a-z0-9])(vv|vh|hh|hv)(?![a-z0-9])")
_COUNTED = re.compile(r"(?:band|layer|channel)[\s_-]*0*(\d+)")
_NOISE = re.compile(
    r"\((?:[^()]*)\)|\b\d+(?:\.\d+)?\s*(?:nm|um|µm)\b|"
    r"\b(?:band|channel|toa|boa|sr|surface|reflectance|refl|visible|light|mean|median)\b|[^a-z0-9]"
)
_COLOURS = {
    "r": "red",
    "g": "green",
    "b": "blue",
    "aerosol": "coastal",
    "aerosols": "coastal",
    "coastalaerosol": "coastal",
    "vegetationrededge": "rededge",
    "nearinfrared": "nir",
    "narrownir": "nir08",
    "nirnarrow": "nir08",
    "nir8a": "nir08",
    "watervapour": "nir09",
    "watervapor": "nir09",
    "swir1": "swir16",
    "swir2": "swir22",
    "shortwaveinfrared1": "swir16",
    "shortwaveinfrared2": "swir22",
}
"""Common name of STAC's by what is written in its place, without blanks and signs."""

_SENTINEL_2 = {
    "B05": ("rededge1", "rededge071"),
    "B06": ("rededge2", "rededge075"),
    "B07": ("rededge3", "rededge078"),
    "B8A": ("rededge4",),
}
"""Names that tell apart what has one common name, or another, in most catalogues."""


@lru_cache(maxsize=4096)
def canonical_name(text: str) -> str:
    """One spelling for all ways to write the name of a band.

    A number goes before a colour, as in ``B4 (red)``, since numbers are unique.

    Args:
        text: A description or name, such as ``B04``, ``Band 4, central wavelength 665 nm``, ``Red`` or ``Gamma0_VH``.

    Returns:
        ``b4`` for a number, ``vv`` for a polarisation, a common name such as ``rededge1``, else the text in lower case.
    """
    plain = text.strip().casefold()
    numbered = {f"b{number}{letter}" for number, letter in _NUMBERED.findall(plain)}
    found = numbered or set(_POLARISED.findall(plain))
    if found:
        # A text that names two bands, such as that of an index, names none.
        return found.pop() if len(found) == 1 else plain
    short = _NOISE.sub("", plain.replace("_", " "))
    return _COLOURS.get(short, short) or plain


def names_of_band(band: Band) -> frozenset[str]:
    """All that a band may be called, as :func:`canonical_name` spells it; several bands may share a common name."""
    said = (band.name, band.common_name or band.name, *_SENTINEL_2.get(band.name, ()))
    return frozenset(map(canonical_name, said))


def match_names(said: Sequence[str], sensor: Sensor) -> list[str | None]:
    """The band of a sensor that each name means, None where it means none, or could mean several.

    Args:
        said: Names as a file or a user writes them, in any spelling.
        sensor: Its own names go before what they could be short for.
    """
    own = sensor.names
    found: list[str | None] = []
    for text in said:
        name = canonical_name(text)
        fitting = [text] if text in own else [band.name for band in sensor.bands if name in names_of_band(band)]
        found.append(fitting[0] if len(fitting) == 1 else None)
    return found


def sensor_with(bands: Sequence[str], sensors: Iterable[Sensor]) -> Sensor:
    """The one sensor that has all bands, with these alone and in this order.

    Args:
        bands: Names of bands, in any spelling.
        sensors: Those to look among.

    Raises:
        BandError: None has them all, or several that measure them in different units do.
    """
    sensors = tuple(sensors)
    matched = [(one, match_names(bands, one)) for one in sensors]
    fitting = [(one, [name for name in names if name]) for one, names in matched if all(names)]
    meant = {tuple(one.bands[place].unit for place in one.indices(names)): (one, names) for one, names in fitting[::-1]}
    if len(meant) == 1:
        one, names = next(iter(meant.values()))
        return one.select(*names)
    if not fitting:
        raise BandError(
            f"No sensor has the bands {', '.join(bands)}; known are "
            f"{'; '.join(one.name + ' (' + ', '.join(one.names) + ')' for one in sensors)}. Name the sensor, or "
            "describe your own in a YAML file: sensor='mine.yaml'."
        )
    raise BandError(
        f"The bands {', '.join(bands)} are of {', '.join(one.name for one, _ in fitting)}, in different units: "
        f"say which, for example sensor={fitting[0][0].name!r}."
    )


def find_misnamed(said: Sequence[str | None], sensor: Sensor) -> int | None:
    """The first band of a file that is called like another one than the sensor has in its place.

    A description that names no band that is known, such as ``LULC``, states nothing, and neither do plain numbers from
    1 on (``Band 1``, ``Band 2``), which count the bands of the file.

    Args:
        said: What the file calls each of its bands, None where it does not.
        sensor: The bands that it is said to hold, as many and in this order.

    Returns:
        Its position, from 0; None where nothing speaks against the order.
    """
    if not any(said):
        return None
    literal, known = _known(sensor)
    counted = _only_counts(said, sensor)
    for position, (text, band) in enumerate(zip(said, sensor.bands, strict=True)):
        plain = (text or "").strip().casefold()
        if plain in (band.name.casefold(), (band.common_name or band.name).casefold()):
            continue
        # A name that the sensor itself has is meant as it stands, whatever else it could be short for.
        if plain in literal:
            return position
        if not counted and (name := canonical_name(plain)) in known and name not in names_of_band(band):
            return position
    return None


@lru_cache(maxsize=64)
def _of_kind(kind: str) -> frozenset[str]:
    return frozenset(
        name for one in SENSORS.values() if one.kind == kind for band in one.bands for name in names_of_band(band)
    )


def _known(sensor: Sensor) -> tuple[set[str], frozenset[str]]:
    """Names as they are written, of any sensor, and in one spelling, of what the sensor could be mistaken for."""
    # R, G and B, or gray, may be said of any picture, also of bands of a satellite.
    bands = [*sensor.bands, *(b for one in SENSORS.values() if one.name not in ("rgb8", "gray8") for b in one.bands)]
    literal = {name.casefold() for band in bands for name in (band.name, band.common_name) if name}
    if sensor.kind == "map":
        return literal, frozenset()
    own = frozenset(name for band in sensor.bands for name in names_of_band(band))
    known = own | _of_kind(sensor.kind)
    # Numbers mean other bands with every satellite: those of Sentinel-2 count where the sensor numbers its own.
    if sensor.name not in SENSORS and not _numbers(sensor):
        known = frozenset(name for name in known if not _NUMBERED.fullmatch(name))
    return literal, known


def _numbers(sensor: Sensor) -> bool:
    return any(_NUMBERED.fullmatch(canonical_name(band.name)) for band in sensor.bands)


def _only_counts(said: Sequence[str | None], sensor: Sensor) -> bool:
    """Whether descriptions do no more than count the bands of the file."""
    pattern = _COUNTED.pattern if _numbers(sensor) else rf"(?:{_COUNTED.pattern})|b[\s_-]*0*(\d+)"
    found = [re.fullmatch(pattern, (text or "").strip().casefold()) for text in said]
    return all(one and int(one[one.lastindex or 0]) == number for number, one in enumerate(found, start=1))
