"""Landsat Collection 2 Level 2: a folder of scenes as USGS delivers them, each unpacked from its `.tar`.

See ``archive.products.landsat`` for what is read of them.
"""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Literal

from terrasieve.archive.folders import list_files
from terrasieve.archive.layout import DataSet, Recognition
from terrasieve.archive.products.granules import find_granules, first_granule
from terrasieve.archive.products.landsat import (
    KEY,
    LOOK,
    MASK,
    QUALITY,
    SENSORS_OF,
    Instrument,
    instrument_of,
    read_landsat,
)
from terrasieve.archive.products.tiled_products import (
    ProductsArchive,
    ProductsSpec,
    none_found,
    read_all,
    tile_readers,
)


class LandsatSpec(ProductsSpec):
    """A folder of Landsat scenes; see :class:`ProductsSpec` for how they are cut.

    Attributes:
        instrument: ``oli`` of Landsat 8 and 9, or ``tm`` with the bands of TM and ETM+ of Landsat 4, 5 and 7.
        masks: Whether ``QA_PIXEL`` is read too, as sensor ``qa``.
    """

    layout: Literal["landsat-c2l2"] = "landsat-c2l2"
    instrument: Instrument = "oli"
    masks: bool = True

    data_set = DataSet(
        title="Landsat Collection 2 Level 2",
        sensors="surface reflectance of OLI, or of TM and ETM+; QA_PIXEL",
        page="../how-to/products.md",
    )

    def open(self) -> ProductsArchive:
        """The archive, with the sensors ``landsat`` and ``qa``; see :class:`ProductsArchive`.

        Raises:
            ArchiveError: There is no scene of the instrument, or none can be used.
        """
        spec = self.model_copy(update={"root": self.root.resolve()})
        granules = [one for one in find_granules(spec.root, LOOK) if instrument_of(one.name) == spec.instrument]
        if not granules:
            raise none_found(spec.root, f"Landsat scene of {spec.instrument.upper()}", "L???_L2S?_*_02_*_SR_B*.TIF")
        found = read_all(granules, partial(read_landsat, instrument=spec.instrument, masks=spec.masks), KEY)
        masks = {MASK: QUALITY} if spec.masks else {}
        return ProductsArchive(spec, found, tile_readers({KEY: SENSORS_OF[spec.instrument], **masks}, spec.tile))

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the name of the first file of a scene that lies near the top."""
        match = first_granule(folder, LOOK)
        if match is None:
            return None
        return Recognition(1.0, f"the scene {match['name']}", cls(root=folder, instrument=instrument_of(match["name"])))

    @classmethod
    def near_miss(cls, folder: Path) -> str | None:
        """A scene that is still packed."""
        packed = next((path for path in list_files(folder, ".tar") if LOOK.fullmatch(f"{path.stem}_x")), None)
        if packed is None:
            return None
        return f"{packed} is a Landsat scene; unpack it: {shlex.join(['tar', '-xf', str(packed), '-C', str(folder)])}"
