"""From a folder of products to one packed store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.packed.packing import PackReport, pack
from terrasieve.archive.packed.packing_parts import PackJob, StagedPart, StagedParts
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.packed.store import replace_catalogue
from terrasieve.archive.products.radiometry import FLOOR
from terrasieve.archive.protocol import Archive
from terrasieve.console import track
from terrasieve.parts.sharing import Planned

FLOORED = "floored"
"""Column of the store's table: share of a vignette's cells that lay below the noise and were set to the floor."""


@dataclass(frozen=True)
class IngestReport:
    """What became of the vignettes.

    Attributes:
        packed: Report of the packing: how many vignettes are in the store, and which were rejected.
        floored: Share of all cells that lay below the noise, 0 to 1.
        most: The largest share in one vignette, 0 to 1.
    """

    packed: PackReport
    floored: float
    most: float

    def summary(self) -> str:
        """Two lines for the screen."""
        return (
            f"{self.packed.summary()} {self.packed.bytes / 1e6:,.1f} MB\n{self.floored:.2%} of the cells lay below "
            f"{FLOOR:g} once the noise was taken out and were set to it; at most {self.most:.2%} in one vignette."
        )


def ingest(
    archive: Archive,
    out: Path,
    *,
    compress: bool = False,
    max_bad: float = 0.01,
    overwrite: bool = False,
    workers: int = 0,
    staged: StagedVignettes | None = None,
) -> IngestReport:
    """Pack an archive of vignettes, and count what lay below the noise.

    An interrupted call goes on when it is made again; see ``packing.pack``. The store's table has the column
    :data:`FLOORED` afterwards.

    Args:
        archive: Vignettes, of one sensor and one size.
        out: Folder of the store.
        compress: Whether chunks are compressed, for storage and remote reading.
        max_bad: Highest share of vignettes that may be rejected, 0 to 1.
        overwrite: Whether a store that is there is removed and packed anew.
        workers: Reader processes; 0 reads in this one.
        staged: What parts have packed, which is read instead of the archive; None where there are none.

    Raises:
        ArchiveError: As ``packing.pack``.
        TooManyBadSamplesError: More than ``max_bad`` are bad.
    """
    packed = pack(archive, out, compress=compress, max_bad=max_bad, overwrite=overwrite, workers=workers, staged=staged)
    store = PackedArchive(out)
    table = store.table()
    # A run that was killed while the table was replaced leaves a store without a digest of it.
    if FLOORED not in table.column_names:
        floored = _count_floored(store) if staged is None else staged.floored()
        table = table.append_column(FLOORED, pa.array(floored, pa.float64()))
        replace_catalogue(out, table)
    elif store.manifest.catalogue is None:
        replace_catalogue(out, table)
    shares = table[FLOORED].to_numpy()
    return IngestReport(packed, float(shares.mean()), float(shares.max()))


def share_floored(pixels: NDArray[Any]) -> float:
    """Share of a vignette's cells that lay below the noise, of its pixels in a store.

    A store keeps no mask; but measured cells have the floor's very value by chance alone.
    """
    return float(np.mean(pixels == np.float32(FLOOR)))


def _count_floored(store: PackedArchive) -> list[float]:
    (key,) = store.sensors
    samples = track(range(len(store)), "Counting cells below the noise", total=len(store))
    return [share_floored(store.read(index, key)) for index in samples]


# -------------------------------------------------------------------- in parts

_SHARES = "floored.npy"
"""Share of the cells below the noise, of each vignette that a part has packed."""


@dataclass(frozen=True)
class IngestJob(PackJob):
    """Packing vignettes, with a count of what lay below the noise; see ``PackJob``."""

    work: str = "wv ingest"

    def write(self, items: range, place: Path, planned: Planned) -> None:
        """See ``Divisible``."""
        super().write(items, place, planned)
        part = StagedPart.of(planned, self.archive, items, lambda: place, self.compress)
        shares = [share_floored(*pixels.values()) for pixels, _, finding in part.samples(items.start) if finding]
        np.save(place / _SHARES, np.array(shares, np.float64), allow_pickle=False)


class StagedVignettes(StagedParts):
    """What parts have packed of vignettes, as :func:`ingest` takes it."""

    def floored(self) -> list[float]:
        """Share of the cells below the noise, of each vignette in the store.

        Raises:
            ArchiveError: A part is damaged.
        """
        found: list[float] = []
        for part in self.parts:
            path = part.store.parent / _SHARES
            try:
                shares = np.load(path, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise part.damaged(error) from error
            if shares.shape != (part.kept,):
                raise part.damaged(f"{_SHARES} has another number of vignettes")
            found += shares.tolist()
        return found
