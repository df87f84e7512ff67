"""A view of an archive that shows some of its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from terrasieve.archive.protocol import Archive, Window
from terrasieve.archive.quality.limits import Rejection
from terrasieve.errors import ArchiveError
from terrasieve.schema import Spec
from terrasieve.sensors import Sensor


class SubsetArchive:
    """Some samples of an archive, in a chosen order.

    Args:
        archive: The whole.
        indices: Positions in it, shape ``(n,)``; index ``i`` of the subset is ``indices[i]`` of the whole.

    Raises:
        IndexError: A position is not in the archive.
    """

    rejected: tuple[Rejection, ...] = ()
    """Always empty: what the whole archive rejected is not among the samples chosen."""

    def __init__(self, archive: Archive, indices: ArrayLike) -> None:
        self.archive = archive
        self.indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = self.indices[(self.indices < 0) | (self.indices >= len(archive))]
        if outside.size:
            raise IndexError(f"sample {outside[0]} of an archive of {len(archive)} samples")

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """Those of the whole archive."""
        return self.archive.sensors

    @property
    def ids(self) -> NDArray[np.str_]:
        """Names of the chosen samples."""
        return self.archive.ids[self.indices]

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance of the whole archive, with the number of samples chosen as ``subset``."""
        return {**self.archive.source, "subset": len(self)}

    def __len__(self) -> int:
        return len(self.indices)

    def shape(self, index: int, sensor: str) -> tuple[int, int]:
        """Height and width of a sample's pixels for one sensor."""
        return self.archive.shape(self._position(index), sensor)

    def read(
        self, index: int, sensor: str, bands: Sequence[str] | None = None, window: Window | None = None
    ) -> NDArray[Any]:
        """Pixels of one sample; see ``Archive.read``."""
        return self.archive.read(self._position(index), sensor, bands, window)

    def table(self) -> pa.Table:
        """The chosen rows of the whole archive's table."""
        return self.archive.table().take(pa.array(self.indices))

    def _position(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a subset of {len(self)} samples")
        return int(self.indices[index])


def spec_of(archive: Archive) -> dict[str, Any]:
    """How to open an archive again, as it is written in YAML; for a subset, the whole of which it is a part.

    Raises:
        ArchiveError: The archive cannot say how it is opened.
    """
    while isinstance(archive, SubsetArchive):
        archive = archive.archive
    spec = getattr(archive, "spec", None)
    if isinstance(spec, Spec):
        return spec.model_dump(mode="json")
    if "root" in archive.source:
        return {"layout": archive.source["layout"], "root": archive.source["root"]}
    raise ArchiveError(f"{type(archive).__name__} cannot say how it is opened; a catalogue of it could not be used.")
