"""Packed stores."""

from __future__ import annotations

from small_archives.making import Bench, makes
from small_archives.simulated import land
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.protocol import Archive


@makes("packed")
def packed(bench: Bench) -> Archive:
    pack(land(bench), bench.folder / "store")
    return open_archive(bench.folder / "store")


@makes("packed")
def compressed(bench: Bench) -> Archive:
    pack(land(bench), bench.folder / "store", compress=True)
    return open_archive(bench.folder / "store")


@makes("packed")
def subset(bench: Bench) -> Archive:
    return SubsetArchive(packed(bench), [4, 1, 2])
