"""The files of Wave Mode products: folders ``S1?_WV_SLC__*.SAFE`` with four files for each vignette."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from terrasieve.archive.folders import is_leftover, product_folders
from terrasieve.archive.products.annotation import version_stated
from terrasieve.archive.readers.documents import parse

PRODUCT = "S1?_WV_SLC__*.SAFE"
MANIFEST = "manifest.safe"
# mission, mode, polarisation, first and last time, absolute orbit, data take, number of the vignette.
_VIGNETTE = re.compile(
    r"(?P<platform>s1[a-z])-(?P<mode>wv[12])-slc-(?P<polarisation>vv|hh)-\d{8}t\d{6}-\d{8}t\d{6}"
    r"-\d{6}-[0-9a-f]{6}-(?P<number>\d{3})"
)


@dataclass(frozen=True)
class VignetteFiles:
    """The files of one vignette.

    Attributes:
        measurement: TIFF of complex 16-bit integers, one band.
        annotation: XML with the facts of :class:`~terrasieve.archive.products.annotation.Annotation`.
        calibration: XML with the vectors by which power is divided.
        noise: XML with the vectors that are subtracted from power.
        manifest: XML of the whole product, which names the processor's version.
    """

    measurement: Path
    annotation: Path
    calibration: Path
    noise: Path
    manifest: Path

    @classmethod
    def of(cls, measurement: Path) -> VignetteFiles:
        """Those that belong to a measurement, by their names."""
        product, name = measurement.parent.parent, measurement.stem
        return cls(
            measurement=measurement,
            annotation=product / "annotation" / f"{name}.xml",
            calibration=product / "annotation" / "calibration" / f"calibration-{name}.xml",
            noise=product / "annotation" / "calibration" / f"noise-{name}.xml",
            manifest=product / MANIFEST,
        )


@dataclass(frozen=True)
class Vignette:
    """A vignette as the names of its files state it.

    Attributes:
        name: Stem of its files' names, such as
            ``s1a-wv1-slc-vv-20160101t061142-20160101t061145-009298-00d6d6-001``.
        measurement: Path at which its TIFF is, or ought to be.
        absent: Files that belong to it and are not there.
    """

    name: str
    measurement: Path
    absent: tuple[Path, ...]

    @property
    def polarisation(self) -> str:
        """``vv`` or ``hh``; empty where the name is not that of a vignette."""
        match = _VIGNETTE.fullmatch(self.name)
        return match["polarisation"] if match else ""


def is_product(name: str) -> bool:
    """Whether a folder's name is that of a Wave Mode product."""
    return fnmatchcase(name, PRODUCT)


def find_products(root: Path) -> Iterator[Path]:
    """Products at any depth below a folder, or the folder itself, in order; products are not entered.

    A product may be a symbolic link, and may lie in a linked folder.
    """
    if is_product(root.name):
        yield root
        return
    yield from (folder for folder in product_folders(root) if is_product(folder.name))


def list_vignettes(product: Path) -> list[Vignette]:
    """The vignettes of a product, in the order they were taken; those of which a file is absent, too."""
    present = {folder: _names(product / folder) for folder in ("measurement", "annotation", "annotation/calibration")}
    stems = {Path(name).stem for name in present["measurement"] if name.endswith((".tiff", ".tif"))}
    stems |= {Path(name).stem for name in present["annotation"] if name.endswith(".xml")}
    # Names sort by beam first, though the beams take turns; the last three digits number vignettes as they were taken.
    return [_vignette(product, stem, present) for stem in sorted(stems, key=lambda stem: (stem[-3:], stem))]


def processor_version(manifest: Path) -> str:
    """Version of the processor (IPF), such as ``2.91`` or ``3.31``.

    Raises:
        SampleError: The manifest is absent, damaged, or does not say it.
    """
    return version_stated(parse(manifest))


def _vignette(product: Path, stem: str, present: dict[str, set[str]]) -> Vignette:
    suffix = ".tif" if f"{stem}.tif" in present["measurement"] else ".tiff"
    files = VignetteFiles.of(product / "measurement" / f"{stem}{suffix}")
    wanted = (files.measurement, files.annotation, files.calibration, files.noise)
    absent = [path for path in wanted if path.name not in present[path.parent.relative_to(product).as_posix()]]
    return Vignette(stem, files.measurement, tuple(absent))


def _names(folder: Path) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if not is_leftover(name)}
    except (FileNotFoundError, NotADirectoryError):
        return set()
