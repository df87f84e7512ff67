"""TenGeoP-SARwv: ten class folders of vignettes, and a list that says when and where they were taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from small_archives.making import Bench, makes, write_tif
from terrasieve.archive.layouts.tengeop_sarwv import CLASSES, TenGeoPSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive

PER_CLASS = 4


def stem(code: str, number: int) -> str:
    orbit = 9_300 + number
    day = f"2016010{number + 1}t0{'FGHIJKLMNO'.index(code)}4501"
    return f"s1a-wv{number % 2 + 1}-slc-vv-{day}-{day}-{orbit:06}-00d9a1-{number:03}"


def write_tengeop(root: Path, each: int = PER_CLASS) -> None:
    """Write vignettes of 16 bits and of sizes that differ, so many a class, and the list, whose names end in .png."""
    rng = np.random.default_rng(0)
    rows = []
    for code in CLASSES:
        for number in range(each):
            pixels = rng.integers(1, 65535, (1, 40 + number, 50)).astype(np.uint16)
            write_tif(root / "GeoTIFF" / code / f"{stem(code, number)}.tiff", pixels)
            rows.append(
                f"{code}/{stem(code, number)}.png {code} wv{number % 2 + 1} 20160102T03:04:05 -33.5 {-120 + number}"
            )
    (root / "58683.txt").write_text("\n".join(rows) + "\n")
    (root / "58682.txt").write_text("F Pure Ocean Waves\n")


@makes("tengeop-sarwv")
def tengeop_sarwv(bench: Bench) -> Archive:
    write_tengeop(bench.folder, each=2)
    return open_archive(TenGeoPSpec(root=bench.folder))
