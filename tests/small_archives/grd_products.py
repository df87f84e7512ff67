"""Sentinel-1 GRD products as the processor writes them: amplitudes, annotation, calibration and noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning

from small_archives.making import Bench, makes
from small_archives.wave_mode import NAMESPACES, listed, vector, write_xml
from terrasieve.archive.layout import parse_spec
from terrasieve.archive.protocol import Archive

PRODUCT = "S1A_IW_GRDH_1SDV_20200605T012345_20200605T012410_032881_03CEFD_1234.SAFE"


@dataclass(frozen=True)
class Image:
    """One polarisation; look-up tables are planes, so that bilinear interpolation gives them back exactly."""

    sigma0: NDArray[np.float64]
    polarisation: str = "VV"
    border: int = 0
    low: int = 3
    denoised: bool = False

    @property
    def name(self) -> str:
        number = {"VV": 1, "VH": 2}[self.polarisation]
        times = "20200605t012345-20200605t012410"
        return f"s1a-iw-grd-{self.polarisation.lower()}-{times}-032881-03cefd-{number:03d}"

    def amplitude(self, line: Any, pixel: Any) -> Any:
        return 500 + 0.2 * pixel - 0.1 * line

    def noise(self, line: Any, pixel: Any) -> Any:
        return 400 + 0.5 * pixel + 0.3 * line

    def along_azimuth(self, line: Any) -> Any:
        return 1 + 0.001 * line

    def longitude(self, pixel: Any) -> Any:
        return 10 + 1.2e-4 * pixel

    def latitude(self, line: Any) -> Any:
        return 45 - 9e-5 * line

    def incidence(self, pixel: Any) -> Any:
        return 31 + 0.01 * pixel

    def numbers(self) -> NDArray[np.uint16]:
        """Amplitudes that give sigma0 back, to rounding; the border holds low numbers."""
        line, pixel = np.mgrid[: self.sigma0.shape[0], : self.sigma0.shape[1]].astype(np.float64)
        noise = 0 if self.denoised else self.noise(line, pixel) * self.along_azimuth(line)
        power = self.sigma0 * self.amplitude(line, pixel) ** 2 + noise
        numbers = np.round(np.sqrt(power)).astype(np.uint16)
        inside = np.zeros(numbers.shape, np.bool_)
        inside[:, self.border :] = True
        return np.where(inside, numbers, self.low).astype(np.uint16)


def header(image: Image) -> str:
    return (
        f"<adsHeader><missionId>S1A</missionId><productType>GRD</productType><polarisation>{image.polarisation}"
        "</polarisation><mode>IW</mode><swath>IW</swath><startTime>2020-06-05T01:23:45.100000</startTime>"
        "<stopTime>2020-06-05T01:24:10.099000</stopTime><absoluteOrbitNumber>32881</absoluteOrbitNumber>"
        "<missionDataTakeId>249597</missionDataTakeId><imageNumber>"
        f"{image.name[-3:]}</imageNumber></adsHeader>"
    )


def annotation(image: Image) -> str:
    lines, samples = image.sigma0.shape
    points = "".join(
        f"<geolocationGridPoint><line>{line}</line><pixel>{pixel}</pixel><latitude>{float(image.latitude(line))!r}"
        f"</latitude><longitude>{float(image.longitude(pixel))!r}</longitude><height>12.0</height><incidenceAngle>"
        f"{float(image.incidence(pixel))!r}</incidenceAngle></geolocationGridPoint>"
        for line in (0, lines // 2, lines - 1)
        for pixel in (0, samples // 2, samples - 1)
    )
    return (
        f"<product>{header(image)}<generalAnnotation><productInformation><pass>Ascending</pass><platformHeading>-12.5"
        "</platformHeading></productInformation></generalAnnotation><imageAnnotation><imageInformation>"
        "<productFirstLineUtcTime>2020-06-05T01:23:45.100000</productFirstLineUtcTime><productLastLineUtcTime>"
        "2020-06-05T01:24:10.099000</productLastLineUtcTime><rangePixelSpacing>1.0e+01</rangePixelSpacing>"
        f"<azimuthPixelSpacing>1.0e+01</azimuthPixelSpacing><numberOfSamples>{samples}</numberOfSamples>"
        f"<numberOfLines>{lines}</numberOfLines></imageInformation><processingInformation>"
        f"<thermalNoiseCorrectionPerformed>{str(image.denoised).lower()}</thermalNoiseCorrectionPerformed>"
        f'</processingInformation></imageAnnotation><geolocationGrid><geolocationGridPointList count="9">{points}'
        "</geolocationGridPointList></geolocationGrid></product>"
    )


def calibration(image: Image) -> str:
    lines, samples = image.sigma0.shape
    pixels = np.append(np.arange(0, samples - 1, 40), samples - 1)
    vectors = "".join(
        f"<calibrationVector><azimuthTime>2020-06-05T01:23:45.100000</azimuthTime><line>{line}</line>"
        f'<pixel count="{len(pixels)}">{" ".join(map(str, pixels))}</pixel>'
        + "".join(
            listed(name, share * image.amplitude(line, pixels))
            for name, share in (("sigmaNought", 1.0), ("betaNought", 0.8), ("gamma", 0.9), ("dn", 0.8))
        )
        + "</calibrationVector>"
        for line in (-20, lines // 3, lines + 7)
    )
    return (
        f"<calibration>{header(image)}<calibrationInformation><absoluteCalibrationConstant>1.0"
        "</absoluteCalibrationConstant></calibrationInformation>"
        f"<calibrationVectorList count='3'>{vectors}</calibrationVectorList></calibration>"
    )


def noise(image: Image) -> str:
    lines, samples = image.sigma0.shape
    pixels = np.append(np.arange(0, samples - 1, 50), samples - 1)
    along_range = "".join(
        vector("noiseRangeVector", line, {"pixel": pixels, "noiseRangeLut": image.noise(line, pixels)})
        for line in (-20, lines // 2, lines + 7)
    )
    at = np.array([0, lines // 2, lines - 1])
    # The sub-swaths side by side, as products of the IW mode have them.
    halves = ((0, samples // 2 - 1), (samples // 2, samples - 1))
    along_azimuth = "".join(
        f"<noiseAzimuthVector><swath>IW{number}</swath><firstAzimuthLine>0</firstAzimuthLine><firstRangeSample>{first}"
        f"</firstRangeSample><lastAzimuthLine>{lines - 1}</lastAzimuthLine><lastRangeSample>{last}</lastRangeSample>"
        f"{listed('line', at)}{listed('noiseAzimuthLut', image.along_azimuth(at))}</noiseAzimuthVector>"
        for number, (first, last) in enumerate(halves, start=1)
    )
    return (
        f"<noise>{header(image)}<noiseRangeVectorList count='3'>{along_range}</noiseRangeVectorList>"
        f"<noiseAzimuthVectorList count='2'>{along_azimuth}</noiseAzimuthVectorList></noise>"
    )


def write_grd(
    root: Path, *images: Image, name: str = PRODUCT, numbers: Callable[[Image], NDArray[Any]] = Image.numbers
) -> Path:
    """Write a product and give its folder."""
    product = root / name
    write_xml(
        product / "manifest.safe",
        f'<xfdu:XFDU {NAMESPACES}><metadataSection><safe:software name="Sentinel-1 IPF" version="003.31"/>'
        "</metadataSection></xfdu:XFDU>",
    )
    for image in images:
        write_xml(product / "annotation" / f"{image.name}.xml", annotation(image))
        write_xml(product / "annotation" / "calibration" / f"calibration-{image.name}.xml", calibration(image))
        write_xml(product / "annotation" / "calibration" / f"noise-{image.name}.xml", noise(image))
        write_amplitudes(product / "measurement" / f"{image.name}.tiff", image, numbers(image))
    return product


def write_amplitudes(path: Path, image: Image, numbers: NDArray[Any]) -> None:
    """Write a TIFF in strips of one line, with ground control points and without a grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines, samples = numbers.shape
    points = [
        GroundControlPoint(line, pixel, float(image.longitude(pixel)), float(image.latitude(line)), 12.0)
        for line in (0, lines - 1)
        for pixel in (0, samples - 1)
    ]
    profile = {"driver": "GTiff", "count": 1, "dtype": numbers.dtype, "height": lines, "width": samples}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", blockysize=1, gcps=points, crs="EPSG:4326", **profile) as dataset:
            dataset.write(numbers, 1)


@makes("s1-grd")
def grd(bench: Bench) -> Archive:
    """Four tiles in decibels."""
    images = [Image(10 ** (np.float64(pixels) / 10)) for pixels in bench.radar(96)]
    write_grd(bench.folder, images[0], replace(images[1], polarisation="VH"))
    return parse_spec({"layout": "s1-grd", "root": bench.folder, "tile": 48}, "test").open()
