"""Reading maps of vectors back, as float32 whatever they are stored as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from terrasieve.archive.cubes.guarded_opening import check_zarr_metadata, is_zarr
from terrasieve.archive.protocol import Window, leaves, window_error
from terrasieve.archive.readers.byte_limits import check_array_bytes
from terrasieve.archive.readers.gdal import FAILURES, open_raster
from terrasieve.archive.readers.handles import DECODING_FAILURES
from terrasieve.embeddings.quantising import Int8Scales
from terrasieve.embeddings.scene_maps.map_cog import PICTURE, TAG
from terrasieve.embeddings.scene_maps.map_zarr import OWN, SCALES, VECTORS
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.schema import parse_json

_WRITE = "Write it with `terrasieve embed --dense`."


@dataclass(frozen=True, repr=False)
class DenseMap:
    """The map of vectors of one scene, in a file.

    Attributes:
        path: The Zarr store or GeoTIFF.
        group: Path of the scene's group in the store; empty of a GeoTIFF.
        shape: Rows, columns and length of vectors.
        crs: Such as ``EPSG:32632``, or WKT where there is no code; None where unknown.
        transform: The affine a-f from (column, row) of cells to coordinates.
        facts: What made the vectors, with the scene's name and its time.
    """

    path: Path
    group: str
    shape: tuple[int, int, int]
    crs: str | None
    transform: tuple[float, ...]
    facts: Mapping[str, Any]

    def read(self, window: Window | None = None) -> NDArray[np.float32]:
        """Vectors of some cells.

        Args:
            window: Rows and columns of cells; all when None.

        Returns:
            Float32 ``(rows, columns, features)``; NaN for a cell without a vector.

        Raises:
            ArchiveError: The file cannot be read any more.
            SampleError: The window leaves the map, or asks for more than a read may.
        """
        height, width, features = self.shape
        part = window or Window(0, 0, height, width)
        if leaves(part, height, width):
            raise window_error(part, height, width, f"the map {self.path}")
        check_array_bytes(str(self.path), (part.height, part.width, features), 4)
        try:
            return self._of_store(part) if self.group else self._of_raster(part)
        except (*FAILURES, *DECODING_FAILURES) as error:
            raise ArchiveError(f"{self.path} cannot be read: {error}. {_WRITE}") from error

    def __repr__(self) -> str:
        rows, columns, features = self.shape
        return f"<DenseMap: {rows:,} x {columns:,} cells, {features} numbers each, {self.crs or 'of no known place'}>"

    def _of_store(self, part: Window) -> NDArray[np.float32]:
        group: Any = zarr.open_group(str(self.path), mode="r", zarr_format=3, use_consolidated=False)[self.group]
        stored = group[VECTORS][part.top : part.top + part.height, part.left : part.left + part.width]
        if stored.dtype != np.int8:
            return np.asarray(stored, dtype=np.float32)
        return Int8Scales(np.asarray(group[SCALES][:], dtype=np.float32)).decode(stored)

    def _of_raster(self, part: Window) -> NDArray[np.float32]:
        opened = open_raster(self.path)
        try:
            stored = opened.dataset.read(window=RasterWindow(part.left, part.top, part.width, part.height))
            scales = np.asarray(opened.dataset.scales, dtype=np.float32)
        finally:
            opened.dataset.close()
        vectors = np.moveaxis(stored, 0, -1)
        return Int8Scales(scales).decode(vectors) if stored.dtype == np.int8 else np.asarray(vectors, dtype=np.float32)


def open_maps(path: str | Path) -> dict[str, DenseMap]:
    """The maps of a file of ``terrasieve embed --dense``, by the names of their scenes; no vectors are read.

    Args:
        path: A Zarr store, or a GeoTIFF with a band for each dimension.

    Raises:
        ArchiveError: It does not exist, is damaged or holds no maps.
    """
    place = Path(path)
    try:
        found = _in_store(place) if is_zarr(place) else [_in_raster(place)]
    except SampleError as error:
        raise ArchiveError(f"{path} holds no maps of vectors: {error}") from error
    except (*FAILURES, *DECODING_FAILURES, LookupError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{path} holds no maps of vectors: {error!r}. {_WRITE}") from error
    if not found:
        raise ArchiveError(f"{path} holds no maps of vectors. {_WRITE}")
    return {str(one.facts["scene"]): one for one in found}


def _in_store(path: Path) -> list[DenseMap]:
    check_zarr_metadata(path)
    root = zarr.open_group(str(path), mode="r", zarr_format=3, use_consolidated=False)
    found = []
    for name, array in root.members(max_depth=None):
        place, _, own = name.rpartition("/")
        if own != VECTORS or not isinstance(array, zarr.Array) or not place:
            continue
        check_array_bytes(f"{path}, a chunk of {name!r},", array.chunks, array.dtype.itemsize)
        attributes: Any = root[place].attrs
        rows, columns, features = array.shape
        crs = attributes.get("proj:code", attributes.get("proj:wkt2"))
        transform = tuple(float(one) for one in attributes["spatial:transform"])
        found.append(DenseMap(path, place, (rows, columns, features), crs, transform, dict(attributes[OWN])))
    return found


def _in_raster(path: Path) -> DenseMap:
    opened = open_raster(path)
    try:
        dataset = opened.dataset
        facts = parse_json(dataset.tags()[TAG])
        if PICTURE in facts:
            raise ArchiveError(f"{path} holds no maps of vectors: it is a picture of one. Leave --picture out.")
        shape = (dataset.height, dataset.width, dataset.count)
        crs = dataset.crs.to_string() if dataset.crs else None
        return DenseMap(path, "", shape, crs, tuple(dataset.transform)[:6], facts)
    finally:
        opened.dataset.close()
