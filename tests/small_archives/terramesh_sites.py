"""Sites in folders of products, like TerraMesh."""

from __future__ import annotations

import numpy as np

from small_archives.making import Bench, makes, write_tif
from terrasieve.archive.layouts.terramesh_sites import LULC_CLASSES, PRODUCTS, TerraMeshSitesSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive


@makes("terramesh-sites")
def terramesh_sites(bench: Bench) -> Archive:
    """Two sites with products of several types on one grid."""
    size = 96
    for name in ("38D_378R_2_3", "433D_629L_3_1"):
        products = {
            "s1": bench.radar(size),
            "s2-l1c": bench.optical(13, size).astype(np.int16),
            "lulc": bench.rng.integers(0, len(LULC_CLASSES), (1, size, size)).astype(np.uint8),
            "dem": bench.rng.normal(500, 50, (1, size, size)).astype(np.float32),
        }
        for key, pixels in products.items():
            write_tif(bench.folder / PRODUCTS[key][0] / f"{name}.tif", pixels)
    return open_archive(TerraMeshSitesSpec(root=bench.folder))
