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
from terrasieve.archive.scenes.first_look import SceneReader, looks_by_name
from terrasieve.archive.scenes.survey import ScenesSpec, find_named
from terrasieve.archive.source_state import paths_state, source_state
from terrasieve.console import progress_bar
from terrasieve.errors import PartsError
from terrasieve.parallel import map_processes
from terrasieve.parts.part_plan import Outline
from terrasieve.parts.sharing import Planned

_ENTRIES = "entries.jsonl"
"""What a part found, in lines as the journal of an index has them."""


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
        if (reader := self._reader) is not None:
            described = json.dumps([limits, reader.spec.model_dump(mode="json")], sort_keys=True)
            return digest([described, *reader.names])
        archive = self._archive
        described = json.dumps([limits, spec_of_files(archive), dict(archive.source)], sort_keys=True, default=str)
        return digest([described, *archive.ids.tolist()])

    def outline(self, folder: Path) -> Outline:
        """See ``Divisible``."""
        return Outline(len(self._archive) if self._reader is None else len(self._reader.names))

    def state(self, items: range, planned: Planned) -> str:
        """See ``Divisible``."""
        if (reader := self._reader) is None:
            return source_state(self._archive, self._auditor.table, np.arange(items.start, items.stop))
        names = [reader.names[item] for item in items]
        return paths_state(str(paths[name]) for paths in reader.named.values() for name in names if name in paths)

    def write(self, items: range, place: Path, planned: Planned) -> None:
        """See ``Divisible``."""
        work: Callable[[int], Any] = self._auditor.judge if self._reader is None else self._reader
        with (
            many_files(),
            map_processes(work, items, self.workers) as answers,
            progress_bar() as bar,
            (place / _ENTRIES).open("wb") as file,
        ):
            task = bar.add_task("Checking samples", total=len(items), note="")
            done: list[Any] = []
            for number, answer in enumerate(answers, start=1):
                done.append(answer if self._reader else record_judgement(*answer))
                bar.advance(task)
                if len(done) == BATCH or number == len(items):
                    file.write(encode_line({"scenes" if self._reader else "samples": done}))
                    done = []

    def entries(self, planned: Planned) -> Iterator[Mapping[str, Any]]:
        """What all parts found, in order, as ``index_archive`` takes it.

        Raises:
            PartsError: A part is damaged.
        """
        for items, folder in planned.parts:
            with (folder / _ENTRIES).open("rb") as file:
                entries = [parse_line(line) for line in file]
            if sum(len(next(iter(entry.values()))) for entry in entries if entry) != len(items) or None in entries:
                raise PartsError(f"{folder / _ENTRIES} is damaged. Remove {folder}, do that part again, and merge.")
            yield from (entry for entry in entries if entry)

    @property
    def opened(self) -> Archive | ArchiveSpec:
        """The source as ``index_archive`` takes it, open where it had to be opened already."""
        return self._archive if self._reader is None else self.source

    @cached_property
    def _reader(self) -> SceneReader | None:
        """Reads the files of a name; None where items are samples."""
        if not isinstance(self.source, ScenesSpec) or not looks_by_name(self.source, whole=True):
            return None
        spec = self.source.self_contained()
        sensors = {key: folder.load() for key, folder in spec.sensors.items()}
        _, named = find_named(spec)
        names = sorted(set(chain.from_iterable(named.values())))
        return SceneReader(spec, sensors, named, names, self.limits, most=math.inf)

    @cached_property
    def _archive(self) -> Archive:
        return self.source.open() if isinstance(self.source, ArchiveSpec) else self.source

    @cached_property
    def _auditor(self) -> Auditor:
        return Auditor(self._archive, self._archive.table(), self.limits)
