"""Indexing in parts: each judges some samples, and merging makes the catalogue without reading a pixel."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from terrasieve.archive.catalogue import spec_of_files
from terrasieve.archive.journal import encode_line, parse_line
from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.packed.integrity import digest
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.audit import BATCH, Auditor
from terrasieve.archive.quality.findings import record_judgement
from terrasieve.archive.quality.limits import QualityLimits
from terrasieve.archive.readers.gdal import many_files
from terrasieve.archive.scenes.first_look import FoundBefore, SceneReader, looks_by_name
from terrasieve.archive.scenes.named_files import find_named, read_named, write_named
from terrasieve.archive.scenes.survey import ScenesSpec
from terrasieve.archive.source_state import paths_state, source_state
from terrasieve.console import progress_bar
from terrasieve.errors import PartsError
from terrasieve.parts.part_plan import Outline
from terrasieve.parts.sharing import Planned
from terrasieve.processes.parallel import map_processes

_ENTRIES = "entries.jsonl"
"""What a part found, in lines as the journal of an index has them."""
_NAMED = "named.json"
"""The files of scenes by name, beside the plan."""


@dataclass(frozen=True)
class IndexJob:
    """Judging the samples of an archive.

    Items are the names of a folder of scenes, each with the tiles of its scene, so that no worker opens the files of
    others; of every other archive they are its samples.

    Attributes:
        source: The archive, or how it is opened.
        limits: How much may be missing from a good sample.
        workers: Reader processes; 0 reads in this one.
    """

    source: Archive | ArchiveSpec
    limits: QualityLimits
    workers: int = 0

    work = "index"

    def request(self) -> str:
        """See ``Divisible``."""
        limits = self.limits.model_dump()
        if self._scenes is not None:
            # No folder is searched: the plan has the names, and merging finds whether they still are all.
            return digest([json.dumps([limits, self._scenes.model_dump(mode="json")], sort_keys=True)])
        archive = self._archive
        described = json.dumps([limits, spec_of_files(archive), dict(archive.source)], sort_keys=True, default=str)
        return digest([described, *archive.ids.tolist()])

    def outline(self, folder: Path) -> Outline:
        """See ``Divisible``."""
        if self._scenes is None:
            return Outline(len(self._archive))
        _, named = find_named(self._scenes)
        write_named(self._scenes, named, folder / _NAMED)
        return Outline(len(set(chain.from_iterable(named.values()))))

    def state(self, items: range, planned: Planned) -> str:
        """See ``Divisible``."""
        if (reader := self._reader(planned)) is None:
            return source_state(self._archive, self._auditor.table, np.arange(items.start, items.stop))
        names = [reader.names[item] for item in items]
        return paths_state(str(paths[name]) for paths in reader.named.values() for name in names if name in paths)

    def write(self, items: range, place: Path, planned: Planned) -> None:
        """See ``Divisible``."""
        reader = self._reader(planned)
        work: Callable[[int], Any] = self._auditor.judge if reader is None else reader
        with (
            many_files(),
            map_processes(work, items, self.workers) as answers,
            progress_bar() as bar,
            (place / _ENTRIES).open("wb") as file,
        ):
            task = bar.add_task("Checking samples", total=len(items), note="")
            done: list[Any] = []
            for number, answer in enumerate(answers, start=1):
                done.append(answer if reader else record_judgement(*answer))
                bar.advance(task)
                if len(done) == BATCH or number == len(items):
                    file.write(encode_line({"scenes" if reader else "samples": done}))
                    done = []

    def found(self, planned: Planned) -> FoundBefore:
        """What all parts found, as ``index_archive`` takes it.

        Raises:
            PartsError: The plan is damaged; a part is, when its entries are asked for.
        """
        reader = self._reader(planned)
        return FoundBefore(self._entries(planned), None if reader is None else reader.names, planned.place.name)

    def _entries(self, planned: Planned) -> Iterator[Mapping[str, Any]]:
        for items, folder in planned.parts:
            with (folder / _ENTRIES).open("rb") as file:
                entries = [parse_line(line) for line in file]
            if sum(len(next(iter(entry.values()))) for entry in entries if entry) != len(items) or None in entries:
                raise PartsError(f"{folder / _ENTRIES} is damaged. Remove {folder}, do that part again, and merge.")
            yield from (entry for entry in entries if entry)

    @property
    def opened(self) -> Archive | ArchiveSpec:
        """The source as ``index_archive`` takes it, open where it had to be opened already."""
        return self._archive if self._scenes is None else self.source

    def _reader(self, planned: Planned) -> SceneReader | None:
        """Reads the files of a name that the plan has; None where items are samples."""
        if (spec := self._scenes) is None:
            return None
        if (kept := planned.files / _NAMED) not in self._readers:
            try:
                named = read_named(spec, kept)
            except (OSError, ValueError) as error:
                place = planned.place.name
                raise PartsError(f"The plan in {place} is damaged: {error}. Remove {place} and begin anew.") from error
            sensors = {key: folder.load() for key, folder in spec.sensors.items()}
            names = sorted(set(chain.from_iterable(named.values())))
            self._readers[kept] = SceneReader(spec, sensors, named, names, self.limits, most=math.inf)
        return self._readers[kept]

    @cached_property
    def _readers(self) -> dict[Path, SceneReader]:
        """Those made so far, by the file of the names."""
        return {}

    @cached_property
    def _scenes(self) -> ScenesSpec | None:
        """The source where items are names of its files; None where they are samples."""
        if not isinstance(self.source, ScenesSpec) or not looks_by_name(self.source, whole=True):
            return None
        return self.source.self_contained()

    @cached_property
    def _archive(self) -> Archive:
        return self.source.open() if isinstance(self.source, ArchiveSpec) else self.source

    @cached_property
    def _auditor(self) -> Auditor:
        return Auditor(self._archive, self._archive.table(), self.limits)
