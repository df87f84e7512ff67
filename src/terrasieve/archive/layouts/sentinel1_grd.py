"""Sentinel-1 IW GRD: a folder of `.SAFE` products, unpacked or zipped, as the Copernicus services or ASF deliver them.

See ``archive.products.grd`` for what is read of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from terrasieve.archive.layout import DataSet, Recognition
from terrasieve.archive.products.grd import KEY, NAME, GrdReader, Scale, read_grd
from terrasieve.archive.products.product_files import find_products, first_product, product_name
from terrasieve.archive.products.rtc import Polarisation, polarisations_of
from terrasieve.archive.products.tiled_products import ProductsArchive, ProductsSpec, none_found, read_all
from terrasieve.sensors import SENSORS, Sensor


class Sentinel1GrdSpec(ProductsSpec):
    """A folder of Sentinel-1 GRD products; see :class:`ProductsSpec` for how they are cut.

    Attributes:
        polarisations: The bands, which every product must have.
        scale: Unit of sigma0: decibels, or linear.
        noise: Whether to take the thermal noise out.
    """

    layout: Literal["s1-grd"] = "s1-grd"
    polarisations: tuple[Polarisation, ...] = Field(default=("VV", "VH"), min_length=1)
    scale: Scale = "db"
    noise: Literal["subtract", "keep"] = "subtract"

    data_set = DataSet(
        title="Sentinel-1 IW GRD products",
        sensors="sigma0 in dB, radar geometry",
        page="../how-to/products.md",
        versions=".SAFE, .zip",
    )

    def open(self) -> ProductsArchive:
        """The archive, with the sensor ``s1``; see :class:`ProductsArchive`.

        Raises:
            ArchiveError: There is no product, or none can be used.
        """
        spec = self.model_copy(update={"root": self.root.resolve()})
        paths = list(find_products(spec.root, _is_grd))
        if not paths:
            raise none_found(spec.root, "Sentinel-1 GRD product of the IW mode", "S1?_IW_GRD?_1S*.SAFE")
        found = read_all(paths, partial(read_grd, polarisations=spec.polarisations, tile=spec.tile), KEY)
        sensor = _sensor(spec)
        return ProductsArchive(
            spec,
            found,
            lambda products: {
                KEY: GrdReader(
                    sensor,
                    {name: one.scenes[KEY] for name, one in products.items()},
                    spec.tile,
                    spec.scale,
                    spec.noise == "subtract",
                )
            },
        )

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the name of the first product that lies near the top."""
        found = first_product(folder, _is_grd)
        match = None if found is None else NAME.fullmatch(product_name(found))
        if found is None or match is None:
            return None
        spec = cls(root=folder, polarisations=polarisations_of(match))
        return Recognition(1.0, f"the product {found.name}", spec)


def _is_grd(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def _sensor(spec: Sentinel1GrdSpec) -> Sensor:
    like = SENSORS["s1" if spec.scale == "db" else "s1-linear"]
    bands = tuple(like.bands[0].model_copy(update={"name": name, "common_name": name}) for name in spec.polarisations)
    return like.model_copy(update={"bands": bands})
