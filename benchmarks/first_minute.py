"""What a newcomer's first minute comes to: twenty things on disk, ``terrasieve info`` of each, and what it says pasted.

Products, scenes, cubes, pictures, an array, a data set, and five things in which there is nothing to read, written by
the makers of the tests. Of each the suggested command is run by a shell, as it is printed:

- ``right``: it was opened as what it is, and the command that comes next ended well;
- ``refused_with_working_advice``: nothing can be read there, and that is said of it; or it is refused with a command
  that does work;
- ``wrong``: anything else;
- ``tracebacks``: commands that failed with an error which nobody foresaw.

Usage: ``python benchmarks/first_minute.py``. The last line is JSON with these counts, of which the first two come to
20.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from rich.console import Console

from machine import describe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from small_archives import cubes
from small_archives.eopf_products import write_eopf
from small_archives.granule_products import HYP3, LANDSAT, S30, write_band, write_hls, write_landsat
from small_archives.grd_products import Image, write_grd
from small_archives.making import Bench, write_tif
from small_archives.pictures import eurosat_rgb
from small_archives.sentinel2_products import Safe, drawn, drawn_classes, write_safe, zip_up

SIDE = 288
"""Rows and columns of a product's finest band: one tile, with pixels of 10, 20, 30 and 60 m."""

COMMAND = re.compile(r"(?:^Next|: ?)(?:: )?((?:terrasieve|python|echo|tar) \S.*)$", re.MULTILINE)
"""What is to be pasted: the end of a line."""
HONEST = ("nothing that can be read", "nothing can be read", "does not exist", "cannot be read")
FAULT = ("Traceback (most recent call last)", "This is a fault of terrasieve")


@dataclass(frozen=True)
class Input:
    """Something on disk.

    Attributes:
        make: Writes it into an empty folder, and gives what is named on the command line.
        layout: As what it should be opened; None of what cannot be.
        hopeless: Whether there is nothing to read.
    """

    make: Callable[[Bench], Path]
    layout: str | None = None
    hopeless: bool = False


def _s2_folder(bench: Bench) -> Path:
    return write_safe(bench.folder, Safe("l2a", drawn("l2a", SIDE), drawn_classes(SIDE)))


def _s2_zip(bench: Bench) -> Path:
    return zip_up(write_safe(bench.folder, Safe("l1c", drawn("l1c", SIDE))))


def _grd(bench: Bench) -> Path:
    images = [Image(10 ** (np.float64(pixels) / 10)) for pixels in bench.radar(SIDE)]
    return write_grd(bench.folder, images[0], replace(images[1], polarisation="VH"))


def _landsat(bench: Bench) -> Path:
    bands = {
        f"SR_B{number}": bench.rng.integers(7_500, 30_000, (SIDE, SIDE)).astype(np.uint16) for number in range(1, 8)
    }
    bands["QA_PIXEL"] = bench.rng.integers(21_000, 22_000, (SIDE, SIDE)).astype(np.uint16)
    return write_landsat(bench.folder / LANDSAT, bands)


def _hls(bench: Bench) -> Path:
    names = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
    bands = {name: bench.optical(1, SIDE)[0].astype(np.int16) for name in names}
    bands["Fmask"] = bench.rng.integers(0, 65, (SIDE, SIDE)).astype(np.uint8)
    return write_hls(bench.folder / S30, bands)


def _rtc(bench: Bench) -> Path:
    for name, pixels in zip(("VV", "VH"), bench.radar(SIDE), strict=True):
        write_band(bench.folder / HYP3 / f"{HYP3}_{name}.tif", (10 ** (pixels / 10)).astype(np.float32), 0)
    return bench.folder / HYP3


def _eopf(bench: Bench) -> Path:
    return write_eopf(bench.folder, drawn("l2a", SIDE), drawn_classes(SIDE))


def _scenes(bench: Bench) -> Path:
    root = bench.folder / "my scenes"
    for name, east in (("a", 500_000.0), ("b", 600_000.0)):
        write_tif(root / "optical" / f"{name}.tif", bench.optical(12, 128), origin=(east, 5e6))
        write_tif(root / "radar" / f"{name}.tif", bench.radar(128), origin=(east, 5e6))
    return root


def _band_files(bench: Bench) -> Path:
    root = bench.folder / "bands"
    for scene in ("T32TQM_20200607", "T32TQN_20200609"):
        for name in ("B02", "B03", "B04", "B08"):
            write_tif(root / f"{scene}_{name}_10m.tif", bench.optical(1, 128))
    return root


def _netcdf(bench: Bench) -> Path:
    path = bench.folder / "site.nc"
    cubes.cube(bench, 96).to_dataset().to_netcdf(path, engine="h5netcdf")
    return path


def _zarr(bench: Bench) -> Path:
    path = bench.folder / "site.zarr"
    cubes.by_band(cubes.cube(bench, 96)).to_zarr(path, zarr_format=2)
    return path


def _array(bench: Bench) -> Path:
    np.save(bench.folder / "chips.npy", np.stack([bench.optical(4, 64) for _ in range(8)]))
    return bench.folder / "chips.npy"


