"""What simulated archives share: a sample is a pure function of the settings and of its number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.packed.manifest import digest
from terrasieve.archive.protocol import Window
from terrasieve.archive.readers.geotiff import check_within
from terrasieve.errors import BandError, nearest
from terrasieve.sensors import Sensor


class SimulationSpec(ArchiveSpec):
    """What every simulation takes.

    Attributes:
        layout: Name of the archive's kind.
        seed: Of everything.
        samples: How many.
        size: Rows and columns of a sample.
    """

    seed: int = Field(default=0, ge=0, lt=2**64)
    samples: int = Field(default=4096, ge=1)
    size: int = Field(default=64, ge=32)


S = TypeVar("S", bound=SimulationSpec)


class Simulation(ABC, Generic[S]):
    """Samples that are computed when they are read; an ``Archive``.

    Args:
        spec: What to simulate.
    """

    name: ClassVar[str]
    """What ids begin with."""

    known_sensors: ClassVar[Mapping[str, Sensor]]
    classes: ClassVar[tuple[str, ...]]

    def __init__(self, spec: S) -> None:
        self.spec = spec

    def __reduce__(self) -> tuple[type[Self], tuple[S]]:
        return type(self), (self.spec,)

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The sensors by key."""
        return self.known_sensors

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """``<name>-<seed>-<index>``."""
        return np.array([f"{self.name}-{self.spec.seed}-{index:06d}" for index in range(len(self))])

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance; ``simulated`` is True."""
        options = self.spec.model_dump(mode="json", exclude={"layout"})
        return {
            "layout": self.spec.layout,
            "root": None,
            "options": options,
            "sensors": {key: sensor.name for key, sensor in self.known_sensors.items()},
            "classes": list(self.classes),
            "simulated": True,
            "fingerprint": digest([*self.generator_version(), *(f"{name}={value}" for name, value in options.items())]),
        }

    def __len__(self) -> int:
        return self.spec.samples

    def shape(self, index: int, sensor: str) -> tuple[int, int]:
        """Height and width, the same for all."""
        self._check(index, sensor)
        return (self.spec.size, self.spec.size)

    def read(
        self, index: int, sensor: str, bands: Sequence[str] | None = None, window: Window | None = None
    ) -> NDArray[Any]:
        """Pixels of one sample; see ``Archive.read``. A copy, which the caller may change."""
        self._check(index, sensor)
        declared = self.known_sensors[sensor]
        positions = declared.indices(declared.names if bands is None else bands)
        part = Window(0, 0, self.spec.size, self.spec.size) if window is None else Window(*window)
        check_within(part, self.spec.size, self.spec.size, f"sample {index}")
        pixels = self.render(int(index), sensor)
        return pixels[list(positions), part.top : part.top + part.height, part.left : part.left + part.width]

    @abstractmethod
    def table(self) -> pa.Table:
        """See ``Archive.table``."""

    @abstractmethod
    def render(self, index: int, sensor: str) -> NDArray[Any]:
        """All pixels of a sample, shape ``(bands, size, size)``."""

    @abstractmethod
    def generator_version(self) -> Sequence[str]:
        """What changes whenever the same settings give other pixels than before."""

    def _check(self, index: int, sensor: str) -> None:
        if sensor not in self.known_sensors:
            raise BandError(f"{self.spec.layout} has no sensor {sensor!r}.{nearest(sensor, self.known_sensors)}")
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of an archive of {len(self)} samples")


def drawn_split(rng: np.random.Generator) -> str:
    """``train``, ``val`` or ``test``, as 70 : 15 : 15."""
    share = rng.random()
    return "train" if share < 0.7 else "val" if share < 0.85 else "test"
