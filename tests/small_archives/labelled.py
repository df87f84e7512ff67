"""A labelled archive in memory, for what works on labels and pixels of any origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.sensors import SENSORS, Sensor

LABELS = ("a", "b", "c", "d")
PER_CLASS = 20


class Labelled(BaseArchive):
    """Labelled patches of 8x8 pixels in memory; half of them are of the train split."""

    sensors: Mapping[str, Sensor] = {"s2": SENSORS["s2-rgb8"]}
    source: Mapping[str, Any] = {"layout": "memory", "fingerprint": "0", "simulated": True, "root": None}
    ids: np.ndarray = np.empty(0)

    def __init__(self) -> None:
        n = 2 * PER_CLASS * len(LABELS)
        self.pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
        self.labels = [LABELS[i % len(LABELS)] for i in range(n)]
        self.splits = ["train" if i < n // 2 else "test" for i in range(n)]
        self.ids = np.array([f"patch-{i}" for i in range(n)])

    def __len__(self) -> int:
        return len(self.pixels)

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return (8, 8)

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        return self.pixels[index][list(positions)]

    def table(self) -> pa.Table:
        n = len(self)
        return pa.table(
            {
                "id": self.ids.tolist(),
                "geometry": pa.nulls(n, pa.binary()),
                "time": pa.nulls(n, pa.timestamp("us", tz="UTC")),
                "label": self.labels,
                "split": self.splits,
                "crs": pa.nulls(n, pa.string()),
                "transform": pa.nulls(n, pa.list_(pa.float64())),
                "asset:s2": self.ids.tolist(),
            }
        )
