"""Schemes of land-cover classes, and the class that most of a patch belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.readers.patch_reader import PatchReader
from terrasieve.errors import SampleError
from terrasieve.processes.parallel import map_threads

CLASSES_10 = (
    "Forest",
    "Shrubland",
    "Savanna",
    "Grassland",
    "Wetlands",
    "Croplands",
    "Urban/Built-up",
    "Snow/Ice",
    "Barren",
    "Water",
)
"""The simplified IGBP scheme, numbered from 1.

Yokoya et al. 2020, "2020 Data Fusion Contest", IEEE GRSM 8(1); Schmitt and Wu 2021, "Remote Sensing Image
Classification with the SEN12MS Dataset", table 1.
"""

IGBP: Mapping[str, str] = {
    "Evergreen Needleleaf Forests": "Forest",
    "Evergreen Broadleaf Forests": "Forest",
    "Deciduous Needleleaf Forests": "Forest",
    "Deciduous Broadleaf Forests": "Forest",
    "Mixed Forests": "Forest",
    "Closed Shrublands": "Shrubland",
    "Open Shrublands": "Shrubland",
    "Woody Savannas": "Savanna",
    "Savannas": "Savanna",
    "Grasslands": "Grassland",
    "Permanent Wetlands": "Wetlands",
    "Croplands": "Croplands",
    "Urban and Built-up Lands": "Urban/Built-up",
    "Cropland/Natural Vegetation Mosaics": "Croplands",
    "Permanent Snow and Ice": "Snow/Ice",
    "Barren": "Barren",
    "Water Bodies": "Water",
}
"""The 17 IGBP classes of MODIS MCD12Q1 in the order of their numbers from 1, and the simplified class of each."""

CLASS_OF_IGBP: Mapping[int, int] = {
    number: CLASSES_10.index(simple) + 1 for number, simple in enumerate(IGBP.values(), start=1)
}
"""Number of the simplified class by that of the IGBP class."""


def majority(pixels: NDArray[Any], class_of: Mapping[int, int]) -> int | None:
    """The class that most pixels belong to; of several with as many, the one with the lowest number.

    Args:
        pixels: Values of a map, any shape.
        class_of: Class by value; pixels of any other value do not vote.

    Returns:
        The class, or None where no pixel votes.
    """
    votes: dict[int, int] = {}
    for value, count in zip(*(found.tolist() for found in np.unique(pixels, return_counts=True)), strict=True):
        if value in class_of:
            votes[class_of[value]] = votes.get(class_of[value], 0) + count
    return min(votes, key=lambda one: (-votes[one], one), default=None)


@dataclass(frozen=True)
class MajorityLabels:
    """Labels of patches from their maps, read when they are asked for.

    Attributes:
        reader: Of the maps; the first band counts.
        addresses: Where the reader finds the map of each patch.
        class_of: Number of a class by value of the map, from 1; other values do not vote.
        names: Names of the classes, in the order of their numbers.
        title: Text beside the progress bar.
    """

    reader: PatchReader
    addresses: Sequence[str]
    class_of: Mapping[int, int]
    names: Sequence[str] = CLASSES_10
    title: str = "Reading land cover"

    def __call__(self) -> list[str | None]:
        """Name of the class of each patch; None where no pixel votes, or the map cannot be read."""
        return list(map_threads(self._label, self.addresses, self.title))

    def _label(self, address: str) -> str | None:
        try:
            number = majority(self.reader.read(address, [0], None), self.class_of)
        except SampleError:
            # A sample that cannot be read is reported with its reason by whatever reads its pixels.
            return None
        return None if number is None else self.names[number - 1]
