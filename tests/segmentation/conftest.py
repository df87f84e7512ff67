"""An archive in memory whose land cover can be read off its pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.sensors import SENSORS, Sensor

OPTICAL = SENSORS["s2-l2a"].select("B04", "B03", "B02")
VALUES = (1, 2, 4)
"""Of the land cover; 0 is added where a test wants pixels without a class."""


class MappedArchive(BaseArchive):
    """Images of blocks of 8 px, three classes told apart by brightness; ``images_per_site`` in a row are one site."""

    sensors: Mapping[str, Sensor] = {"s2": OPTICAL, "cover": SENSORS["land-cover"]}

    def __init__(self, sites: int = 4, images_per_site: int = 2, size: int = 32, coarse: int = 1) -> None:
        rng = np.random.default_rng(7)
        count = sites * images_per_site
        blocks = rng.integers(0, 3, (count, size // 8, size // 8))
        blocks[:, 0, :3] = np.arange(3)
        codes = blocks.repeat(8, axis=1).repeat(8, axis=2)
        noise = rng.normal(size=(count, 3, size, size))
        self.pixels = (1000 + 800 * codes[:, None] + 20 * noise).astype(np.float32)
        self.cover = np.array(VALUES, dtype=np.uint8)[codes[:, ::coarse, ::coarse]]
        self.sites = np.repeat(np.arange(sites), images_per_site)
        self.columns: dict[str, list[Any]] = {}

    @property
    def ids(self) -> np.ndarray:
        return np.array([f"tile-{i}" for i in range(len(self))], dtype=np.str_)

    @property
    def source(self) -> Mapping[str, Any]:
        return {"layout": "memory", "root": None, "simulated": True}

    def __len__(self) -> int:
        return len(self.pixels)

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return self._read(index, sensor, (0,), None).shape[1:]

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> np.ndarray:
        if sensor == "cover":
            return self.cover[index][None]
        return self.pixels[index][list(positions)]

    def table(self) -> pa.Table:
        sites = [f"site-{site}" for site in self.sites]
        return pa.table({"id": self.ids.tolist(), "asset:cover": sites, **self.columns})


@pytest.fixture
def make_mapped() -> Callable[..., MappedArchive]:
    return MappedArchive


@pytest.fixture(scope="session")
def single_band() -> Encoder:
    return build_encoder(BackboneSpec(name="resnet18", channels=1), seed=3)
