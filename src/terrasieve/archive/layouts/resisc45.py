"""NWPU-RESISC45 as it ships: 45 class folders of 700 aerial pictures, RGB JPEG of 256x256 px.

Cheng et al. 2017, "Remote Sensing Image Scene Classification: Benchmark and State of the Art", Proceedings of the IEEE
105(10). The download has no split; that of Neumann et al. 2019, "In-domain representation learning for remote sensing",
comes as ``resisc45-{train,val,test}.txt``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.class_folders import find_class_folders, lacking_classes, list_pictures
from terrasieve.archive.patches.listing import PatchesArchive
from terrasieve.archive.readers.images import PictureReader
from terrasieve.sensors import SENSORS

CLASSES = (
    "airplane",
    "airport",
    "baseball_diamond",
    "basketball_court",
    "beach",
    "bridge",
    "chaparral",
    "church",
    "circular_farmland",
    "cloud",
    "commercial_area",
    "dense_residential",
    "desert",
    "forest",
    "freeway",
    "golf_course",
    "ground_track_field",
    "harbor",
    "industrial_area",
    "intersection",
    "island",
    "lake",
    "meadow",
    "medium_residential",
    "mobile_home_park",
    "mountain",
    "overpass",
    "palace",
    "parking_lot",
    "railway",
    "railway_station",
    "rectangular_farmland",
    "river",
    "roundabout",
    "runway",
    "sea_ice",
    "ship",
    "snowberg",
    "sparse_residential",
    "stadium",
    "storage_tank",
    "tennis_court",
    "terrace",
    "thermal_power_station",
    "wetland",
)
SIZE = (256, 256)
_SUFFIX, _LISTS, _TITLE = ".jpg", "resisc45-", "RESISC45"

_CITATION = """@article{cheng2017remote,
  author  = {Cheng, Gong and Han, Junwei and Lu, Xiaoqiang},
  title   = {Remote Sensing Image Scene Classification: Benchmark and State of the Art},
  journal = {Proceedings of the IEEE},
  year    = {2017},
}"""


class Resisc45Spec(ArchiveSpec):
    """A RESISC45 folder.

    Attributes:
        root: The folder of the class folders, or one up to six levels above it.
    """

    layout: Literal["resisc45"] = "resisc45"
    root: Path

    data_set = DataSet(
        title=_TITLE,
        sensors="aerial RGB",
        labels="class",
        split="torchgeo's lists",
        page="resisc45.md",
        citation=_CITATION,
    )

    def open(self) -> Resisc45Archive:
        """The archive; see :class:`Resisc45Archive`."""
        return Resisc45Archive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the 45 class folders."""
        found = find_class_folders(folder, CLASSES, (_SUFFIX,))
        if not found:
            return None
        return Recognition(1.0, f"RESISC45's 45 class folders in {found[_SUFFIX]}", cls(root=folder))

    @classmethod
    def near_miss(cls, folder: Path) -> str | None:
        """Class folders that are absent."""
        return lacking_classes(folder, CLASSES, _TITLE)


class Resisc45Archive(PatchesArchive):
    """Pictures with labels; a sample's id is its file's stem, and the one sensor has the key ``rgb``.

    ``split`` is that of the lists where they lie in the root, beside it or below it, else null.

    Args:
        spec: Folder of the data set.

    Raises:
        ArchiveError: The 45 class folders are not there, or the lists contradict each other.
    """

    def __init__(self, spec: Resisc45Spec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        folder, listing = list_pictures(spec.root, CLASSES, _SUFFIX, _LISTS, "rgb", _TITLE)
        super().__init__(spec, listing, {"rgb": PictureReader(folder, SENSORS["rgb8"], SIZE)})
