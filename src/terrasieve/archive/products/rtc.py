"""Sentinel-1 backscatter with radiometric terrain correction (RTC), of two services.

- ASF HyP3: names as in ASF, "Sentinel-1 RTC Product Guide": ``S1A_IW_20200605T012345_DVP_RTC30_G_gpuned_1A2B_VV.tif``,
  where ``g`` is gamma0 and ``s`` sigma0, ``p`` power, ``d`` decibel and ``a`` amplitude; 0 is no data.
- Planetary Computer, collection ``sentinel-1-rtc``: ``<product>/measurement/iw-vv.rtc.tiff``, gamma0 as power; -32768
  is no data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from terrasieve.archive.products.band_scenes import band_scene, empty_pixels
from terrasieve.archive.products.granules import Granule
from terrasieve.archive.products.tiled_products import Product
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.geotiff import read_header
from terrasieve.archive.scenes.acquisition_time import parse_time
from terrasieve.sensors import SENSORS, Band, Sensor

Service = Literal["hyp3", "planetary-computer"]
Scale = Literal["power", "decibel"]
Polarisation = Literal["VV", "VH", "HH", "HV"]
KEY = "s1"
SCALES: Mapping[str, Scale] = {"p": "power", "d": "decibel"}
_POLARISED: Mapping[str, tuple[Polarisation, ...]] = {
    "DV": ("VV", "VH"),
    "DH": ("HH", "HV"),
    "SV": ("VV",),
    "SH": ("HH",),
}


@dataclass(frozen=True)
class Naming:
    """How a service names its files.

    Attributes:
        look: The whole path of a file, with the groups ``name``, ``part``, ``time`` and ``polarised``; where names say
            it, ``kind``, ``scale`` and ``spacing``.
        file: What follows the name in that of a polarisation's file.
        nodata: Stands for nothing measured, where a file states no value for it.
        spacing: Metres from pixel to pixel where the name does not say it in a group ``spacing``.
    """

    look: re.Pattern[str]
    file: str
    nodata: float
    spacing: float = 10.0


NAMINGS: Mapping[Service, Naming] = {
    "hyp3": Naming(
        re.compile(
            r"(?:.*/)?(?P<name>S1[A-D]_[A-Z0-9]{2}_(?P<time>\d{8}T\d{6})_(?P<polarised>[DS][VH])[PRO]_RTC(?P<spacing>\d\d)"
            r"_G_(?P<kind>[gs])(?P<scale>[pda])[um][nf][ec][dm]_[0-9A-F]{4})_(?P<part>[^/]+)",
            re.IGNORECASE,
        ),
        "{}.tif",
        0.0,
    ),
    "planetary-computer": Naming(
        re.compile(
            r"(?:.*/)?(?P<name>S1[A-D]_IW_GRD[HM]_1S(?P<polarised>[DS][VH])_(?P<time>\d{8}T\d{6})_\d{8}T\d{6}_\d{6}"
            r"_[0-9A-F]{6}(?:_[0-9A-F]{4})?(?:_rtc)?)/(?:measurement/)?(?P<part>iw-[vh]{2}\.rtc\.tiff?)",
            re.IGNORECASE,
        ),
        "iw-{}.rtc.tiff",
        -32768.0,
    ),
}


def polarisations_of(match: re.Match[str]) -> tuple[Polarisation, ...]:
    """The polarisations that the name of a product states."""
    return _POLARISED[match["polarised"].upper()]


def scale_of(match: re.Match[str]) -> str:
    """``power``, ``decibel`` or ``amplitude``, as the name of a product states."""
    return SCALES.get(match.groupdict().get("scale", "p").lower(), "amplitude")


def sensor_of(scale: Scale, polarisations: Sequence[Polarisation], spacing: float) -> Sensor:
    """The sensor of products in one scale, NaN where nothing was measured.

    Args:
        scale: How the backscatter is stored.
        polarisations: The bands, in order.
        spacing: Metres from pixel to pixel.
    """
    like = SENSORS["s1" if scale == "decibel" else "s1-linear"]
    unit, limits = like.bands[0].unit, like.bands[0].valid_range
    bands = tuple(
        Band(name=name, common_name=name, gsd=spacing, unit=unit, valid_range=limits) for name in polarisations
    )
    return Sensor(name=f"s1-rtc-{scale}", kind="radar", bands=bands)


def read_rtc(granule: Granule, naming: Naming, sensor: Sensor, scale: Scale) -> Product:
    """What a product holds, by its name and the headers of its files.

    Args:
        granule: Its files.
        naming: Of the service that made it.
        sensor: The polarisations wanted.
        scale: How the archive's products are stored; one in another scale is refused.

    Raises:
        SampleError: A file is absent or damaged, or the product is in another scale.
    """
    match = match_name(naming, granule)
    if scale_of(match) != scale:
        advice = f"open it with scale: {scale_of(match)}" if scale_of(match) in SCALES.values() else "order it in power"
        raise FlawError(
            Problem.UNIT, f"{granule.folder}/{granule.name} is in {scale_of(match)}, the archive in {scale}; {advice}."
        )
    names = [naming.file.format(name.lower()) for name in sensor.names]
    files = [granule.file(name, name.replace(".tiff", ".tif")) for name in names]
    headers = [read_header(path) for path in files]
    stated = [{"nodata": naming.nodata if one.nodata is None else one.nodata} for one in headers]
    scene = band_scene(files, stated, granule.name)
    kind = match.groupdict().get("kind") or "g"
    return Product(
        name=granule.name,
        path=granule.folder,
        height=scene.height,
        width=scene.width,
        scenes={KEY: scene},
        empty=empty_pixels(scene, sensor),
        time=parse_time(match["time"].upper()),
        columns={"platform": granule.name[:3].upper(), "backscatter": "sigma0" if kind.lower() == "s" else "gamma0"},
    )


def match_name(naming: Naming, granule: Granule) -> re.Match[str]:
    """How the path of a product's first file matches the naming by which it was found."""
    match = naming.look.fullmatch(next(iter(granule.files.values())).as_posix())
    assert match is not None
    return match
