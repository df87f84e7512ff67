"""Sentinel-2 products as the ground segment writes them: names, metadata and JPEG 2000 of each band."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from small_archives.making import Bench, makes
from terrasieve.archive.layout import parse_spec
from terrasieve.archive.protocol import Archive
from terrasieve.sensors import SENSORS

BAND_IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
ORIGIN = (600_000.0, 5_100_000.0)
NAMES = {
    "l1c": "S2A_MSIL1C_20200607T101031_N{}_R022_T32TQM_20200607T121031",
    "l2a": "S2A_MSIL2A_20200607T101031_N{}_R022_T32TQM_20200607T141031",
}


@dataclass(frozen=True)
class Safe:
    """A product; ``bands`` hold digital numbers at the bands' own resolution."""

    level: str
    bands: Mapping[str, NDArray[np.uint16]]
    scl: NDArray[np.uint8] | None = None
    baseline: str = "05.09"
    offset: int | None = -1000
    quantification: int = 10_000
    more: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return NAMES[self.level].format(self.baseline.replace(".", ""))

    def offsets(self) -> str:
        """The list of offsets; absent before baseline 04.00."""
        if self.offset is None:
            return ""
        tag, around = {
            "l1c": ("RADIO_ADD_OFFSET", "Radiometric_Offset_List"),
            "l2a": ("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST"),
        }[self.level]
        rows = "".join(
            f'<{tag} band_id="{number}">{self.more.get(name, self.offset)}</{tag}>'
            for number, name in enumerate(BAND_IDS)
        )
        return f"<{around}>{rows}</{around}>"

    def metadata(self) -> str:
        """``MTD_MSIL1C.xml`` or ``MTD_MSIL2A.xml``, with what stands around the elements that are read."""
        number = self.level[1:].upper()
        values = {
            "l1c": f'<QUANTIFICATION_VALUE unit="none">{self.quantification}</QUANTIFICATION_VALUE>',
            "l2a": '<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">'
            f"{self.quantification}</BOA_QUANTIFICATION_VALUE><AOT_QUANTIFICATION_VALUE "
            'unit="none">1000.0</AOT_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>',
        }[self.level]
        special = "".join(
            f"<Special_Values><SPECIAL_VALUE_TEXT>{text}</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>{value}"
            "</SPECIAL_VALUE_INDEX></Special_Values>"
            for text, value in (("NODATA", 0), ("SATURATED", 65535))
        )
        return (
            '<?xml version="1.0" encoding="UTF-8" standalone="no"?>'
            f'<n1:Level-{number}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-'
            f'{number}.xsd"><n1:General_Info><Product_Info><PRODUCT_START_TIME>2020-06-07T10:10:31.024Z'
            "</PRODUCT_START_TIME><PRODUCT_STOP_TIME>2020-06-07T10:10:31.024Z</PRODUCT_STOP_TIME>"
            f"<PRODUCT_URI>{self.name}.SAFE</PRODUCT_URI><PROCESSING_LEVEL>Level-{number}p</PROCESSING_LEVEL>"
            f"<PROCESSING_BASELINE>{self.baseline}</PROCESSING_BASELINE>"
            '<Datatake datatakeIdentifier="GS2A_20200607T101031_025903_N05.09"><SPACECRAFT_NAME>Sentinel-2A'
            "</SPACECRAFT_NAME><DATATAKE_TYPE>INS-NOBS</DATATAKE_TYPE></Datatake></Product_Info>"
            f"<Product_Image_Characteristics>{special}{values}{self.offsets()}</Product_Image_Characteristics>"
            f"</n1:General_Info></n1:Level-{number}_User_Product>"
        )

    def image(self, band: str) -> str:
        """Path of a band's file within the product."""
        stem = "T32TQM_20200607T101031"
        if self.level == "l1c":
            return f"GRANULE/L1C_T32TQM_A025903_20200607T101559/IMG_DATA/{stem}_{band}.jp2"
        gsd = 20 if band == "SCL" else {one.name: int(one.gsd) for one in SENSORS["s2-l2a"].bands}[band]
        return f"GRANULE/L2A_T32TQM_A025903_20200607T101559/IMG_DATA/R{gsd}m/{stem}_{band}_{gsd}m.jp2"


def write_jp2(path: Path, pixels: NDArray[Any], resolution: float, crs: str = "EPSG:32632") -> None:
    """Write one band without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "JP2OpenJPEG", "count": 1, "dtype": pixels.dtype, "crs": crs, "QUALITY": 100}
    profile |= {"height": pixels.shape[0], "width": pixels.shape[1], "REVERSIBLE": "YES", "YCBCR420": "NO"}
    transform = Affine(resolution, 0, ORIGIN[0], 0, -resolution, ORIGIN[1])
    with rasterio.open(path, "w", transform=transform, **profile) as dataset:
        dataset.write(pixels, 1)


def write_safe(root: Path, product: Safe) -> Path:
    """Write a product and give its folder."""
    folder = root / f"{product.name}.SAFE"
    folder.mkdir(parents=True)
    (folder / f"MTD_MSI{product.level.upper()}.xml").write_text(product.metadata(), encoding="utf-8")
    (folder / "manifest.safe").write_text("<xfdu/>", encoding="utf-8")
    gsds = {band.name: band.gsd for band in SENSORS["s2-l1c"].bands}
    for name, pixels in product.bands.items():
        write_jp2(folder / product.image(name), pixels, gsds[name])
    if product.scl is not None:
        write_jp2(folder / product.image("SCL"), product.scl, 20)
    return folder


def zip_up(folder: Path, name: str | None = None) -> Path:
    """The zip of a product's folder, which is removed, as the services deliver it."""
    made = shutil.make_archive(str(folder.parent / "made"), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    return Path(made).rename(folder.parent / (name or f"{folder.name}.zip"))


def drawn(level: str, side: int, seed: int = 0) -> dict[str, NDArray[np.uint16]]:
    """Digital numbers of every band at its own resolution, of a scene of ``side`` pixels of 10 m."""
    rng = np.random.default_rng(seed)
    return {
        band.name: rng.integers(1100, 5000, (side * 10 // int(band.gsd),) * 2).astype(np.uint16)
        for band in SENSORS[f"s2-{level}"].bands
    }


def drawn_classes(side: int) -> NDArray[np.uint8]:
    """A scene classification at 20 m, of a scene of ``side`` pixels of 10 m."""
    return np.random.default_rng(1).integers(1, 12, (side // 2, side // 2)).astype(np.uint8)


@makes("s2-safe")
def level_2a(bench: Bench) -> Archive:
    """Four tiles of a product of level 2A with its scene classification."""
    write_safe(bench.folder, Safe("l2a", drawn("l2a", 96), drawn_classes(96)))
    return parse_spec({"layout": "s2-safe", "root": bench.folder, "tile": 48}, "test").open()


@makes("s2-safe")
def zipped_level_1c(bench: Bench) -> Archive:
    """Four tiles of a zipped product of level 1C."""
    zip_up(write_safe(bench.folder, Safe("l1c", drawn("l1c", 96))))
    return parse_spec({"layout": "s2-safe", "root": bench.folder, "level": "l1c", "tile": 48}, "test").open()
