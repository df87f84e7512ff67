"""What simulated archives share: a sample is a pure function of the settings and of its number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.packed.integrity import digest
from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.sensors import Sensor


class SimulationSpec(ArchiveSpec):
    """What every simulation takes.

    Attributes:
        layout: Name of the archive's kind.
        seed: The same seed and settings simulate the same samples.
        samples: Number of samples that there are to read.
        size: Rows and columns of a sample.
    """

    seed: int = Field(default=0, ge=0, lt=2**64)
    samples: int = Field(default=4096, ge=1)
    size: int = Field(default=64, ge=32)


S = TypeVar("S", bound=SimulationSpec)


class Simulation(BaseArchive, Generic[S]):
    """Samples that are computed when they are read.

    Args:
        spec: Seed, number and size of the samples, and all other settings.
    """

    name: ClassVar[str]
    """What ids begin with."""

    known_sensors: ClassVar[Mapping[str, Sensor]]
    classes: ClassVar[tuple[str, ...]]

    spec: S

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

    @abstractmethod
    def render(self, index: int, sensor: str) -> NDArray[Any]:
        """All pixels of a sample, shape ``(bands, size, size)``."""

    @abstractmethod
    def generator_version(self) -> Sequence[str]:
        """What changes whenever the same settings give other pixels than before."""

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return (self.spec.size, self.spec.size)

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        part = window or Window(0, 0, self.spec.size, self.spec.size)
        # All bands, whatever is asked for: the noise of one must not depend on which others are read.
        pixels = self.render(int(index), sensor)
        return pixels[list(positions), part.top : part.top + part.height, part.left : part.left + part.width]


def drawn_split(rng: np.random.Generator) -> str:
    """``train``, ``val`` or ``test``, as 70 : 15 : 15."""
    share = rng.random()
    return "train" if share < 0.7 else "val" if share < 0.85 else "test"
