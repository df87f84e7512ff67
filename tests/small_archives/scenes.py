"""Whole scenes, cut into tiles, and what is derived from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from small_archives.making import Bench, makes, write_tif
from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.derived.harmonised import harmonise
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.scenes.survey import ScenesSpec, SensorFolder


@makes("scenes")
def scenes(bench: Bench) -> Archive:
    """Four tiles of each of two scenes, of which Sentinel-1 covers a part."""
    for name, east in (("a", 500_000.0), ("b", 600_000.0)):
        write_tif(bench.folder / "s2" / f"{name}.tif", bench.optical(12, 80), origin=(east, 5_000_000.0))
        write_tif(bench.folder / "s1" / f"{name}.tif", bench.radar(70), origin=(east + 50, 4_999_970.0))
    folders = {key: SensorFolder(folder=Path(key), sensor=name) for key, name in (("s2", "s2-l2a"), ("s1", "s1"))}
    return open_archive(ScenesSpec(root=bench.folder, sensors=folders, tile=32, match="geometry"))


@makes("scenes")
def catalogued(bench: Bench) -> Archive:
    return open_archive(index_archive(scenes(bench), bench.folder / "c.parquet").path)


@makes("harmonised")
def harmonised(bench: Bench) -> Archive:
    """One of two scenes carries the offset."""
    for name, offset in (("a", 0), ("b", 1000)):
        dark = bench.rng.integers(10, 60, (13, 64, 64)) + offset
        write_tif(bench.folder / "s2" / f"{name}.tif", dark.astype(np.uint16))
    folders = {"s2": SensorFolder(folder=Path("s2"), sensor="s2-l1c")}
    archive = harmonise(open_archive(ScenesSpec(root=bench.folder, sensors=folders, tile=32)))
    assert archive.carriers["s2"].tolist() == [False] * 4 + [True] * 4
    return archive
