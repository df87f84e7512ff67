"""A labelled archive in memory whose classes differ in brightness and texture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.sensors import SENSORS, BandStatistics, Sensor

SENSOR = SENSORS["s2-l2a"].select("B04", "B03", "B02")


class LabelledArchive(BaseArchive):
    """Three classes, 16 px; ``shift`` is added to the pixels of the test split only."""

    sensors: Mapping[str, Sensor] = {"s2": SENSOR}

    def __init__(self, n: int = 90, shift: float = 0.0) -> None:
        rng = np.random.default_rng(5)
        self.labels = np.arange(n) % 3
        self.split = np.array(["train", "train", "train", "val", "test", "test"])[np.arange(n) // 3 % 6]
        level = np.array([900, 1500, 2100])[self.labels][:, None, None, None]
        self.pixels = (level + 200 * rng.normal(size=(n, 3, 16, 16))).astype(np.float32)
        self.pixels[self.split == "test"] += shift
        self.reads: Counter[int] = Counter()

    @property
    def ids(self) -> np.ndarray:
        return np.array([f"tile-{i}" for i in range(len(self))], dtype=np.str_)

    @property
    def source(self) -> Mapping[str, Any]:
        return {"layout": "memory", "root": "here", "simulated": True}

    def __len__(self) -> int:
        return len(self.labels)

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return 16, 16

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> np.ndarray:
        self.reads[index] += 1
        return self.pixels[index][list(positions)]

    def table(self) -> pa.Table:
        return pa.table({"label": [f"class-{label}" for label in self.labels], "split": self.split.tolist()})


@pytest.fixture
def make_labelled() -> Callable[..., LabelledArchive]:
    return LabelledArchive


@pytest.fixture
def encoder() -> Encoder:
    return build_encoder(BackboneSpec(name="resnet18", channels=1), seed=3)


@pytest.fixture
def card() -> EncoderCard:
    return EncoderCard(
        backbone=BackboneSpec(name="resnet18", channels=1),
        method="byol",
        recipe="rs-byol-1",
        image_size=16,
        sensors={"s2": SENSOR},
        view_bands=(),
        statistics={
            "s2": tuple(BandStatistics(band=b, count=1, mean=0, std=1, minimum=0, maximum=1) for b in SENSOR.names)
        },
        provenance={},
        weights_sha256="0" * 64,
    )
