"""Packing in parts: each packs some chunks, and merging puts their files in place.

Where no sample is left out, chunks lie in the store as they lie in the parts, and no pixel is touched. Behind a sample
that is left out all are shifted by one: those are packed anew from the parts, not from the source. Index first, so that
nothing has to be left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.journal import parse_line
from terrasieve.archive.packed.packing import begin_store, plan_chunks
from terrasieve.archive.packed.progress import PROGRESS, PackingProgress, WrittenChunk
from terrasieve.archive.packed.resuming import explain_writing, request_of
from terrasieve.archive.packed.store import ArrayLayout, StoreLayout, chunk_path, open_arrays
from terrasieve.archive.packed.store_writer import FINDINGS, Sample, StagedChunk, StoreWriter
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.findings import Finding
from terrasieve.archive.quality.limits import Problem, QualityLimits, Quarantine, Rejection
from terrasieve.archive.source_state import source_state
from terrasieve.archive.statistics import StreamingStatistics
from terrasieve.errors import ArchiveError, PartsError
from terrasieve.parts.part_plan import Outline
from terrasieve.parts.sharing import Planned

STORE = "store"
"""Name of a part's chunks in its folder: a store that is not finished."""


@dataclass(frozen=True)
class PackJob:
    """Packing an archive; items are its samples, and parts hold whole chunks.

    Attributes:
        archive: What to pack.
        out: The store to be.
        compress: Whether chunks are compressed.
        limits: What a sample may lack.
        workers: Reader processes; 0 reads in this one.
        work: Name of the command.
    """

    archive: Archive
    out: Path
    compress: bool
    limits: QualityLimits
    workers: int = 0
    work: str = "pack"

    def request(self) -> str:
        """See ``Divisible``."""
        return request_of(self.archive, self.compress, self.limits)

    def outline(self, folder: Path) -> Outline:
        """See ``Divisible``."""
        listed = self.out.with_name(f"{self.out.name}.quarantine.csv")
        quarantine = Quarantine.begin(listed, len(self.archive), self.archive.rejected, max_bad=1.0)
        arrays, chunk = plan_chunks(self.archive, quarantine, self.limits)
        facts = {"arrays": {key: layout.model_dump(mode="json") for key, layout in arrays.items()}}
        return Outline(len(self.archive), unit=chunk, facts=facts)

    def state(self, items: range, planned: Planned) -> str:
        """See ``Divisible``."""
        return source_state(self.archive, self._table, np.arange(items.start, items.stop))

    def write(self, items: range, place: Path, planned: Planned) -> None:
        """See ``Divisible``."""
        part = SubsetArchive(self.archive, np.arange(items.start, items.stop))
        progress = PackingProgress.begin(planned.plan.request, arrays_of(planned), planned.plan.unit)
        begin_store(place / STORE, progress)
        # What is too much is judged when all is known; the list is the merged store's.
        quarantine = Quarantine(place / "quarantine.csv", len(part), max_bad=1.0)
        table = self._table.take(pa.array(part.indices))
        StoreWriter(part, table, place / STORE, self.limits, progress, quarantine, self.compress).run(self.workers)

    @cached_property
    def _table(self) -> pa.Table:
        return self.archive.table()


def arrays_of(planned: Planned) -> dict[str, ArrayLayout]:
    """Layouts of a planned store, by sensor key.

    Raises:
        PartsError: The plan is damaged.
    """
    try:
        return {key: ArrayLayout.model_validate(one) for key, one in planned.plan.facts["arrays"].items()}
    except (ValueError, LookupError, AttributeError) as error:
        raise PartsError(f"The plan in {planned.place.name} is damaged: {error}. Remove it and begin anew.") from error


class StagedParts:
    """What parts have packed, as ``pack`` takes it.

    Args:
        planned: The plan, all of whose parts are there.
        archive: What is packed.
        compress: Whether chunks are compressed.

    Attributes:
        layout: Layouts by sensor key, and samples a chunk.
        parts: The parts, in order.

    Raises:
        PartsError: The plan is damaged.
    """

    def __init__(self, planned: Planned, archive: Archive, compress: bool) -> None:
        self.layout: tuple[Mapping[str, ArrayLayout], int] = (arrays_of(planned), planned.plan.unit)
        self.parts = [
            StagedPart.of(planned, archive, planned.plan.items_of(one), partial(planned.part, one), compress)
            for one in planned.filled()
        ]
        self._starts = [part.items.start for part in self.parts]

    def chunk_at(self, position: int) -> StagedChunk | None:
        """See ``Staged``."""
        return self.parts[self._number(position)].chunks.get(position)

    def samples(self, position: int) -> Iterator[Sample]:
        """See ``Staged``."""
        for part in self.parts[self._number(position) :]:
            yield from part.samples(max(position, part.items.start))

    def _number(self, position: int) -> int:
        return bisect_right(self._starts, position) - 1


