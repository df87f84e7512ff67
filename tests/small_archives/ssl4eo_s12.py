"""SSL4EO-S12, version 1: a folder a product, location and scene, in it a GeoTIFF a band."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from small_archives.making import Bench, makes, write_tif
from terrasieve.archive.layouts.ssl4eo_s12 import PRODUCTS, Ssl4eoS12Spec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive

DAYS = ("20200307", "20200604", "20200917", "20201206")


def scene(key: str, day: str) -> str:
    if key == "s1":
        return f"S1A_IW_GRDH_1SDV_{day}T010800_{day}T010825_032904_03CFBA_D457"
    return f"{day}T054639_{day}T054831_T43RCP"


def write_scene(root: Path, key: str, location: str, day: str, pixels: Callable[[int, int], NDArray[Any]]) -> None:
    """Write the bands of one scene.

    Args:
        root: The folder of the products.
        key: ``s1``, ``s2c`` or ``s2a``.
        location: Its name, seven digits.
        day: The date as eight digits.
        pixels: Gives a band, for its place and for how many pixels of 10 m one of its own takes, 1, 2 or 6: shape
            ``(264 / step, 264 / step)``.
    """
    for place, band in enumerate(PRODUCTS[key].bands):
        step = {10: 1, 20: 2, 60: 6}[int(band.gsd)]
        path = root / key / location / scene(key, day) / f"{band.name.replace('B0', 'B')}.tif"
        write_tif(path, pixels(place, step)[None], resolution=10 * step)


@makes("ssl4eo-s12")
def ssl4eo_s12(bench: Bench) -> Archive:
    """Bands of 10, 20 and 60 m, two seasons of a location."""
    for day in DAYS[:2]:
        write_scene(bench.folder, "s1", "0000000", day, lambda place, step: bench.radar(264)[place])
        write_scene(bench.folder, "s2c", "0000000", day, lambda place, step: bench.optical(1, 264 // step)[0])
    return open_archive(Ssl4eoS12Spec(root=bench.folder))


@makes("ssl4eo-s12")
def seasons(bench: Bench) -> Archive:
    """Of two locations the four seasons as sensors."""
    for location in ("0000000", "0000004"):
        for day in DAYS:
            write_scene(bench.folder, "s1", location, day, lambda place, step: bench.radar(264)[place])
    return open_archive(Ssl4eoS12Spec(root=bench.folder, seasons="views"))
