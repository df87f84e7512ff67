"""EuroSAT as it ships: ten class folders of 64x64 patches, RGB JPEG, 13-band GeoTIFF, or Sentinel-1.

Helber et al. 2019, "EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover
Classification", JSTARS 12(7). In the 13-band files B8A comes last, not after B08. EuroSAT-SAR (Wang et al. 2023) has
the same names with VV and VH.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from terrasieve.archive.folders import DEPTH, list_files
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.class_folders import (
    find_class_folders,
    lacking_classes,
    likely_folders,
    list_class_folders,
)
from terrasieve.archive.patches.listing import Listing, PatchesArchive, read_split_lists, split_column
from terrasieve.archive.readers.geotiff import read_header
from terrasieve.archive.readers.images import PictureReader
from terrasieve.archive.readers.patch_reader import PatchReader, StackReader
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.sensors import SENSORS, Sensor

CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
SIZE = (64, 64)
MS_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
"""Band order of the 13-band files."""

Product = Literal["rgb", "ms", "sar"]
_SENSORS: Mapping[Product, tuple[str, Sensor]] = {
    "rgb": ("s2", SENSORS["s2-rgb8"]),
    "ms": ("s2", SENSORS["s2-l1c"].select(*MS_BANDS)),
    "sar": ("s1", SENSORS["s1"]),
}
_SPLITS = ("train", "val", "test")
_SPLIT_COLUMNS = {"split": ("eurosat-", "eurosat-100-"), "split_spatial": ("eurosat-spatial-",)}
"""By column, what the names of its lists begin with; EuroSAT-100's hundred patches have lists of their own."""

_CITATION = """@article{helber2019eurosat,
  author  = {Helber, Patrick and Bischke, Benjamin and Dengel, Andreas and Borth, Damian},
  title   = {{EuroSAT}: A Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover Classification},
  journal = {IEEE Journal of Selected Topics in Applied Earth Observations and Remote Sensing},
  year    = {2019},
}"""


class EuroSatSpec(ArchiveSpec):
    """A EuroSAT folder.

    Attributes:
        root: The folder of the class folders, or one up to six levels above it.
        product: ``rgb`` (JPEG), ``ms`` (13 bands) or ``sar`` (VV, VH); what is there when None.
    """

    layout: Literal["eurosat"] = "eurosat"
    root: Path
    product: Product | None = None

    data_set = DataSet(
        title="EuroSAT",
        sensors="Sentinel-2 or Sentinel-1",
        labels="class",
        split="random and spatial",
        page="eurosat.md",
        versions="RGB, MS, SAR",
        citation=_CITATION,
    )

    def open(self) -> EuroSatArchive:
        """The archive; see :class:`EuroSatArchive`."""
        return EuroSatArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the ten class folders."""
        found = find_class_folders(folder, CLASSES, (".jpg", ".tif"))
        if not found:
            return None
        return Recognition(1.0, f"EuroSAT's ten class folders in {next(iter(found.values()))}", cls(root=folder))

    @classmethod
    def near_miss(cls, folder: Path) -> str | None:
        """Class folders that are absent."""
        return lacking_classes(folder, CLASSES, "EuroSAT")


class EuroSatArchive(PatchesArchive):
    """EuroSAT patches with labels and published splits; a sample's id is its file's stem.

    The one sensor has the key ``s2`` (``s2-rgb8`` for JPEG, the bands of ``s2-l1c`` in file order for GeoTIFF) or
    ``s1``. The column ``split_spatial`` is there where the spatial lists are.

    Args:
        spec: Folder of the data set, and which of its products to show.

    Raises:
        ArchiveError: The ten class folders are not there, hold both products, or a split file contradicts another.
    """

    def __init__(self, spec: EuroSatSpec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        folder, self.product = _choose(spec)
        key, sensor = _SENSORS[self.product]
        found = list_class_folders(folder, CLASSES, _suffix(self.product))
        stems = [Path(address).stem for _, address in found]
        places = [*likely_folders(spec.root, CLASSES), spec.root.parent]
        lists = {
            column: next(filter(None, (read_split_lists(places, _names(prefix)) for prefix in prefixes)), {})
            for column, prefixes in _SPLIT_COLUMNS.items()
        }
        reader: PatchReader = (
            PictureReader(folder, sensor, SIZE) if self.product == "rgb" else StackReader(folder, sensor, SIZE)
        )
        listed = {stem for split_of in lists.values() for stem in split_of}
        super().__init__(
            spec,
            Listing(
                ids=stems,
                addresses={key: [address for _, address in found]},
                columns={
                    "label": [label for label, _ in found],
                    **{column: split_column(stems, split_of) for column, split_of in lists.items() if split_of},
                },
                facts={"product": self.product, "listed_but_absent": len(listed - set(stems))},
            ),
            {key: reader},
        )


def find_eurosat(root: Path) -> dict[Product, Path]:
    """The folders below a root (or the root) that hold the ten class folders, by what lies in them.

    Args:
        root: Folder to search, down to :data:`~terrasieve.archive.patches.class_folders.DEPTH` levels below it.

    Raises:
        ArchiveError: Two folders hold the same kind of file.
    """
    found = find_class_folders(root, CLASSES, (".jpg", ".tif"))
    products: dict[Product, Path] = {"rgb": found[".jpg"]} if ".jpg" in found else {}
    # One entry for both: find_class_folders refuses two folders with files of one suffix.
    if ".tif" in found:
        products["sar" if _has_two_bands(found[".tif"]) else "ms"] = found[".tif"]
    return products


def _choose(spec: EuroSatSpec) -> tuple[Path, Product]:
    found = find_eurosat(spec.root) if spec.root.is_dir() else {}
    if spec.product is None and len(found) > 1:
        raise ArchiveError(f"{spec.root} holds EuroSAT as {' and as '.join(found)}; set product to one of them.")
    product = spec.product or next(iter(found), None)
    if product is None or product not in found:
        kind = f" with {_suffix(product)} files of it" if product else ""
        near = lacking_classes(spec.root, CLASSES, "EuroSAT") if spec.root.is_dir() else None
        raise ArchiveError(
            near
            or f"{spec.root} does not hold EuroSAT's ten class folders ({CLASSES[0]} to {CLASSES[-1]}){kind} "
            f"within {DEPTH} levels; name the folder that the download was unpacked to."
        )
    return found[product], product


def _has_two_bands(folder: Path) -> bool:
    # Files of Sentinel-1 and of Sentinel-2 have the same names; their number of bands tells them apart.
    first = next(path for label in CLASSES for path in list_files(folder / label, ".tif"))
    try:
        return read_header(first).count == len(SENSORS["s1"].bands)
    except SampleError:
        return False


def _suffix(product: Product) -> str:
    return ".jpg" if product == "rgb" else ".tif"


def _names(prefix: str) -> dict[str, str]:
    return {split: f"{prefix}{split}.txt" for split in _SPLITS}