@dataclass(frozen=True)
class StagedPart:
    """The chunks of one part.

    Attributes:
        items: Its samples, by position in the archive.
        bring: Gives the folder of the part, which may go when two others were asked for since.
        layout: The arrays that they are of.
        nodata: Pixel value that means nothing was measured, by sensor key.
    """

    items: range
    bring: Callable[[], Path]
    layout: StoreLayout
    nodata: Mapping[str, float | None]

    @classmethod
    def of(
        cls, planned: Planned, archive: Archive, items: range, bring: Callable[[], Path], compress: bool
    ) -> StagedPart:
        """The chunks of a part, see the attributes; of them nothing is looked at yet."""
        layout = StoreLayout(arrays_of(planned), planned.plan.unit, compress)
        nodata = {key: sensor.nodata for key, sensor in archive.sensors.items()}
        return cls(items, bring, layout, nodata)

    @cached_property
    def store(self) -> Path:
        """Folder of the chunks."""
        return self.bring() / STORE

    @property
    def kept(self) -> int:
        """Number of samples that were not left out."""
        return self._record[-1].kept

    @cached_property
    def chunks(self) -> dict[int, StagedChunk]:
        """The chunks by the position of their first sample in the archive."""
        record, starts = self._record, [0, *(line.position for line in self._record)]
        kept = [0, *(line.kept for line in record)]
        return {
            self.items.start + start: self._staged(number, line, range(start, stop), filled)
            for number, (line, (start, stop), filled) in enumerate(
                zip(record, pairwise(starts), np.diff(kept).tolist(), strict=True)
            )
        }

    def samples(self, position: int) -> Iterator[Sample]:
        """Its samples from a position of the archive on."""
        arrays = open_arrays(self.store, self.layout)
        size, number, pixels = self.layout.chunk, -1, dict[str, NDArray[Any]]()
        kept = 0
        for at in self.items:
            if at in self._flaws:
                if at >= position:
                    yield {}, self._flaws[at], None
                continue
            if at >= position:
                if kept // size != number:
                    number = kept // size
                    with explain_writing(self.store):
                        pixels = {key: array[number * size : (number + 1) * size] for key, array in arrays.items()}
                yield {key: values[kept % size] for key, values in pixels.items()}, [], self._findings[at]
            kept += 1

    def _staged(self, number: int, line: WrittenChunk, samples: range, filled: int) -> StagedChunk:
        start = self.items.start
        rejected = tuple(start + one for one in line.rejected)
        files = {key: self.store / chunk_path(key, number) for key in line.digests}
        return StagedChunk(
            stop=start + samples.stop,
            filled=filled,
            rejected=rejected,
            rejections=tuple(flaw for one in rejected for flaw in self._flaws[one]),
            findings=[(start + at, self._findings[start + at]) for at in samples if start + at in self._findings],
            sums={key: StreamingStatistics.from_state(state, self.nodata[key]) for key, state in line.own.items()},
            digests=line.digests,
            # A compressed chunk of zeros has no file.
            files={key: path for key, path in files.items() if path.exists() or not self.layout.compress},
        )

    @cached_property
    def _record(self) -> list[WrittenChunk]:
        try:
            lines = PackingProgress.read_lines(self.store / PROGRESS)[1]
        except FileNotFoundError as error:
            raise self.damaged(error) from error
        if not lines or lines[-1].position != len(self.items):
            raise self.damaged(f"{PROGRESS} ends before the part does")
        return lines

    @cached_property
    def _flaws(self) -> dict[int, list[Rejection]]:
        """What is wrong with the samples left out, by their position in the archive."""
        found: dict[int, list[Rejection]] = {}
        for line in self._record:
            by_id: dict[str, list[Rejection]] = {}
            for one in line.rejections:
                flaw = Rejection(**{**one, "problem": Problem(one["problem"])})
                by_id.setdefault(flaw.id, []).append(flaw)
            # Both are in the order of the archive, and a sample with two flaws has two entries of one id.
            found |= dict(zip((self.items.start + at for at in line.rejected), by_id.values(), strict=True))
        return found

    @cached_property
    def _findings(self) -> dict[int, Finding]:
        """What the others show, by their position in the archive."""
        _, *entries = map(parse_line, (self.store / FINDINGS).read_bytes().splitlines(keepends=True))
        found = {
            self.items.start + at: Finding.parse(stored) for entry in entries if entry for at, stored in entry["found"]
        }
        if len(found) + len(self._flaws) != len(self.items):
            raise self.damaged(f"{FINDINGS} lacks samples")
        return found

    def damaged(self, why: object) -> ArchiveError:
        """The error of a part that is not as it was written."""
        return ArchiveError(
            f"{self.store} is damaged: {why}. Remove {self.store.parent}, do that part again, and merge."
        )
