"""Archives without files."""

from __future__ import annotations

from small_archives.making import Bench, makes
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive


@makes("simulated")
def land(bench: Bench) -> Archive:
    return open_archive("simulated:3:6")


@makes("simulated-ocean")
def sea(bench: Bench) -> Archive:
    return open_archive("simulated-ocean:3:4")
