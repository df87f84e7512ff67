"""So2Sat LCZ42: patches of 320 m with one of 17 local climate zones, in HDF5 files.

Zhu et al. 2020, "So2Sat LCZ42: A Benchmark Data Set for the Classification of Global Local Climate Zones", GRSM 8(3).
Version 2 has ``training.h5``, ``validation.h5`` and ``testing.h5``; version 3 has three ways to split, ``random``,
``block`` and ``culture_10``, with ``training.h5`` and ``testing.h5`` in a folder each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.quality.limits import FlawError
from terrasieve.archive.readers.hdf5 import Hdf5Reader, check_array, require_h5py, shape_of, values_of
from terrasieve.archive.readers.patch_reader import item_address
from terrasieve.errors import ArchiveError
from terrasieve.sensors import RS_BYOL_BANDS, SENSORS, Band, Sensor

SIZE = (32, 32)
FILES: Mapping[str, str] = {"training.h5": "train", "validation.h5": "val", "testing.h5": "test"}
VERSION_3 = ("random", "block", "culture_10")
CLASSES = (
    "Compact high rise",
    "Compact mid rise",
    "Compact low rise",
    "Open high rise",
    "Open mid rise",
    "Open low rise",
    "Lightweight low rise",
    "Large low rise",
    "Sparsely built",
    "Heavy industry",
    "Dense trees",
    "Scattered trees",
    "Bush, scrub",
    "Low plants",
    "Bare rock or paved",
    "Bare soil or sand",
    "Water",
)
"""Names of the zones, in the order of the one-hot columns."""


def _amplitude(name: str) -> Band:
    return Band(name=name, gsd=10, unit="dn", valid_range=(-1000, 1000))


def _intensity(name: str, polarisation: str) -> Band:
    return Band(name=name, common_name=polarisation, gsd=10, unit="linear", valid_range=(0, 1000))


S1 = Sensor(
    name="so2sat-s1",
    kind="radar",
    bands=(
        _amplitude("VH_real"),
        _amplitude("VH_imag"),
        _amplitude("VV_real"),
        _amplitude("VV_imag"),
        _intensity("VH_lee", "VH"),
        _intensity("VV_lee", "VV"),
        _amplitude("C12_real"),
        _amplitude("C12_imag"),
    ),
    sets={"intensity": ("VH_lee", "VV_lee")},
)
"""VH before VV: real and imaginary part of both, their intensities after a refined Lee filter (linear), and the
covariance between them after that filter (Zhu et al. 2020, section III-C)."""

S2 = Sensor(
    name="so2sat-s2",
    kind="optical",
    bands=tuple(
        band.model_copy(update={"unit": "reflectance", "valid_range": (0.0, 2.8)})
        for band in SENSORS["s2-l1c"].select(*RS_BYOL_BANDS).bands
    ),
    sets=SENSORS["s2-l1c"].select(*RS_BYOL_BANDS).sets,
)
"""Ten bands as reflectance, which the data set has divided by 10,000 already and cut at 2.8."""

_ARRAYS: Mapping[str, tuple[str, Sensor]] = {"s1": ("sen1", S1), "s2": ("sen2", S2)}

_CITATION = """@article{zhu2020so2sat,
  author  = {Zhu, Xiao Xiang and Hu, Jingliang and Qiu, Chunping and others},
  title   = {{So2Sat} {LCZ42}: A Benchmark Data Set for the Classification of Global Local Climate Zones},
  journal = {IEEE Geoscience and Remote Sensing Magazine},
  year    = {2020},
}"""


class So2SatSpec(ArchiveSpec):
    """A So2Sat LCZ42 folder.

    Attributes:
        root: The folder of the HDF5 files.
    """

    layout: Literal["so2sat"] = "so2sat"
    root: Path

    data_set = DataSet(
        title="So2Sat LCZ42",
        sensors="Sentinel-1, Sentinel-2",
        labels="class",
        split="official",
        page="so2sat.md",
        versions="v2, v3",
        citation=_CITATION,
    )

    def open(self) -> So2SatArchive:
        """The archive; see :class:`So2SatArchive`."""
        return So2SatArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the names of its files, which others may have too."""
        found = [name for name in FILES if (folder / name).is_file()]
        if "training.h5" not in found or len(found) < 2:
            return None
        return Recognition(0.7, f"files {', '.join(found)}", cls(root=folder))


@dataclass(frozen=True)
class _File:
    """One HDF5 file: how many patches it has, and their labels."""

    name: str
    split: str
    count: int
    labels: list[str | None]


class So2SatArchive(PatchesArchive):
    """Patches of 32x32 px of float64, Sentinel-1 (8 channels) and Sentinel-2 (10 bands as reflectance).

    A sample's id is its file and its place there, such as ``training/000017``; the split is the file's. Labels are the
    names of the 17 zones, and null where a file has none, as the first testing file.

    Args:
        spec: Folder of the HDF5 files.

    Raises:
        ArchiveError: h5py is missing, no file is there, several of version 3's splits are, or a file is damaged.
    """

    def __init__(self, spec: So2SatSpec) -> None:
        require_h5py()
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        files = [_look(spec.root / name, split) for name, split in FILES.items() if (spec.root / name).is_file()]
        if not files:
            raise ArchiveError(_why_none(spec.root))
        super().__init__(
            spec,
            Listing(
                ids=[f"{Path(file.name).stem}/{number:06}" for file in files for number in range(file.count)],
                addresses={
                    key: [item_address(file.name, number) for file in files for number in range(file.count)]
                    for key in _ARRAYS
                },
                columns={
                    "label": [label for file in files for label in file.labels],
                    "split": [file.split for file in files for _ in range(file.count)],
                },
            ),
            {key: Hdf5Reader(spec.root, sensor, array, SIZE) for key, (array, sensor) in _ARRAYS.items()},
        )


def _look(path: Path, split: str) -> _File:
    """Check a file's arrays and read its labels; no pixels."""
    try:
        shapes = {array: shape_of(path, array) for array, _ in _ARRAYS.values()}
        for array, sensor in _ARRAYS.values():
            check_array(path, array, shapes[array] or (), (*SIZE, len(sensor.bands)))
        # The first testing file was published without labels.
        labels = shape_of(path, "label")
        counts = {shape[0] for shape in (*shapes.values(), labels) if shape}
        if len(counts) > 1:
            raise ArchiveError(f"{path} has arrays of {' and '.join(map(str, sorted(counts)))} rows; fetch it again.")
        (count,) = counts
        return _File(path.name, split, count, _labels(path) if labels else [None] * count)
    except FlawError as error:
        raise ArchiveError(str(error)) from error


def _labels(path: Path) -> list[str | None]:
    values = values_of(path, "label")
    if values.ndim != 2 or values.shape[1] != len(CLASSES) or not ((values != 0).sum(axis=1) == 1).all():
        raise ArchiveError(f"{path} has labels that are not one of {len(CLASSES)} columns each; fetch it again.")
    return [CLASSES[code] for code in np.argmax(values, axis=1).tolist()]


def _why_none(root: Path) -> str:
    found = [name for name in VERSION_3 if any((root / name / file).is_file() for file in FILES)]
    if found:
        return (
            f"{root} holds the splits {', '.join(found)} of So2Sat; name the folder of one, such as {root / found[0]}."
        )
    return f"{root} holds none of {', '.join(FILES)}; name the folder that holds them."
