"""What the annotation of a Sentinel-1 image says: when and where it was taken, its spacing and its incidence.

Elements are those of the ESA "Sentinel-1 Product Specification", S1-RS-MDA-52-7441, level 1 product annotations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from terrasieve.archive.products.look_up import LookUpTable
from terrasieve.archive.readers.documents import Document

_HEADER = ("missionId", "polarisation", "swath", "absoluteOrbitNumber", "missionDataTakeId", "imageNumber")
_INFORMATION = "imageAnnotation/imageInformation"
_MOST = 100_000
"""Most lines or samples that are believed; a vignette has some 5,000, a ground range image some 27,000."""
_SPACING = (0.1, 100.0)
"""Metres between pixels that are believed; they are some 2 to 40 apart."""
_POINTS = "geolocationGrid/geolocationGridPointList/geolocationGridPoint"


@dataclass(frozen=True)
class Annotation:
    """Facts of one image.

    Attributes:
        platform: Name of the satellite, such as ``S1A``.
        mode: ``WV1`` or ``WV2`` of Wave Mode, ``IW`` of a ground range image.
        polarisation: ``VV``, ``VH``, ``HH`` or ``HV``.
        orbit: Absolute orbit number, counted from launch.
        direction: ``ascending`` or ``descending``.
        heading: Direction of flight in degrees clockwise from north, 0 to 360.
        first: Time of the first line, in UTC.
        last: Time of the last line, in UTC.
        lines: Number of lines along the azimuth, 1 to 100,000.
        samples: Number of samples along the range in each line, 1 to 100,000.
        range_spacing: Metres from one sample to the next: of Wave Mode along the line of sight, of a ground range image
            on the ground.
        azimuth_spacing: Metres on the ground from one line to the next.
        denoised: Whether the processor has taken the noise out already.
        incidence: Angle between the line of sight and the vertical, in degrees between 0 and 90.
        latitude: Geodetic latitude in degrees, north positive.
        longitude: Longitude in degrees, east positive, without a jump within the vignette: it may pass 180.
    """

    platform: str
    mode: str
    polarisation: str
    orbit: int
    direction: str
    heading: float
    first: datetime
    last: datetime
    lines: int
    samples: int
    range_spacing: float
    azimuth_spacing: float
    denoised: bool
    incidence: LookUpTable
    latitude: LookUpTable
    longitude: LookUpTable


def read_annotation(document: Document) -> Annotation:
    """The facts of an image.

    Args:
        document: The parsed annotation file.

    Raises:
        SampleError: A fact is absent or impossible.
    """
    lines, samples = (document.count(f"{_INFORMATION}/{name}") for name in ("numberOfLines", "numberOfSamples"))
    spacings = [document.number(f"{_INFORMATION}/{name}PixelSpacing") for name in ("range", "azimuth")]
    possible = min(lines, samples) > 0 and max(lines, samples) <= _MOST
    if not possible or min(spacings) < _SPACING[0] or max(spacings) > _SPACING[1]:
        raise document.flaw(f"states an image of {lines}x{samples} pixels, {spacings} m apart")
    done = document.text("imageAnnotation/processingInformation/thermalNoiseCorrectionPerformed")
    incidence, latitude, longitude = _grid(document)
    return Annotation(
        platform=document.text("adsHeader/missionId"),
        mode=document.text("adsHeader/swath"),
        polarisation=document.text("adsHeader/polarisation"),
        orbit=document.count("adsHeader/absoluteOrbitNumber"),
        direction=document.text("generalAnnotation/productInformation/pass").lower(),
        heading=document.number("generalAnnotation/productInformation/platformHeading") % 360,
        first=document.time(f"{_INFORMATION}/productFirstLineUtcTime"),
        last=document.time(f"{_INFORMATION}/productLastLineUtcTime"),
        lines=lines,
        samples=samples,
        range_spacing=spacings[0],
        azimuth_spacing=spacings[1],
        denoised=done.lower() == "true",
        incidence=incidence,
        latitude=latitude,
        longitude=longitude,
    )


def check_belongs(document: Document, annotation: Document) -> None:
    """Refuse a calibration or noise file of another image.

    Args:
        document: The parsed calibration or noise file.
        annotation: The parsed annotation file of the image.

    Raises:
        SampleError: Their headers differ.
    """
    for name in _HEADER:
        said, wanted = document.text(f"adsHeader/{name}"), annotation.text(f"adsHeader/{name}")
        if said != wanted:
            raise document.flaw(f"is of {name} {said}, {annotation.path.name} of {wanted}")


def version_stated(manifest: Document) -> str:
    """Version of the processor (IPF) that a product's manifest states, such as ``2.91`` or ``3.31``.

    Raises:
        SampleError: The manifest does not say it.
    """
    for software in manifest.root.iter("software"):
        if match := re.fullmatch(r"0*(\d+)\.(\d+)", software.get("version", "")):
            return f"{int(match[1])}.{match[2]}"
    raise manifest.flaw("does not state the version of the processor")


def _grid(document: Document) -> tuple[LookUpTable, LookUpTable, LookUpTable]:
    points = document.root.findall(_POINTS)
    names = ("line", "pixel", "incidenceAngle", "latitude", "longitude")
    found = np.array([[document.number(name, point) for name in names] for point in points]).reshape(-1, len(names))
    if not len(found):
        raise document.flaw("has no geolocation grid")
    if not ((found[:, 2] > 0) & (found[:, 2] < 90)).all():
        raise document.flaw("has an incidence outside 0 to 90 degrees")
    # Longitudes go on past 180 degrees instead of jumping to -180: a mean of 179.9 and -179.9 would lie in Africa.
    found[:, 4] = found[0, 4] + (found[:, 4] - found[0, 4] + 180) % 360 - 180
    # Tables want lines, and the pixels of each, to ascend, in whatever order the points are listed.
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    lines, starts = np.unique(found[:, 0], return_index=True)
    vectors = np.split(found, starts[1:])
    if any((np.diff(vector[:, 1]) <= 0).any() for vector in vectors):
        raise document.flaw("has a point of the geolocation grid twice")
    pixels = tuple(vector[:, 1] for vector in vectors)
    tables = [LookUpTable(lines, pixels, tuple(vector[:, column] for vector in vectors)) for column in (2, 3, 4)]
    return tables[0], tables[1], tables[2]
