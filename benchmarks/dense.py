"""A map of vectors of a scene: seams between tiles, memory, what 8 bits cost, and whether others open it.

The scene is 2,048 x 2,048 pixels of red, green and blue: a real one of ``la_texas_pairs``, mirrored at its edges, or
texture of all scales where there are no data. The encoder is untrained (``--backbone``), its batch norms are measured
on the scene. It is embedded every ``--stride`` pixels into a Zarr store, as float32 and as int8, into a GeoTIFF and as
a picture.

- ``seam_ratio``: the mean step from a cell to the next, across borders of tiles, over that elsewhere; down and across.
  Of a network whose own cells are coarser than the stride, only steps at the same place within these are compared.
- ``peak_mb``: the most memory in MB, beyond what the process held before, of the map as int8; ``float_peak_mb`` of that
  as float32, ``half_peak_mb`` of that of a scene of half as many rows, which tells whether memory grows.
- ``int8_knn_points``: kNN accuracy of vectors of EuroSAT as float32 less that of the same vectors as int8, in points of
  per cent; ``int8_error`` is the share of the vectors' length that int8 loses on the map.
- ``zarr_opens``, ``cog_opens``: whether xarray and rasterio find the same vectors in the files as terrasieve.

    python benchmarks/dense.py --data ../shared/data

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray
from numpy.typing import NDArray
from rasterio.transform import Affine
from rich.console import Console
from rich.table import Table

from kmeans_memory import Peak
from machine import describe
from terrasieve.archive.archive_options import ArchiveOptions
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.scenes.whole_scene import whole_scenes
from terrasieve.embeddings import EmbedSettings, EncoderInput, normaliser_for, read_embeddings, write_embeddings
from terrasieve.embeddings.quantising import Quantise
from terrasieve.embeddings.scene_maps.dense_cells import DenseSettings, MapGrid
from terrasieve.embeddings.scene_maps.dense_map import DenseJob
from terrasieve.embeddings.scene_maps.making import dense_job, write_maps
from terrasieve.embeddings.scene_maps.map_reading import DenseMap, open_maps
from terrasieve.embeddings.stream import calibrated_encoders
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.probes.knn import KnnProbe

RGB = EncoderInput.parse("s2:B04,B03,B02")
SIZE = 2048
SHIFT = 500
"""Pixels before a mirrored scene begins, so that no mirror lies on a border of tiles."""


def main() -> None:
    """Measure, show and end with a line of JSON."""
    arguments = parse()
    encoder, card = untrained(arguments.backbone, arguments.seed)
    with tempfile.TemporaryDirectory(prefix="terrasieve-dense-", dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        found = measure_maps(folder, encoder, card, arguments)
        found |= measure_knn(folder, encoder, card, arguments)
    table = Table("figure", "value", title=describe(arguments.seed))
    for name, value in found.items():
        table.add_row(name, str(value))
    Console().print(table)
    print(json.dumps(found))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TERRASIEVE_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="holds la_texas_pairs and eurosat_rgb")
    parser.add_argument("--backbone", default="resnet18", help="a ResNet or ViT of timm")
    parser.add_argument("--stride", type=int, default=8, help="pixels from one vector to the next")
    parser.add_argument("--tile", type=int, help="pixels a side of what the encoder is shown; its own choice")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels a side of the scene")
    parser.add_argument("--samples", type=int, default=3000, help="samples of EuroSAT, two thirds of them for training")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of what is drawn")
    parser.add_argument("--scratch", type=Path, help="folder for what is written meanwhile; the system's")
    return parser.parse_args()


def untrained(name: str, seed: int) -> tuple[Encoder, EncoderCard]:
    """An encoder for patches of 64 pixels, and what a card says of it."""
    spec = BackboneSpec(name=name, channels=3, image_size=64 if name.startswith(("vit", "test_vit")) else None)
    card = EncoderCard(
        backbone=spec,
        method="none",
        recipe="random init",
        image_size=64,
        sensors={},
        view_bands=(),
        statistics={},
        weights_sha256="0" * 64,
    )
    return build_encoder(spec, seed).eval(), card


# ------------------------------------------------------------------------ maps


def measure_maps(folder: Path, encoder: Encoder, card: EncoderCard, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seams, memory, and what opens."""
    pixels = scene_pixels(arguments.data, arguments.size, arguments.seed)
    scene = write_scene(folder / "whole.tif", pixels)
    upper = write_scene(folder / "half.tif", pixels[:, : arguments.size // 2])
    stores = [folder / name for name in ("half.zarr", "int8.zarr", "float.zarr")]
    half, _ = in_a_process(upper, stores[0], "int8", arguments)
    peak, seconds = in_a_process(scene, stores[1], "int8", arguments)
    float_peak, _ = in_a_process(scene, stores[2], None, arguments)
    job = job_on(scene, encoder, card, arguments)
    raster = write_maps(folder / "map.tif", job, "int8")
    picture = write_maps(folder / "picture.tif", job, picture=True)
    (whole,), (small,) = open_maps(stores[2]).values(), open_maps(stores[1]).values()
    one = job.maps[0]
    lattice = math.lcm(arguments.stride, job.native) // arguments.stride
    return {
        "seam_ratio": round(seam_ratio(whole.read(), one.grid, lattice), 4),
        "peak_mb": peak,
        "float_peak_mb": float_peak,
        "half_peak_mb": half,
        "int8_error": round(small.facts["quantization"]["relative_error"], 5),
        "zarr_opens": opens_as_zarr(whole) and opens_as_zarr(small),
        "cog_opens": opens_as_cog(raster, small) and is_cog(picture),
        "cells": list(one.shape),
        "seconds": round(seconds, 1),
    }


def scene_pixels(data: Path, size: int, seed: int) -> NDArray[np.uint8]:
    """Red, green and blue, ``(3, size, size)``."""
    real = next(iter(sorted((data / "la_texas_pairs" / "s2").glob("*.tif"))), None)
    if real is None:
        rng = np.random.default_rng(seed)
        spectrum = np.fft.rfft2(rng.normal(size=(3, size, size)))
        distance = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
        field = np.fft.irfft2(spectrum / np.maximum(distance, 1 / 256), s=(size, size))
        return np.clip(127 + 50 * field / field.std(), 1, 255).astype(np.uint8)
    with rasterio.open(real) as dataset:
        pixels: NDArray[np.uint8] = dataset.read()
    after = [max(0, size - side - SHIFT) for side in pixels.shape[1:]]
    mirrored = np.pad(pixels, ((0, 0), (SHIFT, after[0]), (SHIFT, after[1])), mode="symmetric")
    return mirrored[:, :size, :size]


def write_scene(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """A tiled GeoTIFF in a zone of UTM."""
    profile = {"driver": "GTiff", "count": 3, "height": pixels.shape[1], "width": pixels.shape[2], "dtype": "uint8"}
    profile |= {"crs": "EPSG:32613", "transform": Affine(10, 0, 5e5, 0, -10, 4e6), "tiled": True}
    with rasterio.open(path, "w", compress="deflate", **profile) as dataset:
        dataset.write(pixels)
    return path


def job_on(path: Path, encoder: Encoder, card: EncoderCard, arguments: argparse.Namespace) -> DenseJob:
    """What is computed of a scene."""
    archive, scenes = whole_scenes(ArchiveOptions(("s2=s2-rgb8",)).spec(str(path)), str(path))
    settings = DenseSettings(stride=arguments.stride, tile=arguments.tile)
    return dense_job(encoder, card, archive, scenes, [RGB], "archive", settings)


def in_a_process(scene: Path, out: Path, quantise: Quantise | None, arguments: argparse.Namespace) -> tuple[int, float]:
    """What :func:`cost_of` measures, in a process that has done nothing else: memory once had is hardly given back."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(cost_of, scene, out, quantise, arguments).result()


def cost_of(scene: Path, out: Path, quantise: Quantise | None, arguments: argparse.Namespace) -> tuple[int, float]:
    """MB that a map takes at most, beyond what was held before, and seconds."""
    job = job_on(scene, *untrained(arguments.backbone, arguments.seed), arguments)
    with Peak() as held:
        start = time.perf_counter()
    with Peak() as peak:
        write_maps(out, job, quantise)
    return round((peak.bytes - held.bytes) / 1e6), time.perf_counter() - start


def seam_ratio(vectors: NDArray[np.float32], grid: MapGrid, lattice: int) -> float:
    """Steps across borders of tiles over steps elsewhere, the mean of rows and columns."""
    ratios = []
    for axis, starts in ((0, grid.tops), (1, grid.lefts)):
        steps = np.linalg.norm(np.diff(vectors, axis=axis), axis=-1).mean(axis=1 - axis)
        borders = {edge // grid.stride for start in starts for edge in (start, start + grid.tile)}
        at = np.isin(np.arange(1, len(steps) + 1), list(borders))
        alike = np.arange(1, len(steps) + 1) % lattice == 0
        ratios.append(steps[at].mean() / steps[~at & alike].mean())
    return float(np.mean(ratios))


def opens_as_zarr(written: DenseMap) -> bool:
    """Whether xarray finds the vectors in a store, and where they lie."""
    found = xarray.open_zarr(written.path, group=written.group)
    vectors = found.embeddings.to_numpy()
    if "scales" in found:
        vectors = vectors.astype(np.float32) * found.scales.to_numpy()
    a, _, c, _, e, f = written.transform
    placed = found.x.to_numpy()[0] == c + a / 2 and found.y.to_numpy()[0] == f + e / 2
    return bool(placed and found.attrs["proj:code"] == written.crs and np.array_equal(vectors, written.read()))


def opens_as_cog(path: Path, same: DenseMap) -> bool:
    """Whether rasterio finds the vectors of a map of 8 bits in a file, and where they lie."""
    with rasterio.open(path) as dataset:
        vectors = np.moveaxis(dataset.read(), 0, -1).astype(np.float32) * np.float32(dataset.scales)
        placed = tuple(dataset.transform)[:6] == same.transform and dataset.crs.to_string() == same.crs
    return bool(is_cog(path) and placed and np.array_equal(vectors, same.read()))


def is_cog(path: Path) -> bool:
    """Whether GDAL finds a file cloud-optimised."""
    with rasterio.open(path) as dataset:
        return bool(dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG")


# ------------------------------------------------------------------------- kNN


def measure_knn(folder: Path, encoder: Encoder, card: EncoderCard, arguments: argparse.Namespace) -> dict[str, Any]:
    """What 8 bits cost kNN on EuroSAT."""
    place = arguments.data / "eurosat_rgb"
    if not place.is_dir():
        return {"int8_knn_points": None}
    archive = open_archive(place)
    drawn = np.random.default_rng(arguments.seed).permutation(len(archive))[: arguments.samples]
    accuracies = {}
    stored: tuple[Quantise | None, ...] = (None, "int8")
    for quantise in stored:
        path = embed_samples(folder / f"{quantise}.parquet", encoder, card, archive, drawn, quantise)
        table = read_embeddings(path)
        labels = np.unique(table.columns["label"].to_pylist(), return_inverse=True)[1]
        # Rows lie in the same order in both files; without places that is the drawn one.
        cut = len(table) * 2 // 3
        probe = KnnProbe().fit(table.joined[:cut], labels[:cut])
        accuracies[quantise] = float((probe.predict(table.joined[cut:]) == labels[cut:]).mean())
    lost = 100 * (accuracies[None] - accuracies["int8"])
    return {
        "int8_knn_points": round(lost, 3),
        "knn": round(accuracies[None], 4),
        "int8_knn": round(accuracies["int8"], 4),
    }


def embed_samples(
    path: Path,
    encoder: Encoder,
    card: EncoderCard,
    archive: Archive,
    drawn: NDArray[np.int64],
    quantise: Quantise | None,
) -> Path:
    """Vectors of samples in a file."""
    shown = [EncoderInput.parse(f"{next(iter(archive.sensors))}:rgb").resolve(archive.sensors)]
    normaliser = normaliser_for("archive", card, archive, shown)
    settings = EmbedSettings()
    encoders = calibrated_encoders(encoder, archive, shown, normaliser, settings, drawn, 0)
    return write_embeddings(path, encoders, card, archive, shown, normaliser, settings, drawn, quantise=quantise)


if __name__ == "__main__":
    main()
