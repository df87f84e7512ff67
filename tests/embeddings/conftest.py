"""A tiny archive in memory, an encoder for it, and the encoder's card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely

from terrasieve.archive.protocol import Archive, BaseArchive, Window
from terrasieve.errors import SampleError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.sensors import SENSORS, BandStatistics, Sensor
from terrasieve.views.render import Normaliser


class MemoryArchive(BaseArchive):
    """Random uint16 pixels of three bands; counts reads, can have unreadable samples and unknown places."""

    def __init__(self, n: int, size: int = 16, broken: Sequence[int] = (), unplaced: Sequence[int] = ()) -> None:
        rng = np.random.default_rng(n)
        self.pixels = [rng.integers(1, 4000, (3, size, size), dtype=np.uint16) for _ in range(n)]
        self.broken, self.unplaced = set(broken), set(unplaced)
        self.reads: Counter[int] = Counter()
        self.corners = rng.uniform(-60, 60, (n, 2))

    sensors: Mapping[str, Sensor] = {"s2": SENSORS["s2-l2a"].select("B04", "B03", "B02")}

    @property
    def ids(self) -> np.ndarray:
        return np.array([f"tile-{i}" for i in range(len(self))], dtype=np.str_)

    @property
    def source(self) -> Mapping[str, Any]:
        return {"layout": "memory", "fingerprint": f"n={len(self)}"}

    def __len__(self) -> int:
        return len(self.pixels)

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        height, width = self.pixels[index].shape[1:]
        return height, width

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> np.ndarray:
        self.reads[index] += 1
        if index in self.broken:
            raise SampleError(f"tile-{index}.tif is truncated.")
        return self.pixels[index][list(positions)]

    def table(self) -> pa.Table:
        boxes = shapely.to_wkb([shapely.box(x, y, x + 1, y + 1) for x, y in self.corners])
        geometry = [None if i in self.unplaced else bytes(box) for i, box in enumerate(boxes)]
        nothing = pa.nulls(len(self), pa.string())
        return pa.table(
            {
                "id": pa.array(self.ids.tolist(), pa.string()),
                "geometry": pa.array(geometry, pa.binary()),
                "time": pa.nulls(len(self), pa.timestamp("us", tz="UTC")),
                "label": pa.array([f"class-{i % 3}" for i in range(len(self))], pa.string()),
                "split": nothing,
                "crs": nothing,
            }
        )


@pytest.fixture
def make_archive() -> Callable[..., MemoryArchive]:
    return MemoryArchive


@pytest.fixture
def normaliser() -> Normaliser:
    statistics = tuple(
        BandStatistics(band=band, count=100, mean=1500 + 100 * i, std=900 + 50 * i, minimum=0, maximum=4000)
        for i, band in enumerate(("B04", "B03", "B02"))
    )
    return Normaliser(MemoryArchive.sensors, {"s2": statistics})


@pytest.fixture
def encoder() -> Encoder:
    return build_encoder(BackboneSpec(name="resnet18", channels=1), seed=0)


@pytest.fixture
def card(normaliser: Normaliser) -> EncoderCard:
    return EncoderCard(
        backbone=BackboneSpec(name="resnet18", channels=1),
        method="byol",
        recipe="rs-byol-1",
        image_size=16,
        sensors=MemoryArchive.sensors,
        view_bands=(),
        statistics=normaliser.statistics,
        provenance={"step": 7},
        weights_sha256="0" * 64,
    )


def _satisfies(archive: MemoryArchive) -> Archive:
    return archive
