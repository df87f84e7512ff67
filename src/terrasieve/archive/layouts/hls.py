"""Harmonized Landsat Sentinel-2, version 2: a folder of granules as NASA's LP DAAC delivers them.

See ``archive.products.hls`` for what is read of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from terrasieve.archive.layout import DataSet, Recognition
from terrasieve.archive.products.granules import find_granules, first_granule
from terrasieve.archive.products.hls import FMASK, KEY, LOOK, MASK, SENSORS_OF, Version, read_hls
from terrasieve.archive.products.tiled_products import (
    ProductsArchive,
    ProductsSpec,
    none_found,
    read_all,
    tile_readers,
)


class HlsSpec(ProductsSpec):
    """A folder of HLS granules; see :class:`ProductsSpec` for how they are cut.

    Attributes:
        product: ``s30`` of Sentinel-2 or ``l30`` of Landsat; an archive holds one, as their bands differ.
        masks: Whether Fmask is read too, as sensor ``fmask``.
    """

    layout: Literal["hls"] = "hls"
    product: Version = "s30"
    masks: bool = True

    data_set = DataSet(
        title="Harmonized Landsat Sentinel-2",
        sensors="surface reflectance S30 or L30, Fmask",
        page="../how-to/products.md",
        versions="v2",
    )

    def open(self) -> ProductsArchive:
        """The archive, with the sensors ``hls`` and ``fmask``; see :class:`ProductsArchive`.

        Raises:
            ArchiveError: There is no granule of the product, or none can be used.
        """
        spec = self.model_copy(update={"root": self.root.resolve()})
        start = f"hls.{spec.product}."
        granules = [one for one in find_granules(spec.root, LOOK) if one.name.lower().startswith(start)]
        if not granules:
            raise none_found(spec.root, f"HLS granule of {spec.product.upper()}", f"{start.upper()}T*.v2.0.B*.tif")
        found = read_all(granules, partial(read_hls, version=spec.product, masks=spec.masks), KEY)
        masks = {MASK: FMASK} if spec.masks else {}
        return ProductsArchive(spec, found, tile_readers({KEY: SENSORS_OF[spec.product], **masks}, spec.tile))

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the name of the first file of a granule that lies near the top."""
        match = first_granule(folder, LOOK)
        if match is None:
            return None
        product: Version = "s30" if match["version"].lower() == "s30" else "l30"
        return Recognition(1.0, f"the granule {match['name']}", cls(root=folder, product=product))
