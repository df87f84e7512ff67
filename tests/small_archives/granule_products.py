"""Landsat, HLS and RTC products as their agencies write them: names, metadata and one file a band."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from small_archives.making import Bench, makes
from terrasieve.archive.layout import parse_spec
from terrasieve.archive.protocol import Archive

LANDSAT = "LC08_L2SP_034033_20200618_20200823_02_T1"
S30 = "HLS.S30.T13TEF.2021123T174909.v2.0"
L30 = "HLS.L30.T13TEF.2021124T172755.v2.0"
HYP3 = "S1A_IW_20200605T012345_DVP_RTC30_G_gpuned_1A2B"
PLANETARY = "S1A_IW_GRDH_1SDV_20240419T045904_20240419T045916_053498_067DF2_DCEC"


def write_band(
    path: Path, pixels: NDArray[Any], nodata: float | None, tags: Mapping[str, str] | None = None, spacing: float = 30.0
) -> None:
    """Write one band as a tiled GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "dtype": pixels.dtype, "crs": "EPSG:32613", "nodata": nodata}
    profile |= {"height": pixels.shape[0], "width": pixels.shape[1], "tiled": True, "blockxsize": 64, "blockysize": 64}
    transform = Affine(spacing, 0, 499_980, 0, -spacing, 4_500_000)
    with rasterio.open(path, "w", transform=transform, **profile) as dataset:
        dataset.write(pixels, 1)
        dataset.update_tags(**(tags or {}))


def mtl(name: str, bands: Mapping[str, Any], scale: str = "2.75e-05", offset: str = "-0.2") -> dict[str, Any]:
    """What the metadata file of a Landsat scene states."""
    numbers = [band.removeprefix("SR_B") for band in bands if band.startswith("SR_B")]
    platform = {"LC08": "LANDSAT_8", "LE07": "LANDSAT_7"}[name[:4]]
    return {
        "PRODUCT_CONTENTS": {
            "ORIGIN": "Image courtesy of the U.S. Geological Survey",
            "LANDSAT_PRODUCT_ID": name,
            "PROCESSING_LEVEL": "L2SP",
            "COLLECTION_NUMBER": "02",
        },
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": platform,
            "DATE_ACQUIRED": "2020-06-18",
            "SCENE_CENTER_TIME": "17:33:43.1234560Z",
        },
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {
            **{f"REFLECTANCE_MULT_BAND_{number}": scale for number in numbers},
            **{f"REFLECTANCE_ADD_BAND_{number}": offset for number in numbers},
        },
        # Level 1 has names of the same beginning and other numbers.
        "LEVEL1_RADIOMETRIC_RESCALING": {f"REFLECTANCE_MULT_BAND_{number}": "2.0000E-05" for number in numbers},
    }


def as_xml(said: Mapping[str, Any]) -> str:
    """The same as XML."""
    inner = "".join(
        f"<{section}>{''.join(f'<{name}>{value}</{name}>' for name, value in values.items())}</{section}>"
        for section, values in said.items()
    )
    return f'<?xml version="1.0" encoding="UTF-8"?><LANDSAT_METADATA_FILE>{inner}</LANDSAT_METADATA_FILE>'


def write_landsat(
    folder: Path, bands: Mapping[str, NDArray[Any]], name: str = LANDSAT, kind: str = "json", **stated: str
) -> Path:
    """Write a scene; ``bands`` are ``SR_B1`` and so on, and ``QA_PIXEL``."""
    for band, pixels in bands.items():
        write_band(folder / f"{name}_{band}.TIF", pixels, 1 if band == "QA_PIXEL" else 0)
    said = mtl(name, bands, **stated)
    text = json.dumps({"LANDSAT_METADATA_FILE": said}) if kind == "json" else as_xml(said)
    (folder / f"{name}_MTL.{kind}").write_text(text, encoding="utf-8")
    return folder


def write_hls(folder: Path, bands: Mapping[str, NDArray[Any]], name: str = S30, **tags: str) -> Path:
    """Write a granule; ``bands`` are ``B01`` and so on, and ``Fmask``."""
    own = {"SENSING_TIME": "2021-05-03T17:53:58.614123Z", "scale_factor": "0.0001", "add_offset": "0.0"} | tags
    for band, pixels in bands.items():
        mask = band == "Fmask"
        said = {} if mask else {"_FillValue": "-9999"} | own
        write_band(folder / f"{name}.{band}.tif", pixels, 255 if mask else -9999, said)
    return folder


def _landsat_bands(bench: Bench, *numbers: int) -> dict[str, NDArray[Any]]:
    bands: dict[str, NDArray[Any]] = {
        f"SR_B{number}": bench.rng.integers(7_500, 30_000, (96, 96)).astype(np.uint16) for number in numbers
    }
    return bands | {"QA_PIXEL": bench.rng.integers(21_000, 22_000, (96, 96)).astype(np.uint16)}


@makes("landsat-c2l2")
def landsat(bench: Bench) -> Archive:
    """Four tiles of Landsat 8."""
    write_landsat(bench.folder, _landsat_bands(bench, *range(1, 8)))
    return parse_spec({"layout": "landsat-c2l2", "root": bench.folder, "tile": 48}, "test").open()


@makes("hls")
def hls(bench: Bench) -> Archive:
    """Four tiles of a granule of L30."""
    names = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B09")
    bands: dict[str, NDArray[Any]] = {name: bench.optical(1, 96)[0].astype(np.int16) for name in names}
    bands["Fmask"] = bench.rng.integers(0, 65, (96, 96)).astype(np.uint8)
    write_hls(bench.folder, bands, L30)
    return parse_spec({"layout": "hls", "root": bench.folder, "product": "l30", "tile": 48}, "test").open()


@makes("s1-rtc")
def hyp3(bench: Bench) -> Archive:
    """Four tiles of a product of HyP3, in power."""
    for name, pixels in zip(("VV", "VH"), bench.radar(96), strict=True):
        write_band(bench.folder / HYP3 / f"{HYP3}_{name}.tif", (10 ** (pixels / 10)).astype(np.float32), 0)
    return parse_spec({"layout": "s1-rtc", "root": bench.folder, "tile": 48}, "test").open()


@makes("s1-rtc")
def planetary_computer(bench: Bench) -> Archive:
    """Four tiles of a product of the Planetary Computer."""
    for name, pixels in zip(("vv", "vh"), bench.radar(96), strict=True):
        path = bench.folder / PLANETARY / "measurement" / f"iw-{name}.rtc.tiff"
        write_band(path, (10 ** (pixels / 10)).astype(np.float32), -32768, spacing=10)
    spec = {"layout": "s1-rtc", "root": bench.folder, "service": "planetary-computer", "tile": 48}
    return parse_spec(spec, "test").open()
