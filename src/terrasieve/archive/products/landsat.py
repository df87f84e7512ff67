"""Landsat Collection 2 Level 2 surface reflectance.

Names, elements and numbers are those of USGS, "Landsat 8-9 Collection 2 Level 2 Science Product Guide", LSDS-1619, and
"Landsat 4-7 Collection 2 Level 2 Science Product Guide", LSDS-1618: reflectance is ``DN * REFLECTANCE_MULT_BAND_n +
REFLECTANCE_ADD_BAND_n``, 0 is fill; of ``QA_PIXEL`` the fill is 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from terrasieve.archive.products.band_scenes import band_scene, empty_pixels, on_grid_of
from terrasieve.archive.products.granules import Granule
from terrasieve.archive.products.tiled_products import Product
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.documents import Document, check_document_size, parse
from terrasieve.archive.scenes.acquisition_time import parse_time
from terrasieve.schema import read_json
from terrasieve.sensors import Band, Sensor

Instrument = Literal["oli", "tm"]
"""OLI of Landsat 8 and 9; TM and ETM+ of Landsat 4, 5 and 7, which have the same bands."""

KEY, MASK = "landsat", "qa"
LOOK = re.compile(
    r"(?:.*/)?(?P<name>L[COTE]0[4-9]_L2S[PR]_\d{6}_\d{8}_\d{8}_02_(?:T1|T2|RT))_(?P<part>[^/]+)",
    re.IGNORECASE,
)
_FILL, _QA_FILL = 0.0, 1.0
_REFLECTANCE = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"


def _bands(rows: Sequence[tuple[str, str, float]]) -> tuple[Band, ...]:
    return tuple(
        Band(name=name, common_name=colour, gsd=30, wavelength_um=at, unit="reflectance_e4", valid_range=(-2000, 20000))
        for name, colour, at in rows
    )


SENSORS_OF: dict[Instrument, Sensor] = {
    "oli": Sensor(
        name="landsat-oli-l2",
        kind="optical",
        bands=_bands(
            [
                ("SR_B1", "coastal", 0.443),
                ("SR_B2", "blue", 0.482),
                ("SR_B3", "green", 0.561),
                ("SR_B4", "red", 0.655),
                ("SR_B5", "nir08", 0.865),
                ("SR_B6", "swir16", 1.609),
                ("SR_B7", "swir22", 2.201),
            ]
        ),
        sets={"rgb": ("SR_B4", "SR_B3", "SR_B2")},
    ),
    "tm": Sensor(
        name="landsat-tm-l2",
        kind="optical",
        bands=_bands(
            [
                ("SR_B1", "blue", 0.485),
                ("SR_B2", "green", 0.560),
                ("SR_B3", "red", 0.660),
                ("SR_B4", "nir08", 0.830),
                ("SR_B5", "swir16", 1.650),
                ("SR_B7", "swir22", 2.215),
            ]
        ),
        sets={"rgb": ("SR_B3", "SR_B2", "SR_B1")},
    ),
}
"""Reflectance times 10,000 as float32, NaN where it is fill: what is stored has steps of 0.275 of that."""

QUALITY = Sensor(
    name="landsat-qa-pixel",
    kind="map",
    bands=(Band(name="QA_PIXEL", gsd=30, unit="class", valid_range=(0, 65535)),),
    nodata=_QA_FILL,
)
"""Bits of each pixel: 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud, 4 shadow, 5 snow, 6 clear, 7 water; confidences."""


def instrument_of(name: str) -> Instrument:
    """The instrument that the name of a product states: ``LC``, ``LO`` OLI; ``LT``, ``LE`` TM and ETM+."""
    return "oli" if name[1].upper() in "CO" else "tm"


def read_landsat(granule: Granule, instrument: Instrument, masks: bool) -> Product:
    """What a product holds, by its ``MTL`` file.

    Args:
        granule: Its files.
        instrument: That of its name.
        masks: Whether ``QA_PIXEL`` is read.

    Raises:
        SampleError: A file is absent or damaged, or the metadata are of another product.
    """
    path = granule.file("MTL.json", "MTL.xml")
    said = _Metadata(path)
    for section, name, wanted in (
        ("PRODUCT_CONTENTS", "LANDSAT_PRODUCT_ID", granule.name),
        ("PRODUCT_CONTENTS", "COLLECTION_NUMBER", "02"),
    ):
        if said.text(section, name).lower() != wanted.lower():
            raise said.flaw(f"states the {name} {said.text(section, name)!r}, not {wanted}")
    sensor = SENSORS_OF[instrument]
    files = [granule.file(f"{name}.TIF") for name in sensor.names]
    scene = band_scene(files, [said.reflectance(name) for name in sensor.names], granule.name, [path])
    scenes = {KEY: scene}
    if masks:
        scenes[MASK] = on_grid_of(
            band_scene([granule.file("QA_PIXEL.TIF")], [{"nodata": _QA_FILL}], granule.name), scene
        )
    return Product(
        name=granule.name,
        path=granule.folder,
        height=scene.height,
        width=scene.width,
        scenes=scenes,
        empty=empty_pixels(scene, sensor),
        time=said.time(),
        columns={"platform": said.text("IMAGE_ATTRIBUTES", "SPACECRAFT_ID")},
    )


class _Metadata:
    """The ``MTL`` file, which is JSON or XML of the same sections and names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said: Document | dict[str, Any] = parse(path) if path.suffix.lower() == ".xml" else self._parse_json()

    def flaw(self, what: str) -> FlawError:
        """The error that says what is wrong with the file."""
        return FlawError(Problem.UNREADABLE, f"{self.path} {what}. Fetch the product again.")

    def text(self, section: str, name: str) -> str:
        """What is stated under a name.

        Raises:
            SampleError: Nothing is.
        """
        if isinstance(self._said, Document):
            return self._said.text(f"{section}/{name}")
        found = self._said.get(section)
        value = found.get(name) if isinstance(found, dict) else None
        if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value).strip():
            raise self.flaw(f"has no {section}/{name}")
        return str(value).strip()

    def reflectance(self, band: str) -> dict[str, float]:
        """Scale, offset and fill of a band, as attributes of ``Stated``."""
        number = band.removeprefix("SR_B")
        scale, offset = (self._number(f"REFLECTANCE_{name}_BAND_{number}") for name in ("MULT", "ADD"))
        return {"scale": scale, "offset": offset, "nodata": _FILL}

    def time(self) -> datetime:
        """The time of the scene's centre."""
        day, clock = (self.text("IMAGE_ATTRIBUTES", name) for name in ("DATE_ACQUIRED", "SCENE_CENTER_TIME"))
        found = parse_time(f"{day}T{clock.strip(chr(34))}")
        if found is None:
            raise self.flaw(f"states the time {day} {clock}")
        return found

    def _number(self, name: str) -> float:
        said = self.text(_REFLECTANCE, name)
        try:
            return float(said)
        except ValueError as error:
            raise self.flaw(f"has {said[:40]!r} for {name}, which is no number") from error

    def _parse_json(self) -> dict[str, Any]:
        try:
            check_document_size(self.path, self.path.stat().st_size)
            said = read_json(self.path)["LANDSAT_METADATA_FILE"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self.flaw(f"is no MTL file: {error!r}") from error
        if not isinstance(said, dict):
            raise self.flaw("is no MTL file")
        return said
