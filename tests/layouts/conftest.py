"""Writers of small data sets in the layouts that they ship in."""

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
) -> NDArray[Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype, "crs": crs}
    transform = Affine(resolution, 0, origin[0], 0, -resolution, origin[1])
    with rasterio.open(path, "w", transform=transform, **profile) as dataset:
        dataset.write(pixels)
        for position, name in enumerate(names, start=1):
            dataset.set_band_description(position, name)
    return pixels


@pytest.fixture(scope="session")
def write_tif() -> WriteTif:
    """Write pixels (bands, height, width) as GeoTIFF and give them back."""
    return _write


@pytest.fixture(scope="session")
def site(data_dir: Path) -> Callable[..., NDArray[Any]]:
    """Real pixels of one product of a site, mirrored at the edges to the size wanted."""

    def read(product: str, number: int = 0, size: int = 256) -> NDArray[Any]:
        path = sorted((data_dir / "terramesh_sites" / product).glob("*.tif"))[number]
        with rasterio.open(path) as dataset:
            pixels = dataset.read()
        more = max(0, size - pixels.shape[1])
        return np.pad(pixels, ((0, 0), (0, more), (0, more)), mode="symmetric")[:, :size, :size]

    return read


@pytest.fixture(scope="session")
def scene(data_dir: Path) -> NDArray[np.uint8]:
    """A real scene as red, green and blue of 8 bits, shape ``(1024, 1024, 3)``."""
    with rasterio.open(min((data_dir / "la_texas_pairs" / "s2").glob("*.tif"))) as dataset:
        pixels: NDArray[np.uint8] = dataset.read()
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
