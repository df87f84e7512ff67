"""Whether a file's header fits the sensor declared for it."""

from __future__ import annotations

from collections.abc import Iterable

from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.geotiff import Header
from terrasieve.sensors import SENSORS, Band, Sensor


def check_bands(header: Header, sensor: Sensor) -> None:
    """Refuse a file whose bands are not, or state that they are not, those of the sensor in its order.

    A description that is no known band name or common name, such as ``LULC``, states nothing.

    Raises:
        SampleError: The band count differs, or a band's description names another band.
    """
    if header.count != len(sensor.bands):
        raise FlawError(
            Problem.BANDS,
            f"{header.path} has {header.count} bands, sensor {sensor.name!r} has {len(sensor.bands)} "
            f"({', '.join(sensor.names)}). Declare the sensor that delivered the file.",
        )
    known = {band.name.casefold() for band in _all_bands(sensor)}
    common = {band.common_name.casefold() for band in _all_bands(sensor) if band.common_name}
    for position, (said, band) in enumerate(zip(header.descriptions, sensor.bands, strict=True), start=1):
        if said is not None and _contradicts(said.strip().casefold(), band, known, common):
            raise FlawError(
                Problem.BANDS,
                f"{header.path} calls its band {position} {said!r}, sensor {sensor.name!r} has {band.name!r} there. "
                f"The file's order is {', '.join(str(d) for d in header.descriptions)}: declare the bands in that "
                f"order, or correct the file.",
            )


def _all_bands(sensor: Sensor) -> Iterable[Band]:
    yield from sensor.bands
    for other in SENSORS.values():
        # R, G and B may be said of any picture, also of three bands of a satellite.
        if other.name != "rgb8":
            yield from other.bands


def _contradicts(said: str, band: Band, names: set[str], common_names: set[str]) -> bool:
    own = {band.name.casefold(), (band.common_name or "").casefold()}
    return said not in own and (said in names or said in common_names)
