"""What a packed store says about itself: the manifest of a finished one, the progress of one that is not."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from pydantic import ValidationError

from terrasieve.errors import ArchiveError
from terrasieve.schema import Spec
from terrasieve.sensors import BandStatistics, Sensor
from terrasieve.writing import write_text

KEY = "terrasieve"
"""The group attribute that holds the manifest."""
FORMAT: Final = 1
CATALOGUE = "catalogue.parquet"
"""Name of the samples' table inside the store."""
GROUP = "zarr.json"
PROGRESS = "packing.json"
"""Record of an unfinished store, replaced after every chunk and removed at the end."""


class Manifest(Spec):
    """The attribute ``terrasieve`` of a finished store.

    Attributes:
        format: Version of this layout.
        complete: A store that is still being packed says False here and has nothing else.
        version: Of the terrasieve that packed it.
        simulated: Whether the pixels were made up.
        samples: Samples in the store.
        rejected: Samples of the source that were not fit for use.
        sensors: By key: bands in pixel order, units, nodata values.
        statistics: By key, one entry a band, over all samples of the store.
        source: Provenance of the archive that was packed.
        request: Digest of that archive and of the options.
        assets: Digest of the list of source files.
        chunks: By key, the BLAKE2b digest of each chunk's pixels as they were before compression.
        suspicions: What may spoil a run on the samples, one mapping each as ``Suspicion.summary`` gives it.
    """

    format: Literal[1] = FORMAT
    complete: Literal[True] = True
    version: str
    simulated: bool
    samples: int
    rejected: int
    sensors: Mapping[str, Sensor]
    statistics: Mapping[str, tuple[BandStatistics, ...]]
    source: Mapping[str, Any]
    request: str
    assets: str
    chunks: Mapping[str, tuple[str, ...]]
    suspicions: tuple[Mapping[str, Any], ...] = ()

    @property
    def fingerprint(self) -> str:
        """One digest of all pixels and of what they were packed from."""
        return digest([self.request, *(f"{key} {part}" for key, parts in self.chunks.items() for part in parts)])


class ArrayLayout(Spec):
    """How one sensor's pixels are stored.

    Attributes:
        dtype: Little-endian numpy type, such as ``<u2``.
        shape: Bands, rows and columns of a sample.
    """

    dtype: str
    shape: tuple[int, int, int]

    @property
    def sample_bytes(self) -> int:
        """Size of one sample's pixels."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class PackingProgress(Spec):
    """How far packing is, and all that going on needs: the state after the last whole chunk.

    Attributes:
        request: Digest of the archive and the options; another archive or option must not go on from here.
        arrays: Layouts by sensor key.
        chunk: Number of samples in a chunk.
        position: Samples of the archive that were read.
        kept: Samples in the store.
        rejected: Positions in the archive of the samples left out so far.
        rejections: What the quarantine says of them.
        sums: State of the streaming statistics by sensor key.
        digests: Of the chunks, by sensor key.
    """

    request: str
    arrays: Mapping[str, ArrayLayout]
    chunk: int
    position: int = 0
    kept: int = 0
    rejected: tuple[int, ...] = ()
    rejections: tuple[Mapping[str, Any], ...] = ()
    sums: Mapping[str, Mapping[str, Sequence[float]]]
    digests: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """From its file; None where there is none.

        Raises:
            ArchiveError: The file is damaged.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ValidationError) as error:
            raise ArchiveError(f"{path} cannot be read: {error}. Remove {path.parent} and pack again.") from error


def digest(parts: Iterable[str]) -> str:
    """BLAKE2b of several texts, each kept apart from the next."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part.encode())
        state.update(b"\0")
    return state.hexdigest()


def parse_manifest(attributes: Mapping[str, Any], root: object) -> Manifest:
    """The manifest from a group's attributes.

    Raises:
        ArchiveError: It is not there, of another format, or packing was not finished.
    """
    stored = attributes.get(KEY)
    if not isinstance(stored, Mapping):
        raise ArchiveError(f"{root} is not a packed store: its {GROUP} has no attribute {KEY!r}. Make one with pack.")
    if stored.get("format") != FORMAT:
        raise ArchiveError(f"{root} has format {stored.get('format')}, this version reads {FORMAT}; pack it again.")
    if not stored.get("complete"):
        raise ArchiveError(f"{root}: packing was not finished; run the same command again.")
    try:
        return Manifest.model_validate(stored)
    except ValidationError as error:
        raise ArchiveError(f"{root}/{GROUP} is damaged: {error}. Pack the archive again.") from error


def read_attributes(root: Path) -> Mapping[str, Any]:
    """The attributes of a local group.

    Raises:
        ArchiveError: There is no group, or its metadata cannot be read.
    """
    path = root / GROUP
    try:
        attributes: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["attributes"]
    except FileNotFoundError as error:
        raise ArchiveError(f"{root} is not a packed store: there is no {path}. Make one with pack.") from error
    except (OSError, ValueError, KeyError) as error:
        raise ArchiveError(f"{path} cannot be read: {error}. Pack the archive again.") from error
    return attributes


def write_json(path: Path, value: Any) -> None:
    """Write JSON; the file appears under its name only when it is whole."""
    write_text(path, json.dumps(value))
