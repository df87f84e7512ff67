"""Small GeoTIFF files for the archive's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

WriteTif = Callable[..., NDArray[Any]]


def _write(
    path: Path,
    pixels: NDArray[Any],
    *,
    crs: str | None = "EPSG:32632",
    origin: tuple[float, float] = (500_000.0, 5_000_000.0),
    resolution: float = 10.0,
    names: Sequence[str] = (),
    tags: dict[str, str] | None = None,
) -> NDArray[Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype, "crs": crs}
    profile |= {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    transform = Affine(resolution, 0, origin[0], 0, -resolution, origin[1])
    with rasterio.open(path, "w", transform=transform, **profile) as dataset:
        dataset.write(pixels)
        for position, name in enumerate(names, start=1):
            dataset.set_band_description(position, name)
        dataset.update_tags(**(tags or {}))
    return pixels


@pytest.fixture
def write_tif() -> WriteTif:
    """Write pixels (bands, height, width) as GeoTIFF in deflated blocks of 16 and give them back."""
    return _write


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
