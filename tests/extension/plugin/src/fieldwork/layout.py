"""Fieldwork: npy/<id>.npy with four bands of Sentinel-2, and samples.csv with the columns id, label and split."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.geotiff import Header
from terrasieve.sensors import SENSORS, Sensor

SENSOR = SENSORS["s2-l2a"].select("B02", "B03", "B04", "B08")


class FieldworkSpec(ArchiveSpec):
    """The folder that holds ``npy`` and ``samples.csv``."""

    layout: Literal["fieldwork"] = "fieldwork"
    root: Path

    data_set = DataSet(
        title="Fieldwork",
        sensors="Sentinel-2 L2A, four bands",
        labels="class",
        split="official",
        citation="@misc{fieldwork,\n  title = {Fieldwork},\n}",
    )

    def open(self) -> FieldworkArchive:
        """The archive; see :class:`FieldworkArchive`."""
        return FieldworkArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the names of the table and the folder."""
        if not (folder / "samples.csv").is_file() or not (folder / "npy").is_dir():
            return None
        return Recognition(0.9, "samples.csv beside a folder npy", cls(root=folder))


class FieldworkArchive(PatchesArchive):
    """Patches with labels and the published split."""

    def __init__(self, spec: FieldworkSpec) -> None:
        root = spec.root.resolve()
        with (root / "samples.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        listing = Listing(
            ids=[row["id"] for row in rows],
            addresses={"s2": [f"npy/{row['id']}.npy" for row in rows]},
            columns={"label": [row["label"] for row in rows], "split": [row["split"] for row in rows]},
        )
        super().__init__(spec.model_copy(update={"root": root}), listing, {"s2": NpyReader(root, SENSOR)})


@dataclass(frozen=True)
class NpyReader:
    """Reads arrays ``(bands, height, width)`` from NumPy's own files.

    Attributes:
        root: The folder that addresses are relative to.
        sensor: What the pixels are.
    """

    root: Path
    sensor: Sensor

    def files(self, address: str) -> Sequence[Path]:
        """The one file of a patch."""
        return (self.root / address,)

    def shape(self, address: str) -> tuple[int, int]:
        """Height and width of a patch."""
        height, width = self._array(address).shape[1:]
        return height, width

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Pixels of the bands at those positions; the archive has checked the window."""
        array = self._array(address)
        if window is None:
            return np.array(array[list(positions)])
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        return np.array(array[list(positions), rows, columns])

    def header(self, address: str) -> Header | None:
        """Nothing: these files do not say where they lie."""
        return None

    def _array(self, address: str) -> NDArray[Any]:
        path = self.root / address
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise FlawError(Problem.UNREADABLE, f"{path} cannot be read: {error}; download it again.") from error
