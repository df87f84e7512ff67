"""BigEarthNet, version 2: a folder a tile, in it a folder a patch, in it a GeoTIFF a band."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from small_archives.making import Bench, makes, write_tif
from terrasieve.archive.layouts.bigearthnet import METADATA, S1, S2, BigEarthNetSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.sensors import SENSORS

TILE = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP"
TILE_S1 = "S1A_IW_GRDH_1SDV_20170613T165043"


def write_bigearthnet(root: Path, put: Callable[[Path, str], None]) -> None:
    """Write three whole pairs, a patch without its partner, one that is listed only and one that is not listed.

    Args:
        root: Where ``metadata.parquet`` and the folders of both sensors are written.
        put: Writes the bands ``NAME_BAND.tif`` of a patch into its folder, given that and ``S1`` or ``S2`` of the
            layout's module.
    """
    rows = []
    for place, split in enumerate(("train", "validation", "test", "train", "train")):
        patch, partner = f"{TILE}_26_{place}", f"{TILE_S1}_33UUP_26_{place}"
        rows.append({"patch_id": patch, "s1_name": partner, "split": split, "labels": ["Arable land", "Mixed forest"]})
        if place < 4:
            put(root / S2 / TILE / patch, S2)
        if place < 3:
            put(root / S1 / TILE_S1 / partner, S1)
    put(root / S2 / TILE / f"{TILE}_90_90", S2)
    pq.write_table(pa.Table.from_pylist(rows), root / METADATA)


@makes("bigearthnet")
def bigearthnet(bench: Bench) -> Archive:
    """Bands of 10, 20 and 60 m."""

    def put(folder: Path, kind: str) -> None:
        for place, band in enumerate(SENSORS["s1" if kind == S1 else "s2-l2a"].bands):
            size = round(1200 / band.gsd)
            pixels = bench.radar(size)[place : place + 1] if kind == S1 else bench.optical(1, size)
            write_tif(folder / f"{folder.name}_{band.name}.tif", pixels, resolution=band.gsd)

    write_bigearthnet(bench.folder, put)
    return open_archive(BigEarthNetSpec(root=bench.folder))
