"""Products whose bands are files of their own: the scene that they make, and where it holds no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.quality.limits import missing
from terrasieve.archive.readers.gdal import Address
from terrasieve.archive.readers.geotiff import read_stretched
from terrasieve.archive.readers.meaning import meanings
from terrasieve.archive.stac.tiles import StacScene, plan_scene
from terrasieve.sensors import Sensor

_MOST = 2_048
"""Rows or columns that are read to find out where a product holds no data."""


def band_scene(
    files: Sequence[Address], stated: Sequence[Mapping[str, float]], name: str, documents: Sequence[Path] = ()
) -> StacScene:
    """The scene that the files of a product's bands make, on the grid of the finest.

    Args:
        files: One of each band.
        stated: What the product says of the values of each band, by attribute of ``Stated``.
        name: Of the product, for messages.
        documents: Files that say it.

    Raises:
        SampleError: A header cannot be read, or the files do not cover the same ground.
    """
    scene = plan_scene([(address, 0, {}) for address in files], name)
    bands = tuple(replace(band, stated=said) for band, said in zip(scene.bands, stated, strict=True))
    return replace(scene, bands=bands, documents=tuple(documents))


def on_grid_of(scene: StacScene, finest: StacScene) -> StacScene:
    """The same files on the grid of another scene of the same product, as a mask is on that of the bands."""
    return replace(scene, height=finest.height, width=finest.width, crs=finest.crs, transform=finest.transform)


def empty_pixels(scene: StacScene, sensor: Sensor) -> NDArray[np.bool_]:
    """Where the coarsest band was not measured, at its own resolution or, of large files, at a lower one.

    Args:
        scene: Files of the bands.
        sensor: The bands.

    Raises:
        SampleError: The band cannot be read.
    """
    position = min(range(len(scene.bands)), key=lambda place: scene.bands[place].height)
    band = scene.bands[position]
    shrink = max(1, -(-max(band.height, band.width) // _MOST))
    size = (max(1, band.height // shrink), max(1, band.width // shrink))
    wanted = replace(meanings(sensor, [position], count=0)[0], stated=band.stated)
    box = (0.0, 0.0, float(band.height), float(band.width))
    return missing(read_stretched(band.address, band.position, box, *size, wanted), sensor.nodata)