def _pictures(bench: Bench) -> Path:
    root = bench.folder / "it's photos"
    for place, name in enumerate(("north/one.png", "north/two.JPG", "south/three.png", "south/deep/four.tiff")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Picture.fromarray(bench.picture(128, 100 + 20 * place)).save(root / name)
    (root / "readme.txt").write_text("Photos of the coast.")
    return root


def _single(bench: Bench) -> Path:
    write_tif(bench.folder / "scene.tif", bench.optical(13, 128))
    return bench.folder / "scene.tif"


def _eurosat(bench: Bench) -> Path:
    eurosat_rgb(bench)
    return bench.folder


def _empty(bench: Bench) -> Path:
    (bench.folder / "empty" / "within").mkdir(parents=True)
    return bench.folder / "empty"


def _texts(bench: Bench) -> Path:
    for name in ("notes.txt", "table.json", "index.html"):
        (bench.folder / name).write_text("nothing")
    return bench.folder


def _missing(bench: Bench) -> Path:
    return bench.folder / "scnes"


def _corrupt(bench: Bench) -> Path:
    path = _single(bench)
    path.write_bytes(path.read_bytes()[:100])
    return path


def _document(bench: Bench) -> Path:
    (bench.folder / "report.pdf").write_bytes(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    return bench.folder / "report.pdf"


INPUTS = {
    "Sentinel-2 L2A .SAFE": Input(_s2_folder, "s2-safe"),
    "Sentinel-2 L1C .zip": Input(_s2_zip, "s2-safe"),
    "Sentinel-1 GRD .SAFE": Input(_grd, "s1-grd"),
    "Landsat Collection 2": Input(_landsat, "landsat-c2l2"),
    "HLS S30": Input(_hls, "hls"),
    "Sentinel-1 RTC": Input(_rtc, "s1-rtc"),
    "Sentinel-2 EOPF": Input(_eopf, "s2-eopf"),
    "scenes of two sensors": Input(_scenes, "scenes"),
    "one file a band": Input(_band_files, "scenes"),
    "cube, NetCDF": Input(_netcdf, "cube"),
    "cube, Zarr": Input(_zarr, "cube"),
    "array, .npy": Input(_array),
    "pictures": Input(_pictures, "pictures"),
    "one GeoTIFF": Input(_single, "scenes"),
    "EuroSAT": Input(_eurosat, "eurosat"),
    "empty folder": Input(_empty, hopeless=True),
    "folder of texts": Input(_texts, hopeless=True),
    "missing path": Input(_missing, hopeless=True),
    "damaged GeoTIFF": Input(_corrupt, hopeless=True),
    "PDF": Input(_document, hopeless=True),
}


@dataclass(frozen=True)
class Said:
    """What a command printed, standard output and error together, and how it ended."""

    code: int
    text: str

    @property
    def faulty(self) -> bool:
        """Whether it failed with an error that nobody foresaw."""
        return any(words in self.text for words in FAULT)


def advised(said: Said) -> str | None:
    """The command that is to be pasted; None where there is none."""
    found = COMMAND.findall(said.text)
    return found[-1] if found else None


def judge(one: Input, said: Said, pasted: Said | None) -> str:
    """What came of an input: ``right``, ``refused_with_working_advice`` or ``wrong``.

    Args:
        one: The input.
        said: What ``info`` said of it.
        pasted: What came of the command that it advised; None where it advised none.
    """
    works = pasted is not None and pasted.code == 0 and not pasted.faulty
    if said.faulty:
        return "wrong"
    if said.code == 0:
        as_it_is = one.layout is not None and re.search(rf"^layout +{one.layout},", said.text, re.MULTILINE)
        return "right" if works and as_it_is else "wrong"
    if one.hopeless:
        honest = any(words in " ".join(said.text.split()) for words in HONEST)
        return "refused_with_working_advice" if honest and pasted is None else "wrong"
    return "refused_with_working_advice" if works else "wrong"


def look(one: Input, folder: Path) -> tuple[str, Said, str | None, Said | None]:
    """Make an input, ask what it is, and paste what is advised.

    Args:
        one: The input.
        folder: Where it is made and the commands run; is created.

    Returns:
        The verdict, what was said, what was pasted, and what came of that.
    """
    (folder / "data").mkdir(parents=True)
    path = one.make(Bench(folder / "data"))
    shell = _with_commands(folder)
    said = _run([*PROGRAM, "info", str(path)], folder, shell)
    command = advised(said)
    pasted = None if command is None else _run(["sh", "-c", command], folder, shell)
    return judge(one, said, pasted), said, command, pasted


PROGRAM = [sys.executable, "-c", "from terrasieve.cli import main; main()"]


def _with_commands(folder: Path) -> dict[str, str]:
    """An environment in which ``terrasieve`` and ``python`` are those that run this."""
    place = folder / "bin"
    place.mkdir()
    for name, words in (("terrasieve", PROGRAM), ("python", [sys.executable])):
        quoted = " ".join(f"'{word}'" for word in words)
        (place / name).write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
        (place / name).chmod(stat.S_IRWXU)
    return {**os.environ, "PATH": f"{place}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100", "NO_COLOR": "1"}


def _run(words: list[str], folder: Path, environment: dict[str, str]) -> Said:
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return Said(done.returncode, done.stdout + done.stderr)


def main() -> None:
    """Look at all inputs, or at some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="inputs whose names hold this text")
    parser.add_argument("--verbose", action="store_true", help="show what was said of all, not only of what went wrong")
    arguments = parser.parse_args()
    shown = Console(width=120)
    counts = {"right": 0, "refused_with_working_advice": 0, "wrong": 0, "tracebacks": 0}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, one) in enumerate(INPUTS.items()):
            if arguments.only not in name:
                continue
            folder = Path(scratch) / str(number)
            verdict, said, command, pasted = look(one, folder)
            counts[verdict] += 1
            counts["tracebacks"] += said.faulty + (pasted is not None and pasted.faulty)
            shown.print(f"{name:24} {verdict:28} {command or ''}", highlight=False, markup=False, soft_wrap=True)
            if arguments.verbose or verdict == "wrong":
                shown.print(said.text, highlight=False, markup=False, soft_wrap=True)
                shown.print(pasted.text if pasted else "nothing was advised", highlight=False, markup=False)
            shutil.rmtree(folder)
    print(describe(0))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
