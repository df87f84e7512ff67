"""EuroSAT as it ships: ten class folders of 64x64 patches, RGB JPEG or 13-band GeoTIFF.

Helber et al. 2019, "EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover
Classification", JSTARS 12(7). In the 13-band files B8A comes last, not after B08.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from terrasieve.archive.checked import check_bands
from terrasieve.archive.footprints import corners, outlines
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality import FlawError, Problem
from terrasieve.archive.raster import Header, cut, read_header, read_headers, read_window
from terrasieve.errors import ArchiveError, BandError, nearest
from terrasieve.schema import Spec
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
SIZE = 64
MS_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
"""Band order of the 13-band files."""

Product = Literal["rgb", "ms"]
_SUFFIXES: Mapping[Product, str] = {"rgb": ".jpg", "ms": ".tif"}
_SENSOR = "s2"
_SEARCH_DEPTH = 3
_SPLITS = ("train", "val", "test")
_SPLIT_COLUMNS = {"split": "eurosat-", "split_spatial": "eurosat-spatial-"}


class EuroSatSpec(Spec):
    """A EuroSAT folder.

    Attributes:
        root: The folder of the class folders, or one up to three levels above it.
        product: ``rgb`` (JPEG) or ``ms`` (GeoTIFF); what is there when None.
    """

    layout: Literal["eurosat"] = "eurosat"
    root: Path
    product: Product | None = None


class EuroSatArchive:
    """EuroSAT patches with labels and published splits; a sample's id is its file's stem.

    The one sensor has the key ``s2``: ``s2-rgb8`` for JPEG, the bands of ``s2-l1c`` in file order for GeoTIFF.

    Args:
        spec: What to open.

    Raises:
        ArchiveError: The ten class folders are not there, hold both products, or a split file contradicts another.
    """

    def __init__(self, spec: EuroSatSpec) -> None:
        self.spec = spec.model_copy(update={"root": spec.root.resolve()})
        self._folder, self.product = _choose(spec)
        self._checked: set[int] = set()
        suffix = _SUFFIXES[self.product]
        self._names = [
            f"{label}/{path.stem}"
            for label in CLASSES
            for path in sorted((self._folder / label).glob(f"*{suffix}"), key=_by_number)
        ]
        self._sensor = SENSORS["s2-rgb8"] if self.product == "rgb" else SENSORS["s2-l1c"].select(*MS_BANDS)
        self._splits = {
            column: found for column, prefix in _SPLIT_COLUMNS.items() if (found := _read_splits(spec.root, prefix))
        }

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("ids", "_headers")}

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The one sensor, under the key ``s2``."""
        return {_SENSOR: self._sensor}

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """File stems such as ``AnnualCrop_1``."""
        return np.array([name.rpartition("/")[2] for name in self._names])

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance; ``listed_but_absent`` counts files that the split files name and the folder lacks."""
        present = set(self.ids.tolist())
        listed = set().union(*self._splits.values()) if self._splits else set()
        return {
            "layout": "eurosat",
            "root": str(self.spec.root),
            "product": self.product,
            "sensors": {_SENSOR: self._sensor.name},
            "listed_but_absent": len(listed - present),
            "simulated": False,
            "fingerprint": self._fingerprint,
        }

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, index: int, sensor: str) -> tuple[int, int]:
        """64 by 64, the size of all EuroSAT patches."""
        self._check_sensor(sensor)
        self._path(index)
        return (SIZE, SIZE)

    def read(
        self, index: int, sensor: str, bands: Sequence[str] | None = None, window: Window | None = None
    ) -> NDArray[Any]:
        """Pixels of one patch; see ``Archive.read``. A JPEG has to be decoded whole."""
        self._check_sensor(sensor)
        path = self._path(index)
        positions = self._sensor.indices(self._sensor.names if bands is None else bands)
        if self.product == "rgb":
            return cut(_decode(path), None if window is None else Window(*window), path)[list(positions)]
        if index not in self._checked:
            check_patch(read_header(path), self._sensor)
            self._checked.add(index)
        return read_window(path, positions, Window(0, 0, SIZE, SIZE) if window is None else Window(*window))

    def table(self) -> pa.Table:
        """See ``Archive.table``; with ``split_spatial`` where the spatial split files are there."""
        headers = self._headers
        columns = {
            "id": pa.array(self.ids.tolist(), pa.string()),
            "geometry": pa.array(map(_outline, headers), pa.binary()),
            "time": pa.nulls(len(self), pa.timestamp("us", tz="UTC")),
            "label": pa.array([name.partition("/")[0] for name in self._names], pa.string()),
            "split": pa.nulls(len(self), pa.string()),
            "crs": pa.array([header.crs if header else None for header in headers], pa.string()),
            "transform": pa.array([header.transform if header else None for header in headers], pa.list_(pa.float64())),
            f"asset:{_SENSOR}": pa.array([str(self._path(i)) for i in range(len(self))], pa.string()),
        }
        for column, split in self._splits.items():
            columns[column] = pa.array([split.get(name) for name in self.ids.tolist()], pa.string())
        return pa.table(columns)

    @cached_property
    def _headers(self) -> list[Header | None]:
        """Where each patch lies; JPEG files do not say."""
        if self.product == "rgb":
            return [None] * len(self)
        found = read_headers((self._path(i) for i in range(len(self))), "Headers of EuroSAT")
        return [header if isinstance(header, Header) and header.crs else None for header in found]

    def _path(self, index: int) -> Path:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of an archive of {len(self)} samples")
        return self._folder / f"{self._names[index]}{_SUFFIXES[self.product]}"

    def _check_sensor(self, key: str) -> None:
        if key != _SENSOR:
            raise BandError(f"EuroSAT in {self.spec.root} has no sensor {key!r}.{nearest(key, [_SENSOR])}")

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.product.encode())
        for index in range(len(self)):
            digest.update(f"{self._names[index]} {self._path(index).stat().st_size}\n".encode())
        return digest.hexdigest()


def find_products(root: Path) -> dict[Product, Path]:
    """The folders below a root (or the root) that hold the ten class folders, by what lies in them.

    Raises:
        ArchiveError: Two folders hold the same product.
    """
    found: dict[Product, Path] = {}
    for folder in _walk(root, _SEARCH_DEPTH):
        if not all((folder / label).is_dir() for label in CLASSES):
            continue
        for product, suffix in _SUFFIXES.items():
            if not any(next((folder / label).glob(f"*{suffix}"), None) for label in CLASSES):
                continue
            if product in found:
                raise ArchiveError(f"{found[product]} and {folder} both hold EuroSAT ({product}); name one as root.")
            found[product] = folder
    return found


def check_patch(header: Header, sensor: Sensor) -> None:
    """Refuse a file that is not a 64x64 patch of the sensor's bands.

    Raises:
        SampleError: It is not.
    """
    check_bands(header, sensor)
    if (header.height, header.width) != (SIZE, SIZE):
        raise _wrong_size(header.path, header.height, header.width)


def _choose(spec: EuroSatSpec) -> tuple[Path, Product]:
    found = find_products(spec.root) if spec.root.is_dir() else {}
    if spec.product is None and len(found) > 1:
        raise ArchiveError(f"{spec.root} holds EuroSAT both as RGB and as MS; set product to rgb or ms.")
    product = spec.product or next(iter(found), None)
    if product is None or product not in found:
        kind = f" with {_SUFFIXES[product]} files" if product else ""
        raise ArchiveError(
            f"{spec.root} does not hold EuroSAT's ten class folders ({CLASSES[0]} to {CLASSES[-1]}){kind} "
            f"within {_SEARCH_DEPTH} levels; name the folder that the download was unpacked to."
        )
    return found[product], product


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        for below in sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in CLASSES):
            yield from _walk(below, depth - 1)


def _by_number(path: Path) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d*)", path.stem)
    return (match[1], int(match[2] or 0)) if match else (path.stem, 0)


def _read_splits(root: Path, prefix: str) -> dict[str, str]:
    """Split by file stem, from the list of each split where it lies below the root or beside it."""
    split_of: dict[str, str] = {}
    folders = [*_walk(root, _SEARCH_DEPTH), root.resolve().parent]
    for split in _SPLITS:
        path = next((p for folder in folders if (p := folder / f"{prefix}{split}.txt").is_file()), None)
        for stem in map(_stem, path.read_text(encoding="utf-8").split() if path else ()):
            if split_of.setdefault(stem, split) != split:
                raise ArchiveError(f"{path} lists {stem}, which is already in {split_of[stem]}; correct the lists.")
    return split_of


def _stem(name: str) -> str:
    return Path(name).stem


def _decode(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise FlawError(
            Problem.UNREADABLE, f"{path} cannot be decoded: {error}. Fetch the file again, or remove it."
        ) from error
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise FlawError(Problem.BANDS, f"{path} has shape {pixels.shape}, not {SIZE}x{SIZE}x3; it is not an RGB patch.")
    if pixels.shape[:2] != (SIZE, SIZE):
        raise _wrong_size(path, *pixels.shape[:2])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _wrong_size(path: Path, height: int, width: int) -> FlawError:
    return FlawError(Problem.GRID, f"{path} is {height}x{width} px, EuroSAT's patches are {SIZE}x{SIZE}; remove it.")


def _outline(header: Header | None) -> bytes | None:
    if header is None:
        return None
    return outlines(corners(header.transform, np.array([[0, 0, header.height, header.width]])), header.crs)[0]
