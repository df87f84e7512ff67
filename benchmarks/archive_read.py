"""How fast random windows and whole samples come from a packed store, next to what else people use.

    python benchmarks/archive_read.py [--data DIR] [--samples N]

All contenders hold the same 12-band 128x128 uint16 patches and answer the same random requests, in one process
and from a warm page cache. They take turns, in an order that is drawn anew each round, and every ratio is the
median over the rounds of a ratio within one round: other load on the machine falls on all of them alike.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import zarr
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rich.console import Console
from rich.table import Table

from machine import describe
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.derived.wrapper import WrapperArchive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import ZARRS, PackedArchive
from terrasieve.archive.protocol import Archive, Window
from terrasieve.archive.quality.limits import QualityLimits
from terrasieve.archive.scenes.survey import ScenesSpec, SensorFolder
from terrasieve.archive.scenes.tiled import ScenesArchive
from terrasieve.console import track
from terrasieve.sensors import Sensor
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

SEED = 0
SIZE, WINDOW = 128, 64
ROUNDS = 9
BANDS = 12


@dataclass(frozen=True)
class Request:
    """A sample, one band of it and the corner of a window."""

    index: int
    band: int
    top: int
    left: int


@dataclass(frozen=True)
class Contender:
    """A way to keep patches: reads one-band windows and whole samples; ``share`` of the requests per round."""

    name: str
    window: Callable[[Request], NDArray[Any]]
    sample: Callable[[Request], NDArray[Any]]
    share: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with terramesh_sites; simulated pixels when left out")
    parser.add_argument("--samples", type=int, default=256, help="patches (default 256, 100 MB a copy)")
    arguments = parser.parse_args()
    screen = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="archive_read_") as folder:
        archive = open_pixels(arguments.data, arguments.samples)
        what = "SIMULATED pixels" if archive.source["simulated"] else f"real pixels of {arguments.data}"
        contenders = build(archive, Path(folder))
        verify(contenders, archive)
        windows = race(contenders, "window", 4000, len(archive))
        samples = race(contenders, "sample", 600, len(archive))
    screen.print(f"{describe(SEED)}; {what}")
    screen.print(f"{len(archive)} patches of {BANDS}x{SIZE}x{SIZE} uint16, warm cache, one process, {ROUNDS} rounds")
    screen.print(report(contenders, windows, samples))
    print(json.dumps(summarise(windows, samples) | {"simulated": archive.source["simulated"], "samples": len(archive)}))


# ------------------------------------------------------------------------ the contenders


def open_pixels(data: Path | None, samples: int) -> Archive:
    """Patches of Sentinel-2 L2A: crops of the five sites, over and over, or simulated ones."""
    if data is None:
        return SimulatedArchive(SimulatedSpec(seed=SEED, samples=samples, size=SIZE, cloudy=0))
    folder = SensorFolder(folder=Path("S2L2A"), sensor="s2-l2a")
    spec = ScenesSpec(root=data / "terramesh_sites", sensors={"s2": folder}, tile=SIZE, stride=16)
    scenes = ScenesArchive(spec)
    return SubsetArchive(scenes, np.arange(samples) % len(scenes))


def build(archive: Archive, folder: Path) -> list[Contender]:
    """Write the same pixels in every way."""
    pixels = np.stack([archive.read(i, "s2") for i in track(range(len(archive)), "Patches", len(archive))])
    pixels = pixels.astype(np.uint16)
    source = InMemory(archive, pixels)
    everything = QualityLimits(max_nodata=0.99, check_units=False)
    pack(source, folder / "packed.zarr", max_bad=0, limits=everything)
    pack(source, folder / "compressed.zarr", compress=True, max_bad=0, limits=everything)
    pixels.tofile(folder / "pixels.bin")
    mapped = np.memmap(folder / "pixels.bin", np.uint16, "r", shape=pixels.shape)
    tiffs = write_geotiff(pixels, folder / "geotiff")
    return [
        packed(folder / "packed.zarr", "packed store", 1),
        memory_map(mapped, "raw np.memmap"),
        memory_map(mapped.view(np.ndarray), "np.memmap as ndarray"),
        geotiff(tiffs),
        open_geotiff(tiffs),
        packed(folder / "compressed.zarr", "packed store, compressed", 0.1),
        zarr_array(folder / "compressed.zarr", "zarr-python, compressed", {}, 0.05),
        zarr_array(folder / "packed.zarr", "zarr-python, packed store", {}, 0.005),
        zarr_array(folder / "packed.zarr", "zarrs, packed store", ZARRS, 0.02),
    ]


class InMemory(WrapperArchive):
    """The patches as an archive with one sensor, for packing; gives whole samples only."""

    def __init__(self, archive: Archive, pixels: NDArray[np.uint16]) -> None:
        super().__init__(archive)
        self.pixels = pixels

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The one sensor."""
        return {"s2": self.archive.sensors["s2"]}

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return SIZE, SIZE

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        return self.pixels[index]


def packed(root: Path, name: str, share: float) -> Contender:
    archive = PackedArchive(root)
    bands = [(band,) for band in archive.sensors["s2"].names]

    def window(r: Request) -> NDArray[Any]:
        return archive.read(r.index, "s2", bands[r.band], (r.top, r.left, WINDOW, WINDOW))  # type: ignore[arg-type]

    return Contender(name, window, lambda r: archive.read(r.index, "s2"), share)


def memory_map(pixels: NDArray[np.uint16], name: str) -> Contender:
    def window(r: Request) -> NDArray[Any]:
        return pixels[r.index, r.band : r.band + 1, r.top : r.top + WINDOW, r.left : r.left + WINDOW].copy()

    return Contender(name, window, lambda r: pixels[r.index].copy(), 1)


