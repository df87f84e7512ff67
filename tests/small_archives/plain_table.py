"""A table of files: a GeoTIFF, a PNG, a TIFF without places and a JPEG, with columns of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from small_archives.making import Bench, makes, write_tif
from terrasieve.archive.layouts.plain_table import PlainTableSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive

SIZE = (20, 24)
ROWS = (
    "007,files/a.tif,sea,train,2016-02-29T17:05:00Z,1.5,3,wv1",
    "008,files/b.png,sea,validation,2016-03-01,2,4,wv1",
    "009,files/c.tiff,ice,test,,2.5,,wv2",
    "010,files/d.JPG,,,,,6,wv2",
)


def write_files(root: Path) -> dict[str, NDArray[np.uint8]]:
    """Write three bands of 8 bits in every format below ``files``; gives pixels ``(3, 20, 24)`` by the file's name."""
    rng = np.random.default_rng(0)
    pixels: dict[str, Any] = {
        name: rng.integers(1, 256, (*SIZE, 3)).astype(np.uint8) for name in ("a.tif", "b.png", "c.tiff", "d.JPG")
    }
    write_tif(root / "files" / "a.tif", pixels["a.tif"].transpose(2, 0, 1))
    for name in ("b.png", "c.tiff", "d.JPG"):
        Image.fromarray(pixels[name]).save(root / "files" / name)
    with Image.open(root / "files" / "d.JPG") as image:
        pixels["d.JPG"] = np.asarray(image)  # what JPEG left of them
    return {name: values.transpose(2, 0, 1) for name, values in pixels.items()}


def write_table(root: Path) -> Path:
    """Write a row a file, and give the table's path."""
    path = root / "waves.csv"
    path.write_text("\n".join(["id,path,label,split,time,swh,buoys,swath", *ROWS]) + "\n", encoding="utf-8")
    return path


@makes("table")
def table(bench: Bench) -> Archive:
    write_files(bench.folder)
    return open_archive(PlainTableSpec(root=write_table(bench.folder), sensors={"s2": "s2-rgb8"}))
