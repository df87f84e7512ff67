"""Real pixels, as products are written from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rasterio
from numpy.typing import NDArray

from terrasieve.archive.catalogue import index_archive, read_catalogue
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive

SIDE = 216
"""Pixels of 10 m along a scene: divisible by those of 20, 30 and 60 m."""


@pytest.fixture(scope="session")
def site(data_dir: Path) -> Callable[[str], NDArray[Any]]:
    """Real pixels of one product of a site, shape ``(bands, SIDE, SIDE)``."""

    def read(product: str, number: int = 0) -> NDArray[Any]:
        path = sorted((data_dir / "terramesh_sites" / product).glob("*.tif"))[number]
        with rasterio.open(path) as dataset:
            pixels: NDArray[Any] = dataset.read()
        return pixels[:, :SIDE, :SIDE]

    return read


@pytest.fixture
def indexed_and_packed(tmp_path: Path) -> Callable[[Archive], Iterator[Archive]]:
    """The archive that a catalogue of an archive opens, and its packed store; both hold all of its samples."""

    def keep(archive: Archive) -> Iterator[Archive]:
        report = index_archive(archive, tmp_path / "kept.parquet", max_bad=0.0)
        assert report.samples == len(archive)
        catalogue = read_catalogue(tmp_path / "kept.parquet")
        yield catalogue.restrict(archive)
        pack(archive, tmp_path / "kept.zarr", max_bad=0.0)
        yield PackedArchive(tmp_path / "kept.zarr")

    return keep
