"""GEO-Bench-2: tortillas of tortillas of GeoTIFF."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from small_archives.making import Bench, makes
from terrasieve.archive.layouts.geobench2 import GeoBench2Spec
from terrasieve.archive.protocol import Archive

SPLITS = ("train", "validation", "test")
HEADER = 200


def as_tif(pixels: NDArray[Any], resolution: float | None = 10.0) -> bytes:
    """A GeoTIFF of pixels ``(bands, height, width)``; one that lies nowhere without a resolution."""
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
    if resolution is not None:
        profile |= {"crs": "EPSG:32632", "transform": Affine(resolution, 0, 5e5, 0, -resolution, 5e6)}
    with MemoryFile() as file:
        with file.open(**profile, compress="deflate", interleave="pixel") as dataset:
            dataset.write(pixels)
        return bytes(file.read())


def tortilla(parts: Sequence[tuple[dict[str, Any], bytes]]) -> bytes:
    """A tortilla of parts: of each a row of the table without offset and length, and the bytes."""
    rows, offset = [], HEADER
    for row, content in parts:
        rows.append(row | {"tortilla:offset": offset, "tortilla:length": len(content)})
        offset += len(content)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="zstd", use_dictionary=False)
    footer = sink.getvalue()
    numbers = offset.to_bytes(8, "little") + len(footer).to_bytes(8, "little")
    header = (b"#y" + numbers + b"TORTILLA".ljust(24) + (1).to_bytes(8, "little")).ljust(HEADER, b"\0")
    return header + b"".join(content for _, content in parts) + footer


def sample(rasters: Mapping[str, bytes], split: str, columns: Mapping[str, Any]) -> bytes:
    """One sample with its rasters by name."""
    row = {"tortilla:data_split": split, **columns}
    parts = [({"tortilla:id": name, "tortilla:file_format": "GTiff", **row}, tif) for name, tif in rasters.items()]
    return tortilla(parts)


def write(path: Path, samples: Sequence[Mapping[str, bytes]], columns: Sequence[Mapping[str, Any]]) -> Path:
    """Write the file of a data set, whose samples take turns in train, validation and test."""
    parts = []
    for number, (rasters, said) in enumerate(zip(samples, columns, strict=True)):
        split = SPLITS[number % 3]
        row = {"tortilla:id": f"sample_{number}", "tortilla:file_format": "TORTILLA", "tortilla:data_split": split}
        parts.append((row | dict(said), sample(rasters, split, said)))
    path.write_bytes(tortilla(parts))
    return path


def stated(size: int, **more: Any) -> dict[str, Any]:
    return {"stac:crs": "EPSG:32632", "stac:raster_shape": [size, size], "stac:time_start": 1527552000.0, **more}


@makes("geobench2")
def benv2(bench: Bench) -> Archive:
    """BigEarthNet's two sensors."""
    samples = [{"s1": as_tif(bench.radar(24)), "s2": as_tif(bench.optical(12, 24), 60)} for _ in range(3)]
    columns = [stated(24, labels=labels) for labels in (["Pastures"], ["Marine waters", "Pastures"], ["Mixed forest"])]
    write(bench.folder / "geobench_benv2.tortilla", samples, columns)
    return GeoBench2Spec(root=bench.folder).open()


@makes("geobench2")
def flair2(bench: Bench) -> Archive:
    """A sensor of which a band is left out, and a map."""
    samples = [
        {
            "aerial": as_tif(bench.rng.integers(1, 256, (5, 24, 24)).astype(np.uint8), 0.2),
            "mask": as_tif(bench.rng.integers(1, 20, (1, 24, 24)).astype(np.uint8), 0.2),
        }
        for _ in range(2)
    ]
    write(bench.folder / "geobench_flair2.tortilla", samples, [stated(24), stated(24)])
    return GeoBench2Spec(root=bench.folder).open()
