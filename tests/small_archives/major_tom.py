"""Major TOM: Parquet files whose columns hold a GeoTIFF a band."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from small_archives.making import Bench, makes
from terrasieve.archive.layouts.major_tom import FOLDERS, MajorTomSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive

CELLS = ("433U_46L", "434U_47L")
NEAR = "S1A_IW_GRDH_1SDV_20200622T165043_20200622T165108_017018_01C579_rtc"


def product(cell: str, day: str = "20200621", baseline: str = "0509") -> str:
    return f"S2A_MSIL2A_{day}T105631_N{baseline}_R094_T31UDQ_{day}T1{CELLS.index(cell)}0759"


def as_tif(band: NDArray[Any], resolution: float, nodata: float | None = None) -> bytes:
    transform = Affine(resolution, 0, 500_000, 0, -resolution, 5_000_000)
    options = {"driver": "GTiff", "dtype": band.dtype, "crs": "EPSG:32631", "transform": transform, "nodata": nodata}
    with MemoryFile() as file:
        with file.open(
            width=band.shape[1], height=band.shape[0], count=1, compress="deflate", zlevel=1, **options
        ) as out:
            out.write(band, 1)
        return bytes(file.read())


def optical_blobs(pixels: NDArray[np.uint16]) -> dict[str, bytes]:
    """A GeoTIFF of each band of L2A at the band's own resolution, from all on the grid of 10 m."""
    steps = {band.name: int(band.gsd // 10) for band in FOLDERS["s2a"][1].bands}
    return {
        name: as_tif(pixels[place, ::step, ::step], 10.0 * step) for place, (name, step) in enumerate(steps.items())
    }


def radar_blobs(pixels: NDArray[np.float32]) -> dict[str, bytes]:
    """A GeoTIFF of each band of RTC, linear, from VV and VH."""
    return {name: as_tif(pixels[place], 10.0, -32768) for place, name in enumerate(("vv", "vh"))}


def write(path: Path, rows: list[dict[str, Any]], group: int = 1) -> Path:
    """Write a Parquet file of so many rows a group, and give its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def row(cell: str, name: str, bands: Mapping[str, bytes | None]) -> dict[str, Any]:
    return {"product_id": name, "grid_cell": cell, "product_datetime": "x", "thumbnail": b"png", **bands}


@makes("major-tom")
def major_tom(bench: Bench) -> Archive:
    """Two cells of one pixel content, as a patch has to be of 1068x1068 px."""
    optical = optical_blobs(np.tile(bench.optical(12, 89), (1, 12, 12)))
    radar = radar_blobs(10 ** (np.tile(bench.radar(89), (1, 12, 12)) / 10))
    write(bench.folder / "Core-S2L2A/images/part_00001.parquet", [row(cell, product(cell), optical) for cell in CELLS])
    write(bench.folder / "Core-S1RTC/images/part_00001.parquet", [row(cell, NEAR + cell, radar) for cell in CELLS])
    return open_archive(MajorTomSpec(root=bench.folder))
