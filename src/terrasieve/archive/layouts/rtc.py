"""Sentinel-1 RTC: a folder of products of ASF HyP3 or of the Planetary Computer.

See ``archive.products.rtc`` for what is read of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from terrasieve.archive.layout import DataSet, Recognition
from terrasieve.archive.products.granules import find_granules, first_granule
from terrasieve.archive.products.rtc import (
    KEY,
    NAMINGS,
    SCALES,
    Polarisation,
    Scale,
    Service,
    match_name,
    polarisations_of,
    read_rtc,
    scale_of,
    sensor_of,
)
from terrasieve.archive.products.tiled_products import (
    ProductsArchive,
    ProductsSpec,
    none_found,
    read_all,
    tile_readers,
)


class RtcSpec(ProductsSpec):
    """A folder of RTC products; see :class:`ProductsSpec` for how they are cut.

    Attributes:
        service: Who made them.
        polarisations: The bands, which every product must have.
        scale: How they are stored; an archive holds one scale.
    """

    layout: Literal["s1-rtc"] = "s1-rtc"
    service: Service = "hyp3"
    polarisations: tuple[Polarisation, ...] = Field(default=("VV", "VH"), min_length=1)
    scale: Scale = "power"

    data_set = DataSet(
        title="Sentinel-1 RTC",
        sensors="gamma0 or sigma0, linear or dB",
        page="../how-to/products.md",
        versions="of HyP3, Planetary Computer",
    )

    def open(self) -> ProductsArchive:
        """The archive, with the sensor ``s1``; see :class:`ProductsArchive`.

        Raises:
            ArchiveError: There is no product of the service, or none can be used.
        """
        spec = self.model_copy(update={"root": self.root.resolve()})
        naming = NAMINGS[spec.service]
        granules = find_granules(spec.root, naming.look)
        if not granules:
            raise none_found(spec.root, f"RTC product of {spec.service}", f"*{naming.file.format('vv')}")
        spacing = match_name(naming, granules[0]).groupdict().get("spacing")
        sensor = sensor_of(spec.scale, spec.polarisations, float(spacing or naming.spacing))
        found = read_all(granules, partial(read_rtc, naming=naming, sensor=sensor, scale=spec.scale), KEY)
        return ProductsArchive(spec, found, tile_readers({KEY: sensor}, spec.tile))

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the name of the first file of a product that lies near the top."""
        for service, naming in NAMINGS.items():
            match = first_granule(folder, naming.look)
            if match is not None:
                scale: Scale = "decibel" if scale_of(match) == SCALES["d"] else "power"
                spec = cls(root=folder, service=service, polarisations=polarisations_of(match), scale=scale)
                return Recognition(1.0, f"the product {match['name']}", spec)
        return None
