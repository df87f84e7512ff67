"""UC Merced Land Use as it ships: 21 class folders of 100 aerial pictures, RGB TIFF of about 256x256 px at 0.3 m.

Yang and Newsam 2010, "Bag-of-Visual-Words and Spatial Extensions for Land-Use Classification", ACM SIGSPATIAL. 44 of
the pictures are of another size. The download has no split; that of Neumann et al. 2019, "In-domain representation
learning for remote sensing", comes as ``uc_merced-{train,val,test}.txt``.
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
    "agricultural",
    "airplane",
    "baseballdiamond",
    "beach",
    "buildings",
    "chaparral",
    "denseresidential",
    "forest",
    "freeway",
    "golfcourse",
    "harbor",
    "intersection",
    "mediumresidential",
    "mobilehomepark",
    "overpass",
    "parkinglot",
    "river",
    "runway",
    "sparseresidential",
    "storagetanks",
    "tenniscourt",
)
_SUFFIX, _LISTS, _TITLE = ".tif", "uc_merced-", "UC Merced"

_CITATION = """@inproceedings{yang2010bag,
  author    = {Yang, Yi and Newsam, Shawn},
  title     = {Bag-of-Visual-Words and Spatial Extensions for Land-Use Classification},
  booktitle = {ACM SIGSPATIAL},
  year      = {2010},
}"""


class UcMercedSpec(ArchiveSpec):
    """A UC Merced folder.

    Attributes:
        root: The folder of the class folders, or one up to six levels above it.
    """

    layout: Literal["uc-merced"] = "uc-merced"
    root: Path

    data_set = DataSet(
        title=_TITLE,
        sensors="aerial RGB",
        labels="class",
        split="torchgeo's lists",
        page="uc-merced.md",
        citation=_CITATION,
    )

    def open(self) -> UcMercedArchive:
        """The archive; see :class:`UcMercedArchive`."""
        return UcMercedArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the 21 class folders."""
        found = find_class_folders(folder, CLASSES, (_SUFFIX,))
        if not found:
            return None
        return Recognition(1.0, f"UC Merced's 21 class folders in {found[_SUFFIX]}", cls(root=folder))

    @classmethod
    def near_miss(cls, folder: Path) -> str | None:
        """Class folders that are absent."""
        return lacking_classes(folder, CLASSES, _TITLE)


class UcMercedArchive(PatchesArchive):
    """Pictures with labels, each of its own size; a sample's id is its file's stem, the one sensor's key ``rgb``.

    ``split`` is that of the lists where they lie in the root, beside it or below it, else null. A packed store
    takes pictures of one size, that of the first.

    Args:
        spec: Folder of the data set.

    Raises:
        ArchiveError: The 21 class folders are not there, or the lists contradict each other.
    """

    def __init__(self, spec: UcMercedSpec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        folder, listing = list_pictures(spec.root, CLASSES, _SUFFIX, _LISTS, "rgb", _TITLE)
        super().__init__(spec, listing, {"rgb": PictureReader(folder, SENSORS["rgb8"])})
