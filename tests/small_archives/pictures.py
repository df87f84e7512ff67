"""Class folders of files, one file a sample: EuroSAT, RESISC45, UC Merced."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from small_archives.making import Bench, makes, write_tif
from terrasieve.archive.layouts import eurosat, resisc45, uc_merced
from terrasieve.archive.layouts.eurosat import EuroSatSpec, Product
from terrasieve.archive.layouts.pictures import PicturesSpec
from terrasieve.archive.layouts.resisc45 import Resisc45Spec
from terrasieve.archive.layouts.uc_merced import UcMercedSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive


def write_pictures(
    folder: Path, classes: Iterable[str], names: Iterable[str], pixels: Callable[[str, int], NDArray[Any]]
) -> None:
    """Write pictures into class folders.

    Args:
        folder: That of the class folders.
        classes: Their names.
        names: Of the files in each, with ``{}`` for the class; the suffix says the format.
        pixels: Gives red, green and blue, shape ``(height, width, 3)``, for a class and the place of a name.
    """
    named = list(names)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for place, name in enumerate(named):
            Image.fromarray(pixels(label, place)).save(folder / label / name.format(label), quality=90)


def write_eurosat_tif(folder: Path, pixels: Callable[[int], NDArray[Any]]) -> None:
    """Write one patch a class with all its bands.

    Args:
        folder: That of the class folders.
        pixels: Gives bands, shape ``(bands, 64, 64)``, for the place of a class.
    """
    for place, label in enumerate(eurosat.CLASSES):
        write_tif(folder / label / f"{label}_{place + 1}.tif", pixels(place))


@makes("eurosat")
def eurosat_rgb(bench: Bench) -> Archive:
    write_pictures(bench.folder / "2750", eurosat.CLASSES, ["{}_1.jpg"], lambda label, place: bench.picture(64, 64))
    return _eurosat(bench, "rgb")


@makes("eurosat")
def eurosat_ms(bench: Bench) -> Archive:
    write_eurosat_tif(bench.folder / "ds" / "tif", lambda place: bench.optical(13, 64))
    return _eurosat(bench, "ms")


@makes("eurosat")
def eurosat_sar(bench: Bench) -> Archive:
    write_eurosat_tif(bench.folder, lambda place: bench.radar(64))
    return _eurosat(bench, "sar")


def _eurosat(bench: Bench, product: Product) -> Archive:
    archive = open_archive(EuroSatSpec(root=bench.folder))
    assert archive.source["product"] == product
    return archive


@makes("resisc45")
def nwpu(bench: Bench) -> Archive:
    """A picture a class; what JPEG loses is lost before anything is read."""
    folder = bench.folder / "NWPU-RESISC45"
    write_pictures(folder, resisc45.CLASSES, ["{}_001.jpg"], lambda label, place: bench.picture(256, 256))
    return open_archive(Resisc45Spec(root=bench.folder))


@makes("uc-merced")
def merced(bench: Bench) -> Archive:
    """A picture a class, of two sizes."""

    def pixels(label: str, place: int) -> NDArray[Any]:
        return bench.picture(256 - uc_merced.CLASSES.index(label) % 2, 256)

    write_pictures(bench.folder / "UCMerced_LandUse" / "Images", uc_merced.CLASSES, ["{}00.tif"], pixels)
    return open_archive(UcMercedSpec(root=bench.folder))


@makes("pictures")
def whole_pictures(bench: Bench) -> Archive:
    """Of three formats and of two sizes, in nested folders."""
    for name, width in (("a/b/one.png", 24), ("a/two.JPEG", 20), ("three.tif", 24)):
        (bench.folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(bench.picture(20, width)).save(bench.folder / name)
    return open_archive(PicturesSpec(root=bench.folder, sensor="rgb8"))


@makes("pictures")
def cut_pictures(bench: Bench) -> Archive:
    """Grey, one of them with a place on the ground, cut into overlapping tiles."""
    Image.fromarray(bench.picture(40, 48)[..., 0]).save(bench.folder / "plain.png")
    write_tif(bench.folder / "placed.tif", bench.picture(32, 32)[None, ..., 0])
    return open_archive(PicturesSpec(root=bench.folder, sensor="gray8", tile=16, stride=12, edge="overlap"))
