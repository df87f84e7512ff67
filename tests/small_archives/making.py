"""What a maker is given, where makers are listed, and GeoTIFF as most layouts have them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from terrasieve.archive.protocol import Archive


class Bench:
    """Where a maker writes, and pixels to write.

    Attributes:
        folder: Empty.
        rng: The same draws for every maker.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(0)

    def optical(self, bands: int, size: int) -> NDArray[np.uint16]:
        """Reflectance times 10,000, as dark as ground without an offset."""
        return self.rng.integers(1, 4000, (bands, size, size)).astype(np.uint16)

    def radar(self, size: int) -> NDArray[np.float32]:
        """Decibels in VV and VH."""
        return self.rng.normal(-14, 3, (2, size, size)).astype(np.float32)

    def picture(self, height: int, width: int) -> NDArray[np.uint8]:
        """Red, green and blue, shape ``(height, width, 3)``."""
        return self.rng.integers(1, 256, (height, width, 3)).astype(np.uint8)


Maker = Callable[[Bench], Archive]

MAKERS: defaultdict[str, list[Maker]] = defaultdict(list)
"""By the name of a layout, what makes archives whose specification is of this layout."""


def makes(layout: str) -> Callable[[Maker], Maker]:
    """Add the function to :data:`MAKERS`."""

    def add(maker: Maker) -> Maker:
        MAKERS[layout].append(maker)
        return maker

    return add


def write_tif(
    path: Path,
    pixels: NDArray[Any],
    *,
    crs: str | None = "EPSG:32632",
    origin: tuple[float, float] = (500_000.0, 5_000_000.0),
    resolution: float = 10.0,
    block: int = 16,
    names: Sequence[str] = (),
    tags: dict[str, str] | None = None,
) -> NDArray[Any]:
    """Write pixels (bands, height, width) as GeoTIFF in deflated square blocks and give them back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype, "crs": crs}
    profile |= {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "deflate"}
    transform = Affine(resolution, 0, origin[0], 0, -resolution, origin[1])
    with rasterio.open(path, "w", transform=transform, **profile) as dataset:
        dataset.write(pixels)
        for position, name in enumerate(names, start=1):
            dataset.set_band_description(position, name)
        dataset.update_tags(**(tags or {}))
    return pixels
