"""Wave Mode products as the processor writes them: annotation, calibration, noise and complex numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from small_archives.making import Bench, makes
from terrasieve.archive.layouts.wave_mode import WaveModeSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive

PRODUCT = "S1A_WV_SLC__1SSV_20160101T061142_20160101T061914_009298_00D6D6_1234.SAFE"
START = datetime(2016, 1, 1, 6, 11, 42, 500000, tzinfo=UTC)
NAMESPACES = (
    'xmlns:safe="http://www.esa.int/safe/sentinel-1.0" xmlns:xfdu="urn:ccsds:schema:xfdu:1" '
    'xmlns:s1sarl1="http://www.esa.int/safe/sentinel-1.0/sentinel-1/sar/level-1"'
)


@dataclass(frozen=True)
class Scene:
    """A vignette; look-up tables are planes, so that bilinear interpolation gives them back exactly."""

    number: int = 1
    mode: str = "WV1"
    polarisation: str = "VV"
    platform: str = "S1A"
    lines: int = 240
    samples: int = 260
    range_spacing: float = 1.8
    azimuth_spacing: float = 4.1
    near: float = 22.5
    west: float = -30.0
    low_noise: bool = True
    denoised: bool = False

    @property
    def name(self) -> str:
        start, stop = (
            f"{START + timedelta(seconds=s):%Y%m%dt%H%M%S}" for s in (15 * self.number, 15 * self.number + 3)
        )
        parts = (self.platform, self.mode, "slc", self.polarisation, start, stop, "009298-00d6d6", f"{self.number:03d}")
        return "-".join(parts).lower()

    @property
    def times(self) -> tuple[datetime, datetime]:
        first = START + timedelta(seconds=15 * self.number)
        return first, first + timedelta(seconds=3)

    def amplitude(self, line: Any, pixel: Any) -> Any:
        return 300 + 0.1 * pixel - 0.05 * line

    def noise(self, line: Any, pixel: Any) -> Any:
        return (5 if self.low_noise else 5000) + 0.02 * pixel + 0.01 * line

    def along_azimuth(self, line: Any) -> Any:
        return 1 + 0.001 * line

    def incidence(self, pixel: Any) -> Any:
        return self.near + 0.006 * pixel

    def latitude(self, line: Any) -> Any:
        return 40 + 3.7e-5 * line

    def longitude(self, pixel: Any) -> Any:
        return (self.west + 5e-5 * pixel + 180) % 360 - 180

    def numbers(self) -> NDArray[np.complex64]:
        drawn = np.random.default_rng(self.number).integers(-60, 61, (2, self.lines, self.samples))
        return (drawn[0] + 1j * drawn[1]).astype(np.complex64)


WV1, WV2 = Scene(), Scene(number=2, mode="WV2", range_spacing=2.7, near=36.0)


def header(scene: Scene) -> str:
    first, last = (time.strftime("%Y-%m-%dT%H:%M:%S.%f") for time in scene.times)
    return (
        f"<adsHeader><missionId>{scene.platform}</missionId><productType>SLC</productType>"
        f"<polarisation>{scene.polarisation}</polarisation><mode>WV</mode><swath>{scene.mode}</swath>"
        f"<startTime>{first}</startTime><stopTime>{last}</stopTime><absoluteOrbitNumber>9298</absoluteOrbitNumber>"
        f"<missionDataTakeId>54998</missionDataTakeId><imageNumber>{scene.number:03d}</imageNumber></adsHeader>"
    )


def listed(name: str, values: Sequence[float] | NDArray[Any]) -> str:
    """As products have them: whole numbers without a point."""
    return f'<{name} count="{len(values)}">{" ".join(map(repr, np.asarray(values).tolist()))}</{name}>'


def vector(tag: str, line: float, columns: dict[str, Any]) -> str:
    inner = "".join(listed(name, values) for name, values in columns.items())
    return f"<{tag}><azimuthTime>2016-01-01T06:11:42.5</azimuthTime><line>{line}</line>{inner}</{tag}>"


def knots(scene: Scene) -> tuple[list[int], NDArray[np.int64]]:
    """Lines and pixels of the vectors: uneven, beyond the image at both ends, as products have them."""
    pixels = np.append(np.arange(0, scene.samples - 1, 40), scene.samples - 1)
    return [-31, 0, 97, scene.lines + 12], pixels


def annotation(scene: Scene) -> str:
    first, last = (time.strftime("%Y-%m-%dT%H:%M:%S.%f") for time in scene.times)
    points = "".join(
        f"<geolocationGridPoint><azimuthTime>{first}</azimuthTime><slantRangeTime>5e-3</slantRangeTime>"
        f"<line>{line}</line><pixel>{pixel}</pixel><latitude>{float(scene.latitude(line))!r}</latitude>"
        f"<longitude>{float(scene.longitude(pixel))!r}</longitude><height>0.0</height>"
        f"<incidenceAngle>{float(scene.incidence(pixel))!r}</incidenceAngle><elevationAngle>20</elevationAngle>"
        "</geolocationGridPoint>"
        for line in (0, 120, scene.lines - 1)
        for pixel in (0, 100, scene.samples - 1)
    )
    return (
        f"<product>{header(scene)}<generalAnnotation><productInformation><pass>Descending</pass>"
        "<platformHeading>-1.671e+02</platformHeading></productInformation></generalAnnotation><imageAnnotation>"
        f"<imageInformation><productFirstLineUtcTime>{first}</productFirstLineUtcTime>"
        f"<productLastLineUtcTime>{last}</productLastLineUtcTime>"
        f"<rangePixelSpacing>{scene.range_spacing:e}</rangePixelSpacing>"
        f"<azimuthPixelSpacing>{scene.azimuth_spacing:e}</azimuthPixelSpacing>"
        f"<numberOfSamples>{scene.samples}</numberOfSamples><numberOfLines>{scene.lines}</numberOfLines>"
        "</imageInformation><processingInformation><thermalNoiseCorrectionPerformed>"
        f"{str(scene.denoised).lower()}</thermalNoiseCorrectionPerformed></processingInformation></imageAnnotation>"
        f'<geolocationGrid><geolocationGridPointList count="9">{points}</geolocationGridPointList></geolocationGrid>'
        "</product>"
    )


def calibration(scene: Scene) -> str:
    lines, pixels = knots(scene)
    vectors = "".join(
        vector("calibrationVector", line, {"pixel": pixels, "sigmaNought": amplitude, "gamma": 0.97 * amplitude})
        for line, amplitude in ((line, scene.amplitude(line, pixels)) for line in lines)
    )
    return (
        f"<calibration>{header(scene)}<calibrationInformation><absoluteCalibrationConstant>1.0"
        "</absoluteCalibrationConstant></calibrationInformation>"
        f'<calibrationVectorList count="4">{vectors}</calibrationVectorList></calibration>'
    )


def new_noise(scene: Scene) -> str:
    """From version 2.90 on."""
    lines, pixels = knots(scene)
    along_range = "".join(
        vector("noiseRangeVector", line, {"pixel": pixels, "noiseRangeLut": scene.noise(line, pixels)})
        for line in lines
    )
    at = np.array([0, 50, scene.lines - 1])
    along_azimuth = (
        f"<noiseAzimuthVector><swath>{scene.mode}</swath><firstAzimuthLine>0</firstAzimuthLine>"
        f"<firstRangeSample>0</firstRangeSample><lastAzimuthLine>{scene.lines - 1}</lastAzimuthLine>"
        f"<lastRangeSample>{scene.samples - 1}</lastRangeSample>{listed('line', at)}"
        f"{listed('noiseAzimuthLut', scene.along_azimuth(at))}</noiseAzimuthVector>"
    )
    return (
        f'<noise>{header(scene)}<noiseRangeVectorList count="4">{along_range}</noiseRangeVectorList>'
        f'<noiseAzimuthVectorList count="1">{along_azimuth}</noiseAzimuthVectorList></noise>'
    )


def old_noise(scene: Scene) -> str:
    """Before version 2.90."""
    lines, pixels = knots(scene)
    vectors = "".join(
        vector("noiseVector", line, {"pixel": pixels, "noiseLut": scene.noise(line, pixels)}) for line in lines
    )
    return f'<noise>{header(scene)}<noiseVectorList count="4">{vectors}</noiseVectorList></noise>'


def write_xml(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n{body}', encoding="utf-8")


def write_image(path: Path, numbers: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = numbers.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "complex_int16"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(numbers.astype(np.complex64), 1)


def write_product(
    root: Path,
    *scenes: Scene,
    version: str = "003.31",
    noise: Callable[[Scene], str] = new_noise,
    image: Callable[[Scene], NDArray[Any]] = Scene.numbers,
    name: str = PRODUCT,
) -> Path:
    """Write a product of these vignettes, as the processor of that version does, and give its folder."""
    product = root / name
    write_xml(
        product / "manifest.safe",
        f"<xfdu:XFDU {NAMESPACES}><metadataSection><metadataObject><metadataWrap><xmlData><safe:processing>"
        f'<safe:facility><safe:software name="Sentinel-1 IPF" version="{version}"/></safe:facility></safe:processing>'
        "</xmlData></metadataWrap></metadataObject></metadataSection></xfdu:XFDU>",
    )
    for scene in scenes:
        write_xml(product / "annotation" / f"{scene.name}.xml", annotation(scene))
        write_xml(product / "annotation" / "calibration" / f"calibration-{scene.name}.xml", calibration(scene))
        write_xml(product / "annotation" / "calibration" / f"noise-{scene.name}.xml", noise(scene))
        write_image(product / "measurement" / f"{scene.name}.tiff", image(scene))
    return product


def edges(scene: Scene, size: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges of cells of 50 m in pixels, by solving for where the ground has come that far."""
    along = np.arange(scene.lines + 1) * scene.azimuth_spacing
    step = scene.range_spacing / np.sin(np.radians(scene.incidence(np.arange(scene.samples))))
    across = np.append(0, np.cumsum(step))
    found = []
    for metres in (along, across):
        count = int(metres[-1] // 50) if size is None else size
        start = (metres[-1] - 50 * count) / 2
        found.append(np.interp(start + 50 * np.arange(count + 1), metres, np.arange(len(metres))))
    return found[0], found[1]


def box_means(pixels: NDArray[np.float64], scene: Scene, size: int | None = None) -> NDArray[np.float64]:
    """Means over cells by differences of the interpolated running sum, along one side and then the other."""
    for axis, at in enumerate(edges(scene, size)):
        running = np.insert(np.cumsum(pixels, axis=axis), 0, 0, axis=axis)
        whole = np.arange(running.shape[axis])
        sums = np.apply_along_axis(lambda one, at=at, whole=whole: np.interp(at, whole, one), axis, running)
        widths = np.diff(at)
        pixels = np.diff(sums, axis=axis) / (widths[:, None] if axis == 0 else widths)
    return pixels


@makes("wave-mode")
def wave_mode(bench: Bench) -> Archive:
    """Vignettes of both swaths, whole, of two sizes."""
    write_product(bench.folder, WV1, WV2)
    return open_archive(WaveModeSpec(root=bench.folder, size=None))
