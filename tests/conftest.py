"""Fixtures that every room's tests may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before torch is imported: on tensors this small a second thread costs more than it gives, and two test
# processes with two threads each would wait for each other. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import settings
from numpy.typing import NDArray
from rasterio.transform import Affine

# No test measures time: on a busy machine an example may take as long as it takes.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[1]


def find_data() -> Path | None:
    """The folder with real Sentinel samples: $TERRASIEVE_DATA, else shared/data beside the checkout."""
    named = os.environ.get("TERRASIEVE_DATA")
    candidates = [Path(named)] if named else [ROOT.parent / "shared" / "data"]
    return next((c for c in candidates if (c / "la_texas_pairs").is_dir()), None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real Sentinel data, or skip with the reason."""
    found = find_data()
    if found is None:
        pytest.skip("no real Sentinel data: set TERRASIEVE_DATA to a folder that holds la_texas_pairs")
    return found


@pytest.fixture(autouse=True)
def _leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)


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


@pytest.fixture(scope="session")
def write_tif() -> WriteTif:
    """Write pixels (bands, height, width) as GeoTIFF in deflated blocks of 16 and give them back."""
    return _write


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
