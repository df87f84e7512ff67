"""A view of an archive that shows some of its samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from terrasieve.archive.derived.wrapper import WrapperArchive
from terrasieve.archive.protocol import Archive


class SubsetArchive(WrapperArchive):
    """Some samples of an archive, in a chosen order.

    ``rejected`` is empty: what the whole archive rejected is not among the samples chosen.

    Args:
        archive: The whole, of which samples are chosen.
        indices: Positions in it, shape ``(n,)``; index ``i`` of the subset is ``indices[i]`` of the whole.

    Raises:
        IndexError: A position is not in the archive.
    """

    def __init__(self, archive: Archive, indices: ArrayLike) -> None:
        super().__init__(archive)
        self.rejected = ()
        self.indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = self.indices[(self.indices < 0) | (self.indices >= len(archive))]
        if outside.size:
            raise IndexError(f"sample {outside[0]} of an archive of {len(archive)} samples")

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

    def files(self, indices: NDArray[np.int64]) -> Iterable[str]:
        """Those of the chosen samples."""
        return self.archive.files(self.indices[indices])

    def catalogue_columns(self, indices: NDArray[np.int64]) -> Mapping[str, pa.Array]:
        """Those of the chosen samples."""
        return self.archive.catalogue_columns(self.indices[indices])

    def table(self) -> pa.Table:
        """The chosen rows of the whole archive's table."""
        return self.archive.table().take(pa.array(self.indices))

    def _locate(self, index: int, sensor: str) -> tuple[int, str]:
        return int(self.indices[index]), sensor
