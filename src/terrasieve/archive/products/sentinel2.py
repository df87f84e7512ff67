"""Sentinel-2 products of level 1C and 2A, as the Copernicus services deliver them.

Names and elements are those of ESA, "Sentinel-2 Products Specification Document", S2-PDGS-TAS-DI-PSD, from version 14.2
on (December 2016: the compact names, one tile a product). A reflectance is ``(DN + RADIO_ADD_OFFSET) /
QUANTIFICATION_VALUE``, of level 2A ``(DN + BOA_ADD_OFFSET) / BOA_QUANTIFICATION_VALUE``; before processing baseline
04.00 there is no offset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from terrasieve.archive.products.band_scenes import band_scene, empty_pixels, on_grid_of
from terrasieve.archive.products.product_files import ProductFiles, product_name
from terrasieve.archive.products.tiled_products import Product
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.quality.offset import STATED
from terrasieve.archive.readers.documents import Document
from terrasieve.sensors import SENSORS, Band, Sensor

Level = Literal["l1c", "l2a"]
KEY, MASK = "s2", "scl"
CLASSES = Sensor(
    name="s2-scl",
    kind="map",
    bands=(Band(name="SCL", gsd=20, unit="class", valid_range=(0, 11)),),
    nodata=0,
)
"""The scene classification of level 2A: 3 shadow, 4 vegetation, 5 soil, 6 water, 8 to 10 clouds, 11 snow, 0 no data."""

LOOK = "S2?_MSIL1C_*.SAFE or S2?_MSIL2A_*.SAFE"
_NAME = re.compile(r"S2[A-Z]_MSIL(?P<level>1C|2A)_\d{8}T\d{6}_N\d{4}_R\d{3}_T[0-9A-Z]{5}_\d{8}T\d{6}", re.IGNORECASE)
_BAND_IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Bands by the number that metadata give them (``band_id``)."""
_OFFSET_SINCE = 4.0
_FACTS = "General_Info/Product_Image_Characteristics"
_INFO = "General_Info/Product_Info"


@dataclass(frozen=True)
class _Wording:
    """What metadata of a level call their numbers."""

    quantification: str
    offset: str
    images: str


_WORDING: Mapping[Level, _Wording] = {
    "l1c": _Wording("QUANTIFICATION_VALUE", "Radiometric_Offset_List/RADIO_ADD_OFFSET", "GRANULE/*/IMG_DATA/*_{}.jp2"),
    "l2a": _Wording(
        "QUANTIFICATION_VALUES_LIST/BOA_QUANTIFICATION_VALUE",
        "BOA_ADD_OFFSET_VALUES_LIST/BOA_ADD_OFFSET",
        "GRANULE/*/IMG_DATA/R{1}m/*_{0}_{1}m.jp2",
    ),
}


def level_of(name: str) -> Level | None:
    """The level of a product by its name without ``.SAFE``; None where it is none of Sentinel-2's."""
    match = _NAME.fullmatch(name)
    return None if match is None else "l1c" if match["level"].upper() == "1C" else "l2a"


def sensor_of(level: Level) -> Sensor:
    """The sensor of a level, with all of its bands."""
    return SENSORS[f"s2-{level}"]


def read_product(path: Path, level: Level, masks: bool) -> Product:
    """What a product holds, by its own metadata.

    Args:
        path: Its folder or zip.
        level: That of its name.
        masks: Whether its scene classification is read, which products of level 1C lack.

    Raises:
        SampleError: A file is absent or damaged, or what the metadata state contradicts itself.
    """
    files = ProductFiles.of(path)
    document_name = files.only(f"MTD_MSI{level}.xml")
    document, sensor = files.document(document_name), sensor_of(level)
    stated = values_stated(document, level)
    images = [files.only(_WORDING[level].images.format(band.name, f"{band.gsd:g}")) for band in sensor.bands]
    said_by = [files.file(document_name)]
    scene = band_scene(
        [files.address(image) for image in images], [stated[name] for name in sensor.names], path.name, said_by
    )
    scenes = {KEY: scene}
    if masks and level == "l2a":
        classes = band_scene([files.address(files.only("GRANULE/*/IMG_DATA/R20m/*_SCL_20m.jp2"))], [{}], path.name)
        scenes[MASK] = on_grid_of(classes, scene)
    return Product(
        name=product_name(path),
        path=path,
        height=scene.height,
        width=scene.width,
        scenes=scenes,
        empty=empty_pixels(scene, sensor),
        time=document.time(f"{_INFO}/PRODUCT_START_TIME"),
        columns={
            "platform": document.text(f"{_INFO}/Datatake/SPACECRAFT_NAME"),
            "processor": document.text(f"{_INFO}/PROCESSING_BASELINE"),
            # What is stated was taken away when pixels are read.
            STATED: False,
        },
    )


def values_stated(document: Document, level: Level) -> dict[str, dict[str, float]]:
    """Of each band the scale, offset, nodata and saturated values that the metadata state, as attributes of ``Stated``.

    Args:
        document: The parsed ``MTD_MSIL1C.xml`` or ``MTD_MSIL2A.xml``.
        level: That of the product.

    Raises:
        SampleError: A number is absent or impossible, or there is no offset where the baseline has one.
    """
    wording = _WORDING[level]
    quantification = document.number(f"{_FACTS}/{wording.quantification}")
    if quantification <= 0:
        raise document.flaw(f"states the quantification value {quantification:g}, which is not above 0")
    offsets = {
        _band(document, element.get("band_id", "")): document.number(".", element)
        for element in document.root.findall(f"{_FACTS}/{wording.offset}")
    }
    baseline = document.number(f"{_INFO}/PROCESSING_BASELINE")
    if baseline >= _OFFSET_SINCE and not offsets:
        raise document.flaw(f"is of processing baseline {baseline:05.2f} and states no {wording.offset}")
    special = {
        document.text("SPECIAL_VALUE_TEXT", one).lower(): document.number("SPECIAL_VALUE_INDEX", one)
        for one in document.root.findall(f"{_FACTS}/Special_Values")
    }
    marked: dict[str, float] = {name: special[name] for name in ("nodata", "saturated") if name in special}
    return {
        band: {"scale": 1 / quantification, "offset": offsets.get(band, 0.0) / quantification, **marked}
        for band in _BAND_IDS
    }


def _band(document: Document, said: str) -> str:
    if not said.isdecimal() or int(said) >= len(_BAND_IDS):
        raise FlawError(
            Problem.BANDS, f"{document.path} states an offset of band_id {said!r}. Fetch the product again."
        )
    return _BAND_IDS[int(said)]
