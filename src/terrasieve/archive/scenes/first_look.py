"""The first look at a folder of scenes that is indexed: header and pixels of a file in one open.

A scene of few tiles is judged where its headers are read, in a reader process. Of a large scene, and of files whose
partners are found by geometry, only headers are read; their tiles are judged afterwards, many processes to a scene.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from terrasieve.archive.journal import Journal
from terrasieve.archive.packed.integrity import digest
from terrasieve.archive.quality.audit import BATCH, Auditor
from terrasieve.archive.quality.findings import Verdicts, parse_judgement, record_judgement
from terrasieve.archive.quality.limits import FlawError, Problem, QualityLimits
from terrasieve.archive.readers.gdal import many_files
from terrasieve.archive.readers.geotiff import Header, read_header
from terrasieve.archive.scenes.matching import Scene, match_by_stem
from terrasieve.archive.scenes.named_files import Named
from terrasieve.archive.scenes.survey import ScenesSpec, accept, tile_count
from terrasieve.archive.scenes.tiled import ScenesArchive
from terrasieve.archive.source_state import paths_state
from terrasieve.console import progress_bar
from terrasieve.errors import PartsError
from terrasieve.processes.parallel import map_processes
from terrasieve.sensors import Sensor

MOST_TILES = 64
"""Tiles up to which one process judges a scene as it finds it; the others would wait for the end of a larger one."""


def looks_by_name(spec: ScenesSpec, whole: bool) -> bool:
    """Whether the files of one name are looked at together.

    Args:
        spec: How scenes are matched and tiled.
        whole: Whether files of one name have to make a scene of their own, so that its tiles can be judged.
    """
    return not spec.has_band_files and not (whole and _is_matched_by_place(spec))


def _is_matched_by_place(spec: ScenesSpec) -> bool:
    return spec.match == "geometry" and len(spec.sensors) > 1


@dataclass(frozen=True)
class FoundBefore:
    """What parts of an index found, of all that they were planned for.

    Attributes:
        entries: As those of the journal of an index, in order.
        names: The names under which files were looked at; None where samples were.
        place: Where the parts lie, as errors name it.
    """

    entries: Iterator[Mapping[str, Any]]
    names: Sequence[str] | None
    place: str

    def refuse_others(self, names: Sequence[str]) -> None:
        """Refuse to take what was found for files of other names.

        Args:
            names: Those of the files that are there now.

        Raises:
            PartsError: Files have come or gone.
        """
        if self.names is None or list(names) == list(self.names):
            return
        come, gone = sorted(set(names) - set(self.names)), sorted(set(self.names) - set(names))
        said = " and ".join(
            f"{len(them):,} {how}, the first being {them[0]!r}"
            for them, how in ((come, "came"), (gone, "went"))
            if them
        )
        raise PartsError(
            f"Files of scenes have changed since {self.place} was begun: {said}. Restore what was there, or remove all "
            "that is there and begin anew."
        )


class FirstLook:
    """Reads the headers of a folder of scenes for its survey, and judges what it can while the files are open.

    What it finds is recorded, so that an interrupted look goes on where it was. It is called once, by the survey.

    Args:
        journal: Where to record how far the look is.
        stack: Closes the journal in the end.
        limits: How much may be missing from a good sample.
        max_bad: Highest share of samples that may be rejected, 0 to 1. Once more are bad than any number of further
            good ones could make up for, only headers are read.
        workers: Reader processes; 0 reads in this one.
        found: What parts found under every name already; the journal then is not asked. None where it is to be found.

    Attributes:
        record: The journal, open once the look has begun.
        entries: What an interrupted run wrote there after its look was complete.
        judged: The samples that were judged, by their position in the archive.
        complete: Whether every file was looked at.
    """

    record: Journal
    entries: Iterator[Mapping[str, Any]]
    judged: Verdicts

    def __init__(
        self,
        journal: Path,
        stack: ExitStack,
        limits: QualityLimits,
        max_bad: float,
        workers: int,
        found: FoundBefore | None = None,
    ) -> None:
        self.complete = False
        self._found = found
        self._journal, self._stack = journal, stack
        self._limits, self._max_bad, self._workers = limits, max_bad, workers
        self._position = self._largest = 0
        self._looked: dict[str, dict[str, Header | FlawError]] = {}

    def __call__(
        self, spec: ScenesSpec, sensors: Mapping[str, Sensor], named: Named
    ) -> dict[str, list[Header | FlawError]]:
        """Headers of all files; see ``terrasieve.archive.scenes.survey.Look``."""
        self.judged = Verdicts(sensors)
        self._looked = {key: {} for key in named}
        names = sorted(set(chain.from_iterable(named.values())))
        if self._found is not None:
            self._found.refuse_others(names)
        # All that the look depends on: a journal of other options, or of files that have changed, is not taken up.
        asked = json.dumps([self._limits.model_dump(), spec.model_dump(mode="json")], sort_keys=True)
        # What parts found is not taken up from it, and they are compared with the files before.
        told = named.values() if self._found is None else ()
        states = [paths_state(map(str, paths.values())) for paths in told]
        self.record = self._stack.enter_context(Journal(self._journal, digest(["first look", asked, *states])))
        self.entries = self.record.replay() if self._found is None else self._found.entries
        known = 0
        while known < len(names) and (entry := next(self.entries, None)) is not None:
            for stored in entry["scenes"]:
                self._take(names[known], stored)
                known += 1
        reader = SceneReader(spec, sensors, named, names, self._limits)
        known = self._look(reader, known)
        self._look(reader.headers_only(), known)
        self.complete = True
        return {key: [self._looked[key].pop(name) for name in paths] for key, paths in named.items()}

    def _look(self, reader: SceneReader, known: int) -> int:
        """Go through the names from one on, and stop where too many samples are bad; how many names are done."""
        total = len(reader.names)
        with (
            many_files(),
            map_processes(reader, range(known, total), self._workers) as found,
            progress_bar() as bar,
        ):
            note = f"{known:,} were done before" if known else ""
            task = bar.add_task("Reading scenes", total=total, completed=known, note=note)
            done: list[Any] = []
            samples = 0
            for stored in found:
                samples += self._take(reader.names[known], stored)
                done.append(stored)
                known += 1
                # More are bad than the limit allows, were all other scenes good and as large as the largest. A larger
                # one may come, so that the headers settle whether there are as many.
                stopped = reader.whole and len(self.judged.flaws) > self._max_bad * total * self._largest
                if max(samples, len(done)) >= BATCH or known == total or stopped:
                    self.record.write({"scenes": done})
                    bar.update(task, completed=known)
                    done, samples = [], 0
                if stopped:
                    break
        return known

    def _take(self, name: str, stored: Sequence[Any]) -> int:
        """Take in what was found under a name; the number of samples that were judged."""
        headers, tiles, judged = stored
        for key, one in headers:
            self._looked[key][name] = _parse(one)
        for tile, judgement in enumerate(judged or ()):
            self.judged.take(self._position + tile, *parse_judgement(judgement))
        self._position += tiles
        self._largest = max(self._largest, tiles)
        return len(judged or ())


@dataclass(frozen=True)
class SceneReader:
    """Reads the files of one name; where processes are not forked, it is pickled.

    Attributes:
        spec: How scenes are matched and tiled.
        sensors: The declared sensor of each key.
        named: The files by sensor and name.
        names: All names, in order.
        limits: How much may be missing from a good sample.
        whole: Whether samples are judged; only headers are read where not.
        most: Tiles up to which a scene is judged.
    """

    spec: ScenesSpec
    sensors: Mapping[str, Sensor]
    named: Named
    names: Sequence[str]
    limits: QualityLimits
    whole: bool = True
    most: float = MOST_TILES

    def headers_only(self) -> SceneReader:
        """The same, which judges nothing."""
        return SceneReader(self.spec, self.sensors, self.named, self.names, self.limits, whole=False)

    def __call__(self, number: int) -> list[Any]:
        """What the files of a name hold: header or flaw by sensor, number of tiles, and their judgements or None."""
        name = self.names[number]
        headers = {key: _look_at(paths[name], self.sensors[key]) for key, paths in self.named.items() if name in paths}
        scene = self._scene(name, headers)
        tiles = 0 if scene is None else tile_count(self.spec, scene.height, scene.width)
        judged = None
        if scene is not None and self.whole and 0 < tiles <= self.most:
            auditor = _SceneAuditor(ScenesArchive.of_scene(self.spec, self.sensors, scene), self.limits)
            judged = [record_judgement(*auditor.judge(tile)) for tile in range(tiles)]
        return [[[key, _record(one)] for key, one in headers.items()], tiles, judged]

    def _scene(self, name: str, headers: Mapping[str, Header | FlawError]) -> Scene | None:
        """The scene that the files of a name make by themselves, without those of other names."""
        if _is_matched_by_place(self.spec):
            return None
        files = {key: {name: one} for key, one in headers.items() if isinstance(one, Header)}
        if len(files) < len(self.sensors):
            return None
        found = next(match_by_stem(files, self.spec.max_days))
        return found if isinstance(found, Scene) else None


class _SceneAuditor(Auditor):
    """Judges the tiles of one scene, which names them by itself: a table would cost more than their pixels."""

    def __init__(self, archive: ScenesArchive, limits: QualityLimits) -> None:
        self.archive: ScenesArchive = archive
        self.sensors = dict(archive.sensors)
        self.limits = limits
        self._compare = False  # grids of a scene's files were compared when they were matched

    def name(self, index: int) -> str:
        return self.archive.name(index)

    def asset(self, index: int, key: str) -> str:
        return self.archive.scenes[0].files[key].name


def _look_at(path: Path, sensor: Sensor) -> Header | FlawError:
    try:
        return accept(read_header(path), sensor)
    except FlawError as error:
        return error


def _record(found: Header | FlawError) -> Any:
    if isinstance(found, FlawError):
        return {"problem": found.problem.value, "message": found.message}
    return found.record()


def _parse(stored: Any) -> Header | FlawError:
    if isinstance(stored, dict):
        return FlawError(Problem(stored["problem"]), stored["message"])
    return Header.parse(stored)
