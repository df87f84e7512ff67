"""What lies in a run folder: read once, and never taken to be complete."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml

from terrasieve.console import track
from terrasieve.errors import ArchiveError
from terrasieve.explain.record import Explanation, read_explanation
from terrasieve.explain.training_views import TrainingViews, read_training_views
from terrasieve.models.export import EncoderCard, read_card
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import read_json
from terrasieve.probes.significance import Comparison
from terrasieve.probes.statements import read_comparisons
from terrasieve.reporting.grouping import Group, Predictions, groups_of, read_predictions
from terrasieve.runs import CARD, RoundRecord, RunFolder
from terrasieve.schema import parse_yaml

_BLOCK = 2**24
"""Bytes of a file that are hashed at once."""
_SHOWN_FROM = 2**29
"""Bytes from which on hashing shows its progress: about a second."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Run:
    """Everything that a run folder says; what is not there is empty or None.

    Attributes:
        folder: Folder that all other values were read from.
        name: Name of the folder, with as many parents as tell the runs of one page apart.
        config: The resolved configuration, as its YAML file has it.
        log: One mapping a logged step, without the columns that were empty in it; values may be NaN.
        card: The card of the exported encoder.
        rows: Results of the probes; the first row's model is the trained one.
        explanation: Projection, saliency maps, neighbours and bands.
        views: Samples that the run learns from, and views of them.
        rounds: Records of the rounds of curation, the first first.
        quarantined: Number of rejected samples by the name of the quarantine file, in the folder or beside it.
        predictions: What the probes said of each test sample, right or wrong.
        comparisons: Paired tests between a benchmark's models, over bands and over seeds.
        digests: SHA-256 of each file that was found, in a fixed order.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    log: tuple[Mapping[str, float], ...]
    card: EncoderCard | None
    rows: tuple[ProbeRow, ...]
    explanation: Explanation | None
    views: TrainingViews | None
    rounds: tuple[RoundRecord, ...]
    quarantined: Mapping[str, int]
    predictions: Predictions
    comparisons: tuple[Comparison, ...]
    digests: Mapping[Path, str]

    @property
    def files(self) -> tuple[Path, ...]:
        """What was found."""
        return tuple(self.digests)

    @property
    def at(self) -> RunFolder:
        """The files of the run by name."""
        return RunFolder(self.folder)

    @property
    def model(self) -> str:
        """Name of the trained encoder, as the files give it."""
        named = [row.model for row in self.rows[:1]]
        named += [self.card.recipe] if self.card else []
        named += [self.explanation.model] if self.explanation else []
        named += [str(self.config["name"])] if self.config.get("name") else []
        return named[0] if named else self.name

    @property
    def simulated(self) -> bool:
        """Whether any file says that the data are simulated."""
        trained_on = self.card.provenance.data if self.card else {}
        measured_on = [row.simulated for row in self.rows] + ([self.explanation.simulated] if self.explanation else [])
        return bool(trained_on.get("simulated")) or any(measured_on)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The probe rows side by side; empty where the run was not probed."""
        return groups_of(self.rows, self.predictions)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Every class that a file names, in alphabetical order: the place of one decides its colour on the page."""
        named = {name for row in self.rows for name in row.classes}
        found = self.explanation.projection if self.explanation else None
        named |= {point.sample.label for point in found.points if point.sample.label} if found else set()
        return tuple(sorted(named))

    def series(self, column: str) -> tuple[list[float], list[float]]:
        """Steps at which a column of the log was filled, and its values there."""
        filled = [row for row in self.log if column in row]
        return [row["step"] for row in filled], [row[column] for row in filled]


def read_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """Read run folders.

    Raises:
        ArchiveError: None is named, one holds nothing of a run, or a file is damaged.
        CheckpointError: An encoder's card is damaged.
    """
    if not folders:
        raise ArchiveError("No run is named; give the folder of at least one run.")
    names = short_names(folders)
    return tuple(_read(folder, name) for folder, name in zip(folders, names, strict=True))


def short_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The last parts of each path, as few as tell the paths apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = tuple("/".join(one[-count:]) for one in parts)
        if len(set(names)) == len(names):
            return names
    return tuple(f"{name} ({position})" for position, name in enumerate(names, 1))


def _read(folder: Path, name: str) -> Run:
    run = RunFolder(folder)
    exported = run.exported()
    if exported is None and not any(path.is_file() for path in run.told):
        looked_for = ", ".join(str(path.relative_to(folder)) for path in run.told)
        raise ArchiveError(
            f"{folder} holds nothing to report on: looked for {looked_for}. Give the folder of a run, as "
            "`terrasieve pretrain` or `terrasieve probe` writes it."
        )
    return Run(
        folder=folder,
        name=name,
        config=_parsed(run.config, _config) or {},
        log=_parsed(run.log, _log) or (),
        card=read_card(exported / CARD) if exported else None,
        rows=tuple(read_json(run.probe)) if run.probe.is_file() else (),
        explanation=read_explanation(folder),
        views=read_training_views(folder),
        rounds=run.rounds(),
        quarantined=_quarantined(folder),
        predictions=read_predictions(run.predictions),
        comparisons=read_comparisons(run.comparisons) if run.comparisons.is_file() else (),
        digests=sha256_of(run.files()),
    )


def _parsed(path: Path, parse: Callable[[str], Value]) -> Value | None:
    if not path.is_file():
        return None
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, csv.Error, yaml.YAMLError) as error:
        raise ArchiveError(f"{path} is damaged: {error}. Restore it, or move it out of the run folder.") from error


def _config(text: str) -> Mapping[str, Any]:
    values = parse_yaml(text) or {}
    if not isinstance(values, dict):
        raise TypeError("it is no mapping of settings")
    return values


def _log(text: str) -> tuple[Mapping[str, float], ...]:
    rows = [
        {name: float(value) for name, value in row.items() if name and value}
        for row in csv.DictReader(text.splitlines())
    ]
    # A run that was killed may leave half a line.
    return tuple(row for row in rows if math.isfinite(row.get("step", math.nan)))


def _quarantined(folder: Path) -> dict[str, int]:
    # Lists of what was left out lie beside the archive that was indexed or packed, which may be in the run's folder.
    paths = sorted({*folder.rglob("*.quarantine.csv"), *folder.resolve().parent.glob("*.quarantine.csv")})
    counts = {
        path.name: _parsed(
            path, lambda text: sum(int(row.get("samples") or 1) for row in csv.DictReader(text.splitlines()))
        )
        for path in paths
    }
    return {name: count for name, count in counts.items() if count}


# ---------------------------------------------------------------- hashes


def sha256_of(paths: Sequence[Path]) -> dict[Path, str]:
    """SHA-256 of each file, as hexadecimal digits.

    Raises:
        ArchiveError: A file cannot be read.
    """
    hashes = {path: hashlib.sha256() for path in paths}
    total = sum(path.stat().st_size for path in paths)
    blocks = _blocks(paths)
    for path, block in track(blocks, "hash files (16 MiB)", -(-total // _BLOCK)) if total > _SHOWN_FROM else blocks:
        hashes[path].update(block)
    return {path: digest.hexdigest() for path, digest in hashes.items()}


def _blocks(paths: Sequence[Path]) -> Iterator[tuple[Path, bytes]]:
    for path in paths:
        try:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    yield path, block
        except OSError as error:
            raise ArchiveError(f"{path} cannot be read: {error}. Mend it, or move it out of the run folder.") from error
