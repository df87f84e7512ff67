"""Which functions of the library run on the way from GeoTIFF files to the report.

The way is the library's main job: a pair of optical and radar scenes is indexed and packed; BYOL learns from its tiles
for two steps, without curation; labelled patches of 13 bands, in the form of EuroSAT's, are indexed, packed and
embedded; kNN is fitted on their labels; the page is written. Every command is called as a user calls it, through the
command line's entry, in this process, with too few samples for reader processes, so that a profile function sees every
call in every thread.

Functions that run while a module is imported are left out, as are the bodies of modules and of classes.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
PATCHES = 6
"""Labelled patches of each class. From 64 samples on, reader processes start, whose calls would not be seen."""
BANDS, SIZE, TILES = 13, 64, 6
"""Bands of the optical sensor, pixels along a side of a sample, and samples along a side of a scene."""
METRES = 10
SETTINGS = (
    "model.name=test_resnet",
    "train.steps=2",
    "train.batch_size=16",
    "train.log_every=1",
    "train.schedule=cosine",
    "train.workers=0",
)


# --------------------------------------------------------------------------- files and commands


def write_geotiff(path: Path, pixels: NDArray[Any], column: int = 0, row: int = 0) -> None:
    """Write pixels of shape ``(bands, height, width)`` at a place of a grid of samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    corner = from_origin(500_000 + column * SIZE * METRES, 5_000_000 - row * SIZE * METRES, METRES, METRES)
    shape = {"count": count, "height": height, "width": width}
    with rasterio.open(
        path, "w", driver="GTiff", dtype=pixels.dtype, crs="EPSG:32633", transform=corner, **shape
    ) as file:
        file.write(pixels)


def write_archives(folder: Path, seed: int = 0) -> None:
    """Write ``scenes``, a pair of noise, and ``labelled``, class folders of patches; brightness tells the class."""
    generator = np.random.default_rng(seed)
    side = TILES * SIZE
    reflectance = generator.integers(500, 2500, (BANDS, side, side), dtype=np.uint16)
    write_geotiff(folder / "scenes" / "optical" / "scene.tif", reflectance)
    decibels = generator.normal(-10, 2, (2, side, side)).astype(np.float32)
    write_geotiff(folder / "scenes" / "radar" / "scene.tif", decibels)
    for k, label in enumerate(CLASSES):
        for i in range(1, PATCHES + 1):
            patch = generator.integers(500 + 200 * k, 1500 + 200 * k, (BANDS, SIZE, SIZE), dtype=np.uint16)
            write_geotiff(folder / "labelled" / label / f"{label}_{i}.tif", patch, column=i, row=k)


def way(folder: Path) -> list[list[str]]:
    """The commands from the files of :func:`write_archives` to the page, as words behind ``terrasieve``."""

    def packed(name: str, *options: str) -> list[list[str]]:
        catalogue = str(folder / f"{name}.parquet")
        return [
            ["index", str(folder / name), *options, "--out", catalogue, "--workers", "0"],
            ["pack", catalogue, "--out", str(folder / f"{name}.zarr"), "--workers", "0"],
        ]

    scenes, labelled, run = (str(folder / name) for name in ("scenes.zarr", "labelled.zarr", "run"))
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    shown = ["--data", labelled, "--input", "s2:B04", "--device", "cpu"]
    return [
        *packed("scenes", "--sensor", "s2=s2-l1c:optical", "--sensor", "s1=s1:radar", "--tile", str(SIZE)),
        ["pretrain", "rs-byol-1-small", "--data", scenes, "--out", run, *settings, "--device", "cpu"],
        *packed("labelled", "--layout", "eurosat"),
        ["embed", run, *shown, "--out", str(folder / "embeddings.parquet")],
        ["probe", run, *shown, "--probe", "knn"],
        ["report", run],
    ]


# --------------------------------------------------------------------------- recording


class Ran(NamedTuple):
    """A function that ran.

    Attributes:
        path: Its file, relative to the package.
        line: Its first line, from 1.
        name: Its qualified name.
    """

    path: str
    line: int
    name: str


class Recorder:
    """A profile function that notes which functions of a package run.

    Args:
        package: Folder of the package; functions of files outside it are not noted.

    Attributes:
        codes: Code objects of the functions that ran.
    """

    def __init__(self, package: Path) -> None:
        self.codes: set[CodeType] = set()
        self._package = f"{package}/"
        self._thread = threading.local()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Note one call; the interpreter calls this at each call and each return, see ``sys.setprofile``."""
        code = frame.f_code
        importing: int = getattr(self._thread, "importing", 0)
        if code.co_name == "<module>" and event in ("call", "return"):
            # A profile function that is set inside a module's body sees its return, but not its call.
            self._thread.importing = max(0, importing + (1 if event == "call" else -1))
        elif event == "call" and not importing and self._is_ours(code):
            self.codes.add(code)

    def _is_ours(self, code: CodeType) -> bool:
        # Only functions have this flag; bodies of classes do not. Templates have code objects, too.
        is_function = bool(code.co_flags & inspect.CO_OPTIMIZED)
        return is_function and code.co_filename.startswith(self._package) and code.co_filename.endswith(".py")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Note what runs in this thread, and in threads that it starts, until the context ends."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def ran(self) -> list[Ran]:
        """What ran, in the order of files and lines."""
        package = Path(self._package)
        found = (
            Ran(str(Path(code.co_filename).relative_to(package)), code.co_firstlineno, code.co_qualname)
            for code in self.codes
        )
        return sorted(set(found))


def call(main: Callable[[], None], words: Sequence[str]) -> None:
    """Call the command line's entry, and show what it prints only where it fails.

    Raises:
        RuntimeError: The command ended with an error.
    """
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["terrasieve", *words]),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"terrasieve {' '.join(words)}\n{printed.getvalue()}") from None


def walk_the_way(package: Path) -> list[Ran]:
    """Run every command of :func:`way` in a temporary folder.

    Args:
        package: Folder of the package ``terrasieve`` that is imported here.

    Returns:
        The functions of the package that ran.

    Raises:
        RuntimeError: A command failed, or another copy of the package is imported.
    """
    import terrasieve
    from terrasieve.cli import main

    imported = Path(terrasieve.__file__).parent
    if imported.resolve() != package.resolve():
        raise RuntimeError(f"{terrasieve.__file__} is imported, not {package}; set PYTHONPATH={package.parent}.")
    recorder = Recorder(imported)
    with TemporaryDirectory() as name:
        write_archives(Path(name))
        for words in way(Path(name)):
            with recorder.listening():
                call(main, words)
    return recorder.ran()
