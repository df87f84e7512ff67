"""Archives that are made of another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.folders import NotTaken
from terrasieve.archive.protocol import Archive, BaseArchive, Window
from terrasieve.schema import Spec
from terrasieve.sensors import Sensor


class WrapperArchive(BaseArchive):
    """Another archive, but for what a subclass changes.

    ``statistics`` and ``suspicions`` are not passed on: they tell of pixels and samples as they were. Pixels come from
    the archive within, which checks the window.

    Args:
        archive: The archive within, which is asked for all that is not changed.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.rejected = archive.rejected
        self._names: dict[tuple[str, tuple[int, ...]], tuple[str, ...]] = {}

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """Those of the archive within."""
        return self.archive.sensors

    @property
    def ids(self) -> NDArray[np.str_]:
        """Those of the archive within."""
        return self.archive.ids

    @property
    def source(self) -> Mapping[str, Any]:
        """That of the archive within."""
        return self.archive.source

    @cached_property
    def spec(self) -> Spec:
        """That of the archive within; see ``Archive.spec``."""
        return self.archive.spec

    @property
    def not_taken(self) -> NotTaken:
        """That of the archive within; see ``Archive.not_taken``."""
        return self.archive.not_taken

    @property
    def mapped(self) -> bool:
        """That of the archive within; see ``Archive.mapped``."""
        return self.archive.mapped

    def __len__(self) -> int:
        return len(self.archive)

    def files(self, indices: NDArray[np.int64]) -> Iterable[str]:
        """Those of the same samples of the archive within."""
        return self.archive.files(indices)

    def table(self) -> pa.Table:
        """That of the archive within."""
        return self.archive.table()

    def _locate(self, index: int, sensor: str) -> tuple[int, str]:
        """Index and sensor by which the archive within knows one sensor's pixels of a sample."""
        return index, sensor

    def _check_window(self, index: int, sensor: str, window: Window) -> Window:
        return window  # the archive within checks it

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return self.archive.shape(*self._locate(index, sensor))

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        bands = self._names.get((sensor, positions))
        if bands is None:
            names = self.sensors[sensor].names
            bands = self._names[sensor, positions] = tuple(names[position] for position in positions)
        return self.archive.read(*self._locate(index, sensor), bands, window)
