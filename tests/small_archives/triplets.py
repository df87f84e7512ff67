"""Radar, optical and land-cover patches of 256x256 px in one naming: SEN12MS and DFC2020."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from small_archives.making import Bench, makes, write_tif
from terrasieve.archive.layouts.dfc2020 import Dfc2020Spec
from terrasieve.archive.layouts.sen12ms import Sen12MsSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive

Pixels = Callable[[int], NDArray[Any]]
"""Gives the bands of the patch at a place in the list, shape ``(bands, 256, 256)``."""

TRIPLETS: Mapping[str, Mapping[int, float]] = {
    "ROIs1158_spring_8_p9": {1: 0.3, 3: 0.3, 10: 0.4},
    "ROIs1158_spring_8_p30": {12: 0.3, 13: 0.4, 14: 0.3},
    "ROIs1158_spring_63_p1": {17: 0.2, 0: 0.8},
    "ROIs1868_summer_146_p202": {17: 1.0},
    "ROIs1868_summer_146_p203": {255: 1.0},
    "ROIs2017_winter_64_p2": {15: 1.0},
}
"""Patches of SEN12MS, one known to be broken, and the shares of IGBP classes of each."""

MAPS: Mapping[str, Mapping[int, int]] = {
    "ROIs0000_validation_0_p3": {1: 100, 4: 156},
    "ROIs0000_validation_0_p20": {6: 120, 7: 136},
    "ROIs0000_test_0_p0": {3: 130, 9: 126},
    "ROIs0000_test_0_p1": {0: 200, 10: 50, 1: 6},
    "ROIs0000_test_0_p11": {8: 256},
}
"""Patches of DFC2020, and how many rows of the map each class fills."""


def sen12ms_path(root: Path, name: str, sensor: str) -> Path:
    season, scene, patch = name.rsplit("_", 2)
    return root / season / f"{sensor}_{scene}" / f"{season}_{sensor}_{scene}_{patch}.tif"


def dfc2020_path(root: Path, name: str, sensor: str) -> Path:
    region, rest = name.split("_0_")
    scene = "validation" if region.endswith("validation") else "0"
    return root / region / f"{sensor}_{scene}" / f"{region}_{sensor}_0_{rest}.tif"


def write_sen12ms(
    root: Path, radar: Pixels, optical: Pixels, triplets: Mapping[str, Mapping[int, float]] = TRIPLETS
) -> None:
    """Write triplets with maps as :func:`igbp_map` draws them."""
    for place, (name, shares) in enumerate(triplets.items()):
        write_tif(sen12ms_path(root, name, "s1"), radar(place))
        write_tif(sen12ms_path(root, name, "s2"), optical(place))
        write_tif(sen12ms_path(root, name, "lc"), igbp_map(shares))


def igbp_map(shares: Mapping[int, float]) -> NDArray[np.uint16]:
    """Four bands, the first with the classes in strips, the others with what no IGBP class is."""
    rows = np.cumsum([round(256 * share) for share in shares.values()])
    pixels = np.full((4, 256, 256), 30, np.uint16)
    for value, stop, start in zip(shares, rows, [0, *rows], strict=False):
        pixels[0, start:stop] = value
    pixels[0, rows[-1] :] = list(shares)[-1]
    return pixels


def write_dfc2020(root: Path, radar: Pixels, optical: Pixels, maps: Mapping[str, Mapping[int, int]] = MAPS) -> None:
    """Write patches, the map of the contest and, beside it, one of SEN12MS' kind, which is not read."""
    for place, (name, rows) in enumerate(maps.items()):
        write_tif(dfc2020_path(root, name, "s1"), radar(place))
        write_tif(dfc2020_path(root, name, "s2"), optical(place))
        values = np.repeat(list(rows), list(rows.values())).astype(np.uint8)
        write_tif(dfc2020_path(root, name, "dfc"), np.broadcast_to(values[None, :, None], (1, 256, 256)))
        write_tif(dfc2020_path(root, name, "lc"), np.ones((4, 256, 256), np.uint16))


@makes("sen12ms")
def sen12ms(bench: Bench) -> Archive:
    few = {name: TRIPLETS[name] for name in list(TRIPLETS)[2:4] + list(TRIPLETS)[5:]}
    write_sen12ms(bench.folder, lambda place: bench.radar(256), lambda place: bench.optical(13, 256), few)
    return open_archive(Sen12MsSpec(root=bench.folder))


@makes("dfc2020")
def dfc2020(bench: Bench) -> Archive:
    """With the eight classes that are left when two are masked in the map."""
    few = {name: MAPS[name] for name in list(MAPS)[1:3]}
    write_dfc2020(bench.folder, lambda place: bench.radar(256), lambda place: bench.optical(13, 256), few)
    return open_archive(Dfc2020Spec(root=bench.folder, classes=8))
