"""How far packing is: a record that grows by a line for each chunk, from which an interrupted run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

from terrasieve.archive.journal import encode_line, parse_line
from terrasieve.archive.packed.store import ArrayLayout
from terrasieve.archive.readers.zarr_codecs import parse_metadata
from terrasieve.archive.statistics import StreamingStatistics
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.files.writing import append_durably, write_text
from terrasieve.schema import Spec

PROGRESS = "packing.json"
"""Record of an unfinished store: what it was at the start of the run, and a line for each chunk since."""


class WrittenChunk(Spec):
    """What the record is told of a chunk when all of it is written.

    Attributes:
        position: Samples of the archive that were read by then.
        kept: Samples that were in the store by then.
        rejected: Positions in the archive of the samples left out since the chunk before.
        rejections: What the quarantine says of them.
        sums: State of the streaming statistics by then, by sensor key.
        digests: BLAKE2b digest of the chunk by sensor key; none where the archive ended without another good sample.
        own: State of the statistics of this chunk alone, by sensor key; none in records of earlier versions.
    """

    position: int
    kept: int
    rejected: tuple[int, ...]
    rejections: tuple[Mapping[str, Any], ...]
    sums: Mapping[str, Mapping[str, Sequence[float]]]
    digests: Mapping[str, str] = {}
    own: Mapping[str, Mapping[str, Sequence[float]]] = {}


class PackingProgress(Spec):
    """How far packing is, and all that going on needs: the state after the last whole chunk.

    Attributes:
        request: Digest of the archive and the options; another archive or option must not go on from here.
        sources: Digest of the files and the table that it is packed from; None where an earlier version began.
        arrays: Layouts by sensor key.
        chunk: Number of samples in a chunk.
        position: Samples of the archive that were read.
        kept: Samples in the store.
        rejected: Positions in the archive of the samples left out so far.
        rejections: What the quarantine says of them.
        sums: State of the streaming statistics by sensor key.
        digests: BLAKE2b digests of the chunks written, by sensor key.
    """

    request: str
    sources: str | None = None
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
        """The progress from its file; None where there is none.

        A line that was cut off or altered counts as not written, as does whatever follows it. A record of an earlier
        version is a first line alone.

        Raises:
            ArchiveError: The first line is damaged, or the file cannot be read.
        """
        try:
            begun, chunks = cls.read_lines(path)
        except FileNotFoundError:
            return None
        return begun.after(chunks)

    @classmethod
    def read_lines(cls, path: Path) -> tuple[Self, list[WrittenChunk]]:
        """What the record was at first, and what it was told since.

        Raises:
            FileNotFoundError: There is none.
            ArchiveError: As :meth:`read`.
        """
        try:
            first, *lines = path.read_bytes().splitlines(keepends=True) or [b""]
            begun = cls.model_validate(parse_metadata(first, path))
            entries = takewhile(lambda entry: entry is not None, map(parse_line, lines))
            return begun, [WrittenChunk.model_validate(entry) for entry in entries]
        except FileNotFoundError:
            raise
        except (OSError, ValueError, SampleError) as error:
            raise ArchiveError(f"{path} cannot be read: {error}. Remove {path.parent} and pack again.") from error

    def write(self, path: Path) -> None:
        """Write the state as a record of one line, in the place of the record that was there.

        Raises:
            WriteError: The system refused it; a record that was there is untouched.
        """
        write_text(path, f"{json.dumps(self.model_dump())}\n")

    @classmethod
    def begin(cls, request: str, arrays: Mapping[str, ArrayLayout], chunk: int, sources: str | None = None) -> Self:
        """The progress of a store that nothing is written to yet; see the attributes."""
        return cls(
            request=request,
            sources=sources,
            arrays=arrays,
            chunk=chunk,
            sums={key: StreamingStatistics(layout.shape[0]).state() for key, layout in arrays.items()},
            digests=dict.fromkeys(arrays, ()),
        )

    def after(self, chunks: Sequence[WrittenChunk]) -> Self:
        """The progress when some more chunks are written."""
        if not chunks:
            return self
        last = {name: getattr(chunks[-1], name) for name in ("position", "kept", "sums")}
        more = {
            "rejected": (*self.rejected, *(one for chunk in chunks for one in chunk.rejected)),
            "rejections": (*self.rejections, *(one for chunk in chunks for one in chunk.rejections)),
            "digests": {
                key: (*before, *(chunk.digests[key] for chunk in chunks if key in chunk.digests))
                for key, before in self.digests.items()
            },
        }
        return self.model_copy(update={**last, **more})


def append_chunk(path: Path, chunk: WrittenChunk) -> None:
    """Add a chunk to the record, and wait until that is on the disk.

    Args:
        path: The record; it ends with a whole line.
        chunk: What is written.

    Raises:
        OSError: The system refused it.
    """
    append_durably(path, encode_line(chunk.model_dump()))
