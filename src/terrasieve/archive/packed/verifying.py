"""Verifying a packed store: every pixel against the digests that were taken when it was packed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from terrasieve.archive.names import name_blocks
from terrasieve.archive.packed.integrity import digest_bytes, refuse_links
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.console import track_many
from terrasieve.errors import ArchiveError, SampleError


@dataclass(frozen=True)
class Verification:
    """What was found to be as it was packed.

    Attributes:
        root: Folder or URL of the store.
        samples: Number of samples.
        chunks: Number of chunk files, of all sensors.
        catalogue: Whether the table of samples was compared with a digest, which stores of earlier versions lack.
    """

    root: Path | str
    samples: int
    chunks: int
    catalogue: bool

    def summary(self) -> str:
        """One line for the screen."""
        table = (
            "" if self.catalogue else " It has no digest of its table of samples: it was packed by an older version."
        )
        return f"{self.samples:,} samples in {self.chunks:,} chunks of {self.root} are as they were packed.{table}"


def verify(root: str | Path) -> Verification:
    """Read a whole store, and compare it with the digests in it.

    The digests are part of the store: they tell of damage, and not of a store that was made up as a whole.

    Args:
        root: Folder of the store, or a URL that fsspec understands.

    Raises:
        ArchiveError: It is no packed store, has a link within, or something is not as it was packed.
    """
    archive = PackedArchive(root)
    if isinstance(archive.root, Path):
        _check_folder(archive, archive.root)
    chunks = [
        (key, number, expected)
        for key, digests in archive.manifest.chunks.items()
        for number, expected in enumerate(digests)
    ]
    seen = dict.fromkeys(archive.sensors, 0)
    damaged = []
    for key, number, expected in track_many(chunks, "Verifying chunks"):
        try:
            pixels = archive.chunk(key, number)
        except SampleError as error:
            damaged.append(f"{key} chunk {number}: {error}")
            continue
        seen[key] += len(pixels)
        if digest_bytes(np.ascontiguousarray(pixels).data) != expected:
            damaged.append(f"{key} chunk {number} holds other pixels")
    damaged += [f"{key} has digests of {n:,} samples" for key, n in seen.items() if not damaged and n != len(archive)]
    if damaged:
        raise ArchiveError(
            f"{len(damaged):,} of {len(chunks):,} chunks of {archive.root} are not as they were packed, the first: "
            f"{damaged[0]}. Fetch or pack the store again."
        )
    return Verification(archive.root, len(archive), len(chunks), archive.manifest.catalogue is not None)


def _check_folder(archive: PackedArchive, root: Path) -> None:
    """Refuse links, and names of samples that are not those of the table."""
    try:
        refuse_links(root)
    except SampleError as error:
        raise ArchiveError(str(error)) from error
    names = np.asarray(zarr.open_array(root / "id", mode="r", zarr_format=3)[...])
    pairs = zip(name_blocks(names), name_blocks(archive.ids), strict=True)
    if len(names) != len(archive) or any(list(map(str, block)) != stated for block, stated in pairs):
        raise ArchiveError(f"{root}/id names other samples than the table does. Fetch or pack the store again.")
