"""DFC2020 as it ships: Sentinel-1 and Sentinel-2 patches of 256x256 px with a land-cover map of 10 m.

Yokoya et al. 2020, "2020 Data Fusion Contest", IEEE GRSM 8(1): 986 patches for validation and 5,128 for testing, none
for training, for which the contest gave SEN12MS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.folders import has_files, list_files
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.land_cover import CLASSES_10, MajorityLabels
from terrasieve.archive.patches.listing import PatchesArchive
from terrasieve.archive.patches.sensor_folders import list_parts, parts_there, sample_name
from terrasieve.archive.protocol import Window
from terrasieve.archive.readers.patch_reader import PatchReader, StackReader
from terrasieve.errors import ArchiveError
from terrasieve.sensors import SENSORS, Band, Sensor

SIZE = (256, 256)
NO_LABEL = 0
LEFT_OUT = ("Savanna", "Snow/Ice")
"""What the eight-class subset leaves out (Jain et al. 2022, section IV-A); its "woodland" is ``Barren`` here."""

MAP = Sensor(
    name="dfc2020-land-cover",
    kind="map",
    bands=(Band(name="class", gsd=10, unit="class", valid_range=(1, len(CLASSES_10))),),
    nodata=NO_LABEL,
)
"""The simplified IGBP classes, 1 to 10; 0 where there is none."""

Part = Literal["val", "test"]
_REGIONS: Mapping[str, Part] = {"ROIs0000_validation": "val", "ROIs0000_test": "test"}
_EXCHANGED: Mapping[Part, str] = {"val": "test", "test": "train"}

SensorKey = Literal["s2", "s1", "dfc"]
_SENSORS: Mapping[SensorKey, Sensor] = {"s2": SENSORS["s2-l1c"], "s1": SENSORS["s1"], "dfc": MAP}

_CITATION = r"""@article{yokoya2020data,
  author  = {Yokoya, Naoto and Ghamisi, Pedram and H{\"a}nsch, Ronny and Schmitt, Michael},
  title   = {2020 {IEEE} {GRSS} Data Fusion Contest: Global Land Cover Mapping With Weak Supervision},
  journal = {IEEE Geoscience and Remote Sensing Magazine},
  year    = {2020},
}"""


class Dfc2020Spec(ArchiveSpec):
    """A DFC2020 folder.

    Attributes:
        root: The folder that holds ``ROIs0000_validation`` and ``ROIs0000_test``, or one of them.
        sensors: Which sensors to show; a sample must have all of them. Those that are there when None.
        classes: 10, or 8: without savanna and snow/ice, whose pixels then have no label, as RS-BYOL was scored.
            Indexing and packing set a patch aside whose share of unlabelled pixels passes ``--max-nodata``.
        split: ``published`` is ``val`` and ``test`` as the folders are called; there is no train. ``exchanged`` learns
            from the larger folder: ``ROIs0000_test`` is ``train`` and ``ROIs0000_validation`` is ``test``, as in CROMA
            (Fuller et al. 2023) and GFM-Bench.
    """

    layout: Literal["dfc2020"] = "dfc2020"
    root: Path
    sensors: tuple[SensorKey, ...] | None = None
    classes: Literal[10, 8] = 10
    split: Literal["published", "exchanged"] = "published"

    data_set = DataSet(
        title="DFC2020",
        sensors="Sentinel-1, Sentinel-2 L1C, land cover",
        labels="class, map",
        split="official",
        page="dfc2020.md",
        citation=_CITATION,
    )

    def open(self) -> Dfc2020Archive:
        """The archive; see :class:`Dfc2020Archive`."""
        return Dfc2020Archive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By its two folders."""
        regions = [name for name in _REGIONS if parts_there(folder, [name], tuple(_SENSORS))]
        if not regions:
            return None
        return Recognition(1.0, f"DFC2020's {' and '.join(regions)}", cls(root=folder))

    @classmethod
    def near_miss(cls, folder: Path) -> str | None:
        """Copernicus-Bench's copy, which has one folder a sensor instead of one a region."""
        parts = [name for name in ("s2", "s1", "dfc") if has_files(folder / name, ".tif")]
        named = [path for name in parts for path in list_files(folder / name, ".tif")[:1]]
        if not named or not all(sample_name(path.stem) for path in named):
            return None
        sensors = {"s2": "s2-l1c", "s1": "s1", "dfc": "land-cover"}
        yaml = ", ".join(f"{name}: {{folder: {name}, sensor: {sensors[name]}, drop: _{name}}}" for name in parts)
        return (
            f"It has DFC2020's patches in the folders {', '.join(parts)}, as Copernicus-Bench ships them, and not in "
            f"those of its regions ({', '.join(_REGIONS)}); describe it in a YAML file: {{layout: scenes, "
            f"root: {folder}, tile: {SIZE[0]}, sensors: {{{yaml}}}}}."
        )


class Dfc2020Archive(PatchesArchive):
    """Patches of 256x256 px at 10 m; ``s2`` is L1C with B8A after B08, ``s1`` decibels, ``dfc`` the classes 1 to 10.

    A sample's id is its files' name without the sensor, such as ``ROIs0000_test_0_p12``. ``label`` is the class that
    most of the map belongs to, read when the table is first asked for. To segment with the published split, which has
    no train, hold each part out in turn with ``--group split``, or open with ``split: exchanged``.

    Args:
        spec: Folder of the data set, which sensors to show, and how classes and parts are counted.

    Raises:
        ArchiveError: Neither folder is there, or no sample has all sensors.
    """

    def __init__(self, spec: Dfc2020Spec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        wanted = spec.sensors or parts_there(spec.root, tuple(_REGIONS), tuple(_SENSORS))
        if not wanted:
            raise ArchiveError(
                spec.near_miss(spec.root)
                or f"{spec.root} holds neither of {', '.join(_REGIONS)} with folders like s2_0; name the one that does."
            )
        listing = list_parts(spec.root, tuple(_REGIONS), wanted)
        # Classes stay numbered 1 to 10 in either case, so that maps of both can be compared.
        left_out = LEFT_OUT if spec.classes == len(CLASSES_10) - len(LEFT_OUT) else ()
        readers: dict[str, PatchReader] = {
            key: StackReader(spec.root, _SENSORS[key], SIZE) for key in _SENSORS if key in wanted
        }
        if "dfc" in readers and left_out:
            values = [CLASSES_10.index(name) + 1 for name in left_out]
            readers["dfc"] = _BlankingReader(spec.root, MAP, SIZE, values)
        parts = [next(part for one, part in _REGIONS.items() if name.startswith(f"{one}_")) for name in listing.ids]
        exchanged = spec.split == "exchanged"
        columns: dict[str, Any] = {"split": [_EXCHANGED[part] if exchanged else part for part in parts]}
        if "dfc" in readers:
            numbers = {number: number for number in range(1, len(CLASSES_10) + 1)}
            columns["label"] = MajorityLabels(readers["dfc"], listing.addresses["dfc"], numbers)
        facts = {"classes": ["no label", *CLASSES_10], "left_out": list(left_out)}
        super().__init__(spec, replace(listing, columns=columns, facts=facts), readers)


class _BlankingReader(StackReader):
    """A map whose pixels of some classes have no label."""

    def __init__(self, root: Path, sensor: Sensor, size: tuple[int, int], values: Sequence[int]) -> None:
        super().__init__(root, sensor, size)
        self._values = list(values)

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        pixels = super().read(address, positions, window)
        pixels[np.isin(pixels, self._values)] = NO_LABEL
        return pixels
