"""A map of vectors as a cloud-optimised GeoTIFF: a band for each dimension, or the colours of their main components."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.windows import Window

from terrasieve.console import console
from terrasieve.embeddings.quantising import MISSING, QUANTISED, Int8Scales, Quantise, describe_error
from terrasieve.embeddings.scene_maps.dense_map import BLOCK_ROWS, DenseJob, SceneMap
from terrasieve.embeddings.scene_maps.kept_rows import VectorRows, keep_rows
from terrasieve.errors import ConfigError
from terrasieve.files.writing import hidden_name, write_whole

TAG = "TERRASIEVE"
"""Name of the tag with what made the vectors, as JSON."""
PICTURE = "picture"
"""Name in it of what the colours of a picture are; a map has none."""
_CACHE_MB = 64
"""Memory that GDAL may keep blocks in."""
_BLOCK = 128
"""Rows and columns of a block, the smallest that the format allows: one holds all dimensions."""
_SPREAD = 2.5
"""Standard deviations of a component that the range of a colour spans, to either side."""


def write_cog(path: Path, job: DenseJob, quantise: Quantise | None = None) -> Path:
    """Compute the map of the one scene of a job into a cloud-optimised GeoTIFF with a band for each dimension.

    A cell without a vector is NaN, of 8 bits -128, and so the file says. What a step of a band of 8 bits is worth is
    the band's scale.

    Args:
        path: File to write; one that is there is replaced.
        job: What is made a map of.
        quantise: As for :func:`terrasieve.embeddings.scene_maps.map_zarr.write_zarr`.

    Raises:
        ConfigError: There are several scenes.
        SampleError: Pixels of the scene cannot be read.
        WriteError: The file cannot be written.
    """
    one, facts = only_map(job), dict(job.facts)
    with write_whole(path) as partial:
        if quantise is None:
            with _cog(partial, one, one.shape[2], "float32", np.nan) as file:
                _write(file, one.blocks())
                _tell(file, one, facts)
            return path
        with (
            keep_rows(one, partial.parent) as rows,
            _cog(partial, one, one.shape[2], "int8", MISSING) as file,
        ):
            scales = Int8Scales.measured(rows.blocks())
            error = scales.error(rows.blocks())
            console.print(describe_error(error), highlight=False)
            _write(file, map(scales.encode, rows.blocks()))
            file.scales = scales.scales.astype(float).tolist()
            _tell(file, one, {**facts, QUANTISED: {"relative_error": error, "missing": MISSING}})
    return path


def write_picture(path: Path, job: DenseJob) -> Path:
    """Compute the map of the one scene of a job into a picture: its three main components as red, green and blue.

    A colour spans 2.5 standard deviations of its component to either side, from 1 to 255; 0 is no data.

    Args:
        path: GeoTIFF to write, cloud-optimised; one that is there is replaced.
        job: What is made a map of.

    Raises:
        ConfigError: There are several scenes.
        SampleError: Pixels of the scene cannot be read.
        WriteError: The file cannot be written.
    """
    one = only_map(job)
    with write_whole(path) as partial, keep_rows(one, partial.parent) as rows:
        components = Components.of(rows)
        told = f"Picture: three components of {rows.shape[2]} with {components.share:.0%} of the variance"
        console.print(told, highlight=False)
        with _cog(partial, one, 3, "uint8", 0) as file:
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
            _write(file, map(components.colours, rows.blocks()))
            _tell(file, one, {**job.facts, PICTURE: {"components": 3, "variance": components.share}})
    return path


def only_map(job: DenseJob) -> SceneMap:
    """The map of the one scene of a job.

    Raises:
        ConfigError: There are several.
    """
    if len(job.maps) > 1:
        names = ", ".join(one.name for one in job.maps[:5])
        raise ConfigError(
            f"A GeoTIFF holds the map of one scene, and there are {len(job.maps)} ({names}, ...). Name the file of one "
            "scene, or write a Zarr store: --out maps.zarr."
        )
    return job.maps[0]


class Components:
    """The three main components of a map, as colours.

    Args:
        middle: Mean of all vectors, shape ``(d,)``.
        axes: What turns vectors into components of the size of a colour, shape ``(d, 3)``.
        share: Share of the variance that they have, 0 to 1.
    """

    def __init__(self, middle: NDArray[np.float32], axes: NDArray[np.float32], share: float) -> None:
        self.middle, self.axes, self.share = middle, axes, share

    @classmethod
    def of(cls, rows: VectorRows) -> Components:
        """The components of all vectors of a map, by its covariance: two numbers a pair of dimensions are in memory."""
        features = rows.shape[2]
        count, total, products = 0, np.zeros(features), np.zeros((features, features))
        for block in rows.blocks():
            for line in block:
                there = line[~np.isnan(line).any(axis=-1)].astype(np.float64)
                count += len(there)
                total += there.sum(axis=0)
                products += there.T @ there
        middle = total / max(1, count)
        values, vectors = np.linalg.eigh(products / max(1, count) - np.outer(middle, middle))
        values = np.maximum(values, 0)
        axes = vectors[:, :-4:-1]
        # A component has no direction of its own: the dimension that counts most in it counts upwards.
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        reach = _SPREAD * np.sqrt(values[:-4:-1])
        scaled = axes * (127 / np.where(reach > 0, reach, np.inf))
        share = float(values[-3:].sum() / values.sum()) if values.any() else 0.0
        return cls(middle.astype(np.float32), scaled.astype(np.float32), share)

    def colours(self, block: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Colours of vectors ``(..., d)``, from 1 to 255, shape ``(..., 3)``; 0 for NaN."""
        levels = np.clip(np.rint((block - self.middle) @ self.axes) + 128, 1, 255)
        return np.where(np.isnan(levels), np.float32(0), levels).astype(np.uint8)


@contextmanager
def _cog(path: Path, one: SceneMap, bands: int, dtype: str, nodata: float) -> Iterator[Any]:
    """A plain file to write to, of which the block's end makes a cloud-optimised one."""
    rows, columns, _ = one.shape
    plain = hidden_name(path, "tif")
    profile = {
        "driver": "GTiff",
        "height": rows,
        "width": columns,
        "count": bands,
        "dtype": dtype,
        "nodata": nodata,
        # Bands one after the other, in the rows that are written at a time, so that nothing is written twice.
        "interleave": "band",
        "tiled": False,
        "blockysize": min(BLOCK_ROWS, rows),
        "BIGTIFF": "IF_SAFER",
    }
    if one.scene.transform is not None:
        profile |= {"crs": one.scene.crs, "transform": Affine(*one.transform)}
    try:
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
            with rasterio.open(plain, "w", **profile) as file:
                yield file
            options = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "BLOCKSIZE": _BLOCK, "BIGTIFF": "IF_SAFER"}
            rasterio.shutil.copy(plain, path, driver="COG", OVERVIEW_RESAMPLING="AVERAGE", **options)
    finally:
        plain.unlink(missing_ok=True)


def _write(file: Any, blocks: Iterator[NDArray[Any]]) -> None:
    top = 0
    for block in blocks:
        rows, columns, _ = block.shape
        file.write(np.moveaxis(block, -1, 0), window=Window(0, top, columns, rows))
        top += rows


def _tell(file: Any, one: SceneMap, facts: Mapping[str, Any]) -> None:
    time = one.scene.time
    said = {"scene": one.name, "time": None if time is None else time.isoformat(), **facts}
    file.update_tags(**{TAG: json.dumps(said)})
