"""Writers of small data sets in the layouts that they ship in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray


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
