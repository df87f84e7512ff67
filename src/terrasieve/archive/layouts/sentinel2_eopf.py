"""Sentinel-2 in ESA's EOPF format: a folder of `.zarr` products of level 1C or 2A.

See ``archive.products.eopf`` for what is read of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from terrasieve.archive.layout import DataSet, Recognition
from terrasieve.archive.products.eopf import EopfReader, find_eopf, level_of_eopf, read_eopf
from terrasieve.archive.products.sentinel2 import CLASSES, KEY, MASK, Level, sensor_of
from terrasieve.archive.products.tiled_products import ProductsArchive, ProductsSpec, none_found, read_all


class Sentinel2EopfSpec(ProductsSpec):
    """A folder of EOPF products; see :class:`ProductsSpec` for how they are cut.

    Attributes:
        root: A folder with products directly below it, or one product.
        level: Which products; an archive holds one level, as their bands differ.
        masks: Whether the scene classification of level 2A is read too, as sensor ``scl``.
    """

    layout: Literal["s2-eopf"] = "s2-eopf"
    level: Level = "l2a"
    masks: bool = True

    data_set = DataSet(
        title="Sentinel-2 EOPF products",
        sensors="Sentinel-2 L1C or L2A, scene classification",
        page="../how-to/products.md",
        versions=".zarr",
    )

    def open(self) -> ProductsArchive:
        """The archive, with the sensor ``s2`` and, of level 2A, ``scl``; see :class:`ProductsArchive`.

        Raises:
            ArchiveError: There is no product of the level, or none can be used.
        """
        spec = self.model_copy(update={"root": self.root.resolve()})
        paths = [path for path in find_eopf(spec.root) if level_of_eopf(path) == spec.level]
        if not paths:
            raise none_found(spec.root, f"EOPF product of level {spec.level}", "S2?_MSIL??_*.zarr")
        found = read_all(paths, partial(read_eopf, level=spec.level, masks=spec.masks), KEY)
        sensors = {KEY: sensor_of(spec.level), **({MASK: CLASSES} if spec.masks and spec.level == "l2a" else {})}
        return ProductsArchive(
            spec,
            found,
            lambda products: {
                key: EopfReader(sensor, {name: one.scenes[key] for name, one in products.items()}, spec.tile)
                for key, sensor in sensors.items()
            },
        )

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the folders of bands in the first product; level 2A goes before level 1C."""
        found = sorted(find_eopf(folder.resolve()), key=lambda path: level_of_eopf(path) != "l2a")
        if not found:
            return None
        return Recognition(1.0, f"the product {found[0].name}", cls(root=folder, level=level_of_eopf(found[0])))
