"""Harmonized Landsat Sentinel-2, version 2: granules of 30 m as NASA delivers them, one cloud-optimised GeoTIFF a band.

Names and numbers are those of NASA, "Harmonized Landsat Sentinel-2 (HLS) Product User Guide", version 2.0: reflectance
is the stored number times 0.0001, -9999 is fill, of Fmask 255; files repeat both in their tags, which go before.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from terrasieve.archive.products.band_scenes import band_scene, empty_pixels, on_grid_of
from terrasieve.archive.products.granules import Granule
from terrasieve.archive.products.tiled_products import Product
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.quality.offset import STATED
from terrasieve.archive.readers.geotiff import Header, read_header
from terrasieve.archive.scenes.acquisition_time import parse_time
from terrasieve.sensors import SENSORS, Band, Sensor

Version = Literal["s30", "l30"]
KEY, MASK = "hls", "fmask"
LOOK = re.compile(
    r"(?:.*/)?(?P<name>HLS\.(?P<version>[SL]30)\.T[0-9A-Z]{5}\.(?P<time>\d{7}T\d{6})\.v2\.\d)\.(?P<part>[^/]+)",
    re.IGNORECASE,
)
_DOCUMENTED = {"scale": 0.0001, "offset": 0.0, "nodata": -9999.0}
_TAGS = {"scale": "scale_factor", "offset": "add_offset", "nodata": "_fillvalue"}

_COARSE = tuple(
    band.model_copy(update={"gsd": 30.0, "valid_range": (-2000, 20000)}) for band in SENSORS["s2-l1c"].bands
)
_LANDSAT = (
    ("B01", "coastal", 0.443),
    ("B02", "blue", 0.482),
    ("B03", "green", 0.561),
    ("B04", "red", 0.655),
    ("B05", "nir08", 0.865),
    ("B06", "swir16", 1.609),
    ("B07", "swir22", 2.201),
    ("B09", "cirrus", 1.373),
)
SENSORS_OF: dict[Version, Sensor] = {
    "s30": Sensor(
        name="hls-s30", kind="optical", bands=_COARSE, nodata=-9999, sets={"rgb": SENSORS["s2-l1c"].sets["rgb"]}
    ),
    "l30": Sensor(
        name="hls-l30",
        kind="optical",
        bands=tuple(
            Band(
                name=name,
                common_name=colour,
                gsd=30,
                wavelength_um=at,
                unit="reflectance_e4",
                valid_range=(-2000, 20000),
            )
            for name, colour, at in _LANDSAT
        ),
        nodata=-9999,
        sets={"rgb": ("B04", "B03", "B02")},
    ),
}
"""Bands by the names of each product: B05 is a red edge in S30 and near infrared in L30. The thermal bands of L30 are
temperatures and left out."""

FMASK = Sensor(
    name="hls-fmask",
    kind="map",
    bands=(Band(name="Fmask", gsd=30, unit="class", valid_range=(0, 255)),),
    nodata=255,
)
"""Bits of each pixel: 1 cloud, 2 beside cloud, 3 shadow, 4 snow, 5 water, 6 and 7 aerosol; bit 0 is not used."""


def read_hls(granule: Granule, version: Version, masks: bool) -> Product:
    """What a granule holds, by the tags of its files.

    Args:
        granule: Its files.
        version: That of its name.
        masks: Whether Fmask is read.

    Raises:
        SampleError: A file is absent or damaged, or a tag is no number.
    """
    sensor = SENSORS_OF[version]
    files = [granule.file(f"{name}.tif") for name in sensor.names]
    headers = [read_header(path) for path in files]
    scene = band_scene(files, [values_stated(header) for header in headers], granule.name)
    scenes = {KEY: scene}
    if masks:
        scenes[MASK] = on_grid_of(band_scene([granule.file("Fmask.tif")], [{"nodata": 255.0}], granule.name), scene)
    return Product(
        name=granule.name,
        path=granule.folder,
        height=scene.height,
        width=scene.width,
        scenes=scenes,
        empty=empty_pixels(scene, sensor),
        time=_time(headers[0], granule.name),
        columns={STATED: False},
    )


def values_stated(header: Header) -> dict[str, float]:
    """Scale, offset and fill that a file states in its tags, or else those of the guide, as attributes of ``Stated``.

    Args:
        header: Of the file of a band.

    Raises:
        SampleError: A tag is no number, or the file's nodata value is another than the tag's.
    """
    tags = {name.lower(): text for name, text in header.tags.items()}
    found = {}
    for name, tag in _TAGS.items():
        try:
            found[name] = float(tags[tag]) if tag in tags else _DOCUMENTED[name]
        except ValueError as error:
            raise _flaw(header.path, f"has {tags[tag][:40]!r} for {tag}, which is no number") from error
    if header.nodata is not None and header.nodata != found["nodata"]:
        raise _flaw(header.path, f"has the nodata value {header.nodata:g} and states {found['nodata']:g} in its tags")
    return found


def _time(header: Header, name: str) -> datetime:
    """The time of sensing; of several scenes that a granule is made of, the first's. Else that of the name."""
    said = parse_time(re.split(r"[;+,]", header.tags.get("SENSING_TIME", ""))[0])
    match = LOOK.fullmatch(f"{name}.x")
    assert match is not None  # a granule is found by its name
    return said or datetime.strptime(match["time"].upper(), "%Y%jT%H%M%S").replace(tzinfo=UTC)


def _flaw(path: Path, what: str) -> FlawError:
    return FlawError(Problem.UNIT, f"{path} {what}. Fetch the granule again.")