def write_geotiff(pixels: NDArray[np.uint16], folder: Path) -> list[Path]:
    """One file a patch, in uncompressed tiles of 64x64, band by band, so that a window is one tile or four."""
    folder.mkdir()
    paths = [folder / f"{i:06d}.tif" for i in range(len(pixels))]
    profile = {"driver": "GTiff", "height": SIZE, "width": SIZE, "count": BANDS, "dtype": "uint16"}
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for path, patch in track(zip(paths, pixels, strict=True), "GeoTIFF", len(paths)):
            with rasterio.open(path, "w", **profile, **tiles) as file:
                file.write(patch)
    return paths


def geotiff(paths: Sequence[Path]) -> Contender:
    """Each file opened for its read, as a data set of many small files is read."""
    warnings.simplefilter("ignore", NotGeoreferencedWarning)

    def window(r: Request) -> NDArray[Any]:
        with rasterio.open(paths[r.index]) as file:
            part = rasterio.windows.Window(r.left, r.top, WINDOW, WINDOW)
            pixels: NDArray[Any] = file.read([r.band + 1], window=part)
            return pixels

    def sample(r: Request) -> NDArray[Any]:
        with rasterio.open(paths[r.index]) as file:
            pixels: NDArray[Any] = file.read()
            return pixels

    return Contender("GeoTIFF, rasterio", window, sample, 0.05)


def open_geotiff(paths: Sequence[Path]) -> Contender:
    """All files held open, which a data set of some hundred files can afford."""
    files = [rasterio.open(path) for path in paths]

    def window(r: Request) -> NDArray[Any]:
        part = rasterio.windows.Window(r.left, r.top, WINDOW, WINDOW)
        pixels: NDArray[Any] = files[r.index].read([r.band + 1], window=part)
        return pixels

    return Contender("GeoTIFF, held open", window, lambda r: files[r.index].read(), 0.2)


def zarr_array(root: Path, name: str, config: Mapping[str, str], share: float) -> Contender:
    with zarr.config.set(dict(config)):
        array: Any = zarr.open_group(root, mode="r")["s2"]

    def window(r: Request) -> NDArray[Any]:
        return np.asarray(array[r.index, r.band : r.band + 1, r.top : r.top + WINDOW, r.left : r.left + WINDOW])

    return Contender(name, window, lambda r: np.asarray(array[r.index]), share)


# ------------------------------------------------------------------------ the race


def draw(count: int, samples: int, rng: np.random.Generator) -> list[Request]:
    corners = SIZE - WINDOW + 1
    columns = (rng.integers(high, size=count).tolist() for high in (samples, BANDS, corners, corners))
    return [Request(*row) for row in zip(*columns, strict=True)]


def verify(contenders: Sequence[Contender], archive: Archive) -> None:
    """All must give the very same pixels before any is timed."""
    for request in draw(8, len(archive), np.random.default_rng(SEED)):
        window, sample = (getattr(contenders[1], kind)(request) for kind in ("window", "sample"))
        for contender in contenders:
            np.testing.assert_array_equal(contender.window(request), window, contender.name)
            np.testing.assert_array_equal(contender.sample(request), sample, contender.name)


def race(contenders: Sequence[Contender], kind: str, count: int, samples: int) -> dict[str, list[float]]:
    """Reads per second of each contender in each round; slow ones answer the first few requests of a round."""
    rng = np.random.default_rng(SEED + 1)
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in track(range(ROUNDS + 1), f"Racing: {kind}s", ROUNDS + 1):
        requests = draw(count, samples, rng)
        for position in rng.permutation(len(contenders)).tolist():
            contender = contenders[position]
            rate = speed(getattr(contender, kind), requests[: max(2, round(count * contender.share))])
            if number:  # the first round warms caches
                rates[contender.name].append(rate)
    return rates


def speed(read: Callable[[Request], NDArray[Any]], requests: Sequence[Request]) -> float:
    start = time.perf_counter()
    for request in requests:
        read(request)
    return len(requests) / (time.perf_counter() - start)


# ------------------------------------------------------------------------ the result


def ratio(rates: Mapping[str, list[float]], one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))


def report(
    contenders: Sequence[Contender], windows: Mapping[str, list[float]], samples: Mapping[str, list[float]]
) -> Table:
    table = Table(min_width=100, title="Random reads a second (median of the rounds), and the packed store's advantage")
    table.add_column("contender")
    for heading in (f"one band {WINDOW}x{WINDOW}", "packed is x faster", "whole sample", "packed is x faster"):
        table.add_column(heading, justify="right")
    for name in (contender.name for contender in contenders):
        cells = []
        for rates in (windows, samples):
            cells += [f"{statistics.median(rates[name]):,.0f}", f"{ratio(rates, 'packed store', name):,.2f}"]
        table.add_row(name, *cells)
    return table


def summarise(windows: Mapping[str, list[float]], samples: Mapping[str, list[float]]) -> dict[str, float]:
    peers = {
        "memmap": "raw np.memmap",
        "ndarray": "np.memmap as ndarray",
        "geotiff": "GeoTIFF, rasterio",
        "geotiff_held_open": "GeoTIFF, held open",
        "zarr_python": "zarr-python, packed store",
        "zarrs": "zarrs, packed store",
    }
    kinds = {"window": windows, "sample": samples}
    return {
        f"{kind}_vs_{short}": round(ratio(rates, "packed store", name), 3)
        for kind, rates in kinds.items()
        for short, name in peers.items()
    }


if __name__ == "__main__":
    main()
