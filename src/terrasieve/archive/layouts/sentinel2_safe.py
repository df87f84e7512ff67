"""Sentinel-2 level 1C or 2A: a folder of `.SAFE` products, unpacked or zipped, as the Copernicus services deliver them.

See ``archive.products.sentinel2`` for what is read of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from terrasieve.archive.layout import DataSet, Recognition
from terrasieve.archive.products.product_files import find_products, first_product
from terrasieve.archive.products.sentinel2 import CLASSES, KEY, LOOK, MASK, Level, level_of, read_product, sensor_of
from terrasieve.archive.products.tiled_products import ProductsArchive, ProductsSpec, none_found, read_all, tile_readers


class Sentinel2SafeSpec(ProductsSpec):
    """A folder of Sentinel-2 products; see :class:`ProductsSpec` for how they are cut.

    Attributes:
        level: Which products; an archive holds one level, as their bands differ.
        masks: Whether the scene classification of level 2A is read too, as sensor ``scl``.
    """

    layout: Literal["s2-safe"] = "s2-safe"
    level: Level = "l2a"
    masks: bool = True

    data_set = DataSet(
        title="Sentinel-2 products",
        sensors="Sentinel-2 L1C or L2A, scene classification",
        page="../how-to/products.md",
        versions=".SAFE, .zip",
    )

    def open(self) -> ProductsArchive:
        """The archive, with the sensor ``s2`` and, of level 2A, ``scl``; see :class:`ProductsArchive`.

        Raises:
            ArchiveError: There is no product of the level, or none can be used.
        """
        spec = self.model_copy(update={"root": self.root.resolve()})
        paths = list(find_products(spec.root, lambda name: level_of(name) == spec.level))
        if not paths:
            raise none_found(spec.root, f"Sentinel-2 product of level {spec.level}", LOOK)
        found = read_all(paths, partial(read_product, level=spec.level, masks=spec.masks), KEY)
        masks = {MASK: CLASSES} if spec.masks and spec.level == "l2a" else {}
        return ProductsArchive(spec, found, tile_readers({KEY: sensor_of(spec.level), **masks}, spec.tile))

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the name of the first product that lies near the top; level 2A goes before level 1C."""
        found = first_product(folder, lambda name: level_of(name) is not None)
        if found is None:
            return None
        better = first_product(folder, lambda name: level_of(name) == "l2a")
        level: Level = "l1c" if better is None else "l2a"
        return Recognition(1.0, f"the product {(better or found).name}", cls(root=folder, level=level))
