"""Sentinel-2 products in EOPF's Zarr format, of either format of Zarr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from small_archives.making import Bench, makes
from small_archives.sentinel2_products import ORIGIN, drawn, drawn_classes
from terrasieve.archive.layout import parse_spec
from terrasieve.archive.protocol import Archive
from terrasieve.sensors import SENSORS

NAME = "S2B_MSIL2A_20250530T101559_N0511_R065_T32TQM_20250530T130924.zarr"


def write_eopf(
    root: Path,
    bands: Mapping[str, NDArray[np.uint16]],
    scl: NDArray[np.uint8] | None = None,
    zarr_format: Literal[2, 3] = 2,
    name: str = NAME,
    **stated: Any,
) -> Path:
    """Write a product and give its folder; ``bands`` hold digital numbers at the bands' own resolution."""
    folder = root / name
    group = zarr.open_group(str(folder), mode="w", zarr_format=zarr_format)
    properties = {"datetime": "2025-05-30T10:15:59.024000Z", "platform": "sentinel-2b", "proj:epsg": 32632}
    group.attrs["stac_discovery"] = {"type": "Feature", "properties": properties}
    said = {"scale_factor": 0.0001, "add_offset": -0.1, "fill_value": 0} | stated
    for band in (one for one in SENSORS["s2-l1c"].bands if one.name in bands):
        pixels = bands[band.name]
        place = f"measurements/reflectance/r{band.gsd:g}m"
        array = group.create_array(f"{place}/{band.name.lower()}", data=pixels, chunks=(32, 32))
        array.attrs.update(
            {**said, "_eopf_attrs": {"scale_factor": 0.0001, "units": "digital_counts"}, "proj:epsg": 32632}
        )
        for axis, (start, sign) in (("x", (ORIGIN[0], 1)), ("y", (ORIGIN[1], -1))):
            centres = start + sign * band.gsd * (np.arange(len(pixels)) + 0.5)
            group.create_array(f"{place}/{axis}", data=centres, overwrite=True)
    if scl is not None:
        group.create_array("conditions/mask/l2a_classification/r20m/scl", data=scl, chunks=(32, 32))
    return folder


@makes("s2-eopf")
def eopf(bench: Bench) -> Archive:
    """Four tiles of a product of level 2A with its scene classification."""
    write_eopf(bench.folder, drawn("l2a", 96), drawn_classes(96))
    return parse_spec({"layout": "s2-eopf", "root": bench.folder, "tile": 48}, "test").open()
