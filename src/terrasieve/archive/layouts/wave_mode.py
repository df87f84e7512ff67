"""Sentinel-1 Wave Mode: a folder of `.SAFE` products of level 1 SLC, as the Copernicus services deliver them.

ESA, "Sentinel-1 Product Specification", S1-RS-MDA-52-7441. Each product holds some dozens of vignettes of 20 by 20 km,
taken by turns at two incidences (WV1 near 23, WV2 near 36.5 degrees), a measurement and its annotations each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from terrasieve.archive.folders import subfolders
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.quality.limits import Problem, Rejection
from terrasieve.archive.wave_mode.reader import COLUMNS, VignetteReader
from terrasieve.archive.wave_mode.safe import PRODUCT, Vignette, find_products, is_product, list_vignettes
from terrasieve.archive.wave_mode.vignette import Averaging, Detrending, NoiseHandling
from terrasieve.console import track_many
from terrasieve.errors import ArchiveError
from terrasieve.sensors import SENSORS, Sensor

KEY = "s1"
_SEARCHED = 64
"""Folders that recognition looks into."""


class WaveModeSpec(ArchiveSpec):
    """A folder of Wave Mode products.

    Attributes:
        root: A folder with products at any depth, or one product.
        polarisation: Which vignettes; nearly all are VV.
        size: Rows and columns of a sample, from the vignette's middle; as many as fit when None. The default of 384
            leaves a margin to the nominal 20 km (400 cells of 50 m), as vignettes differ by a few hundred metres.
        spacing: Length of a cell's sides in metres.
        noise: Whether to take the thermal noise out. The default does: over calm sea, above all at WV2, it is a large
            part of what is measured. See ``vignette.read_vignette`` for what becomes of values below it.
        detrend: Whether to divide by what CMOD5.N gives for 10 m/s at the same incidence. The default does, so that a
            model does not learn the look angle; ``none`` gives sigma0 itself.
    """

    layout: Literal["wave-mode"] = "wave-mode"
    root: Path
    polarisation: Literal["vv", "hh"] = "vv"
    size: int | None = Field(default=384, ge=1)
    spacing: float = Field(default=50.0, ge=10)
    noise: NoiseHandling = "subtract"
    detrend: Detrending = "cmod5n"

    data_set = DataSet(
        title="Sentinel-1 Wave Mode",
        sensors="Sentinel-1 Wave Mode products",
        labels="[collocated](../how-to/collocate.md) numbers",
        page="wave-mode.md",
    )

    def open(self) -> WaveModeArchive:
        """The archive; see :class:`WaveModeArchive`."""
        return WaveModeArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the name of the first product that lies near the top."""
        if is_product(folder.name):
            return Recognition(1.0, f"the product {folder.name}", cls(root=folder))
        level = [folder]
        searched = 0
        while level and searched < _SEARCHED:
            below: list[Path] = []
            for one in islice(level, _SEARCHED - searched):
                names = subfolders(one)
                product = next((name for name in names if is_product(name)), None)
                if product is not None:
                    return Recognition(1.0, f"the product {product}", cls(root=folder))
                below += [one / name for name in names[:_SEARCHED]]
                searched += 1
            level = below
        return None


class WaveModeArchive(PatchesArchive):
    """Vignettes on cells of 50 m, one band, linear, float32; a sample's id is its measurement's name.

    The table has the columns ``COLUMNS`` of the reader beside ``product``, from annotations that are read when it is
    first asked for. Vignettes of the other polarisation are counted under ``other_polarisation`` in ``source``.

    Args:
        spec: Folder of the products, which vignettes to show, and how they are averaged and corrected.

    Raises:
        ArchiveError: There is no product, no whole vignette, or a vignette is there twice.
    """

    def __init__(self, spec: WaveModeSpec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        products = list(find_products(spec.root))
        if not products:
            raise ArchiveError(
                f"{spec.root} holds no Wave Mode product, a folder {PRODUCT}; unzip the products, or name their folder."
            )
        found = [one for product in track_many(products, "Products") for one in list_vignettes(product)]
        wanted = [one for one in found if one.polarisation in ("", spec.polarisation)]
        kept = [one for one in wanted if one.polarisation and not one.absent]
        _check_once(kept)
        super().__init__(
            spec,
            Listing(
                ids=[one.name for one in kept],
                addresses={KEY: [one.measurement.relative_to(spec.root).as_posix() for one in kept]},
                columns={"product": [one.measurement.parent.parent.name for one in kept]},
                rejected=tuple(_rejection(one) for one in wanted if one.absent or not one.polarisation),
                facts={"products": len(products), "other_polarisation": len(found) - len(wanted)},
            ),
            {
                KEY: VignetteReader(
                    spec.root, _sensor(spec), Averaging(spec.spacing, spec.size, spec.noise, spec.detrend)
                )
            },
        )

    def __getstate__(self) -> dict[str, Any]:
        # A copy for another process leaves the annotated table out, which is large and can be read again.
        return {name: value for name, value in super().__getstate__().items() if name != "_annotated"}

    def table(self) -> pa.Table:
        """See ``Archive.table``; the first call reads every annotation."""
        return self._annotated

    @cached_property
    def _annotated(self) -> pa.Table:
        reader = self._readers[KEY]
        assert isinstance(reader, VignetteReader)
        addresses = self._listing.addresses[KEY]
        rows = [reader.facts(one) for one in track_many(addresses, "Annotations")]
        table = super().table()
        for name, kind in COLUMNS.items():
            values = pa.array([row[name] for row in rows], kind)
            position = table.schema.get_field_index(name)
            table = table.append_column(name, values) if position < 0 else table.set_column(position, name, values)
        return table


def _sensor(spec: WaveModeSpec) -> Sensor:
    declared = SENSORS["s1-wv"]
    name = spec.polarisation.upper()
    band = declared.bands[0].model_copy(update={"name": name, "common_name": name, "gsd": spec.spacing})
    return declared.model_copy(update={"bands": (band,)})


def _check_once(vignettes: Sequence[Vignette]) -> None:
    # The name without its suffix states time, orbit and number; two products of one vignette differ in their folder.
    counted = Counter(one.name for one in vignettes)
    twice = next((name for name, count in counted.items() if count > 1), None)
    if twice is not None:
        where = " and ".join(str(one.measurement.parent.parent) for one in vignettes if one.name == twice)
        raise ArchiveError(f"{twice} is in {where}: one was processed again, or copied. Keep one of the products.")


def _rejection(vignette: Vignette) -> Rejection:
    if not vignette.polarisation:
        reason = f"{vignette.measurement} is not named as a Wave Mode measurement is; remove it."
        return Rejection(vignette.name, KEY, str(vignette.measurement), reason, Problem.UNREADABLE)
    lacking = ", ".join(str(path) for path in vignette.absent)
    reason = f"{vignette.name} lacks {lacking}. Fetch the product again."
    return Rejection(vignette.name, KEY, str(vignette.absent[0]), reason, Problem.PARTNER)
