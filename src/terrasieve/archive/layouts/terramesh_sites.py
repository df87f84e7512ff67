"""Sites like those of TerraMesh, unpacked: a folder for each product, with a GeoTIFF for each site.

Blumenstiel et al. 2025, "TerraMesh: A Planetary Mosaic of Multimodal Earth Observation Data", CVPR Workshops. The data
set itself ships as tar files of Zarr; this is the form that its examples, and exports of it, come in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from terrasieve.archive.folders import has_files, list_files
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.quality.limits import FlawError, Problem, Rejection
from terrasieve.archive.readers.geotiff import Header, read_header
from terrasieve.archive.readers.patch_reader import StackReader
from terrasieve.archive.scenes.matching import pixel_offset
from terrasieve.errors import ArchiveError
from terrasieve.sensors import SENSORS, Sensor

SensorKey = Literal["s1", "s1-grd", "s2-l1c", "s2-l2a", "s2-rgb", "lulc", "dem", "ndvi"]
PRODUCTS: Mapping[SensorKey, tuple[str, Sensor]] = {
    "s1": ("S1RTC", SENSORS["s1"]),
    "s1-grd": ("S1GRD", SENSORS["s1"]),
    "s2-l1c": ("S2L1C", SENSORS["s2-l1c"]),
    "s2-l2a": ("S2L2A", SENSORS["s2-l2a"]),
    "s2-rgb": ("S2RGB", SENSORS["s2-rgb8"]),
    "lulc": ("LULC", SENSORS["land-cover"]),
    "dem": ("DEM", SENSORS["dem"]),
    "ndvi": ("NDVI", SENSORS["ndvi"]),
}
"""Folder and sensor by key. Files that do not describe their bands are taken to have them in this order."""

LULC_CLASSES = (
    "no data",
    "water",
    "trees",
    "flooded vegetation",
    "crops",
    "built area",
    "bare ground",
    "snow and ice",
    "clouds",
    "rangeland",
)
"""Classes of ``LULC`` by value: those of Esri's land cover of 10 m, numbered without gaps."""

_ENOUGH = 2
"""Folders of products by which the layout is recognised."""

_CONFIDENCE = 0.9

_CITATION = """@inproceedings{blumenstiel2025terramesh,
  author    = {Blumenstiel, Benedikt and others},
  title     = {{TerraMesh}: A Planetary Mosaic of Multimodal {Earth} Observation Data},
  booktitle = {CVPR Workshops},
  year      = {2025},
}"""


class TerraMeshSitesSpec(ArchiveSpec):
    """A folder of products.

    Attributes:
        root: The folder that holds ``S1RTC``, ``S2L2A`` and others.
        sensors: Which sensors to show; a site must have all of them. Those that are there when None.
    """

    layout: Literal["terramesh-sites"] = "terramesh-sites"
    root: Path
    sensors: tuple[SensorKey, ...] | None = None

    data_set = DataSet(
        title="Sites by product, like TerraMesh",
        sensors="Sentinel-1, Sentinel-2 L1C and L2A, land cover, heights",
        labels="map",
        page="terramesh.md",
        citation=_CITATION,
    )

    def open(self) -> TerraMeshSitesArchive:
        """The archive; see :class:`TerraMeshSitesArchive`."""
        return TerraMeshSitesArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the names of two folders of products at least."""
        found = products_there(folder)
        if len(found) < _ENOUGH:
            return None
        names = ", ".join(PRODUCTS[key][0] for key in found)
        return Recognition(_CONFIDENCE, f"folders of products {names} with GeoTIFF", cls(root=folder))


class TerraMeshSitesArchive(PatchesArchive):
    """Whole sites, all products on one grid; a sample's id is the name of its files.

    Sentinel-1 is in decibels, Sentinel-2 reflectance times 10,000 as int16, ``dem`` in metres. Level 1C of processing
    baseline 04.00 carries its offset of +1000, as it was delivered. A site whose products lie on different grids is
    refused when it is read.

    Args:
        spec: Folder of the products, and which of them to show.

    Raises:
        ArchiveError: No product is there, or no site has all of them.
    """

    def __init__(self, spec: TerraMeshSitesSpec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        wanted = spec.sensors or products_there(spec.root)
        if not wanted:
            folders = ", ".join(folder for folder, _ in PRODUCTS.values())
            raise ArchiveError(f"{spec.root} holds none of the folders {folders} with .tif files in it.")
        first = spec.root / PRODUCTS[wanted[0]][0]
        super().__init__(
            spec,
            _list(spec.root, wanted),
            {key: _SiteReader(spec.root / PRODUCTS[key][0], PRODUCTS[key][1], first) for key in wanted},
        )


class _SiteReader(StackReader):
    """Files of one product, which have to lie on the grid of another's."""

    def __init__(self, root: Path, sensor: Sensor, other: Path) -> None:
        super().__init__(root, sensor)
        self._other = other

    def _checked(self, address: str) -> tuple[int, int]:
        if address not in self._shapes:
            ours, theirs = self.header(address), read_header(self._other / address)
            # The same size at the same corner: a shift of whole pixels would pair other ground.
            sizes = [(one.height, one.width) for one in (ours, theirs)]
            if sizes[0] != sizes[1] or pixel_offset(theirs, ours) != (0, 0):
                raise FlawError(
                    Problem.GRID,
                    f"{_grid(ours)} is not on the grid of {_grid(theirs)}; resample one to the other, or set sensors "
                    "to leave one out.",
                )
        return super()._checked(address)


def _grid(header: Header) -> str:
    corner = tuple(round(value, 3) for value in header.transform)
    return f"{header.path} ({header.height}x{header.width} px in {header.crs} at {corner})"


def products_there(root: Path) -> tuple[SensorKey, ...]:
    """Keys of the products that have a folder with GeoTIFF in it."""
    return tuple(key for key, (folder, _) in PRODUCTS.items() if has_files(root / folder, ".tif"))


def _list(root: Path, wanted: Sequence[SensorKey]) -> Listing:
    files = {key: {path.name for path in list_files(root / PRODUCTS[key][0], ".tif")} for key in wanted}
    names = sorted(set().union(*files.values()))
    complete = [name for name in names if all(name in found for found in files.values())]
    lost = []
    for name in sorted(set(names) - set(complete)):
        missing = [key for key in wanted if name not in files[key]]
        folders = " and ".join(PRODUCTS[key][0] for key in missing)
        reason = f"{root} has no {name} in {folders}; fetch it, or set sensors to those that all sites have."
        lost.append(Rejection(Path(name).stem, missing[0], "", reason, Problem.PARTNER))
    return Listing(
        ids=[Path(name).stem for name in complete],
        addresses=dict.fromkeys(wanted, complete),
        rejected=tuple(lost),
        facts={"classes": list(LULC_CLASSES)} if "lulc" in wanted else {},
    )
