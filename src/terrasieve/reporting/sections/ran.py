"""Section of the page: what ran, on what, and the files that say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from terrasieve.device import PRECISION_NAMES
from terrasieve.models.export import EncoderCard
from terrasieve.reporting.run import Run
from terrasieve.reporting.wording import day, duration, file_size
from terrasieve.runs import Provenance, StartingWeights
from terrasieve.tables import Table, row_of


@dataclass(frozen=True)
class Ran:
    """What the section shows.

    Attributes:
        facts: Name and text of each fact, in the order of the page.
        data: The archive that it was trained on, as YAML; empty where unknown.
        config: The resolved configuration as YAML; empty where unknown.
        statistics: Mean and standard deviation by which each band was normalised; None where unknown.
        files: Each file of the run with its size, its date and its hash.
    """

    facts: tuple[tuple[str, str], ...]
    data: str
    config: str
    statistics: Table | None
    files: Table


def ran(key: str, run: Run) -> Ran:
    """The section, which every run has.

    Args:
        key: Prefix of the ids; this section needs none.
        run: The run that the page is about.
    """
    provenance = run.card.provenance if run.card else Provenance()
    config = run.at.config
    return Ran(
        facts=tuple(_facts(run)),
        data=as_yaml(provenance.data),
        # As it was written: reading and writing again could change what a number looks like.
        config=config.read_text(encoding="utf-8") if config.is_file() else as_yaml(provenance.config),
        statistics=statistics_table(run),
        files=_files(run),
    )


def as_yaml(value: Any) -> str:
    """A JSON-able value in YAML; nothing where there is nothing."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100) if value else ""


def statistics_table(run: Run) -> Table | None:
    """Mean and standard deviation by which each band was normalised; None where no card says."""
    if run.card is None:
        return None
    units = {(key, band.name): band.unit for key, sensor in run.card.sensors.items() for band in sensor.bands}
    rows = tuple(
        row_of(f"{key}:{one.band}", units.get((key, one.band), ""), f"{one.mean:.6g}", f"{one.std:.6g}")
        for key, bands in run.card.statistics.items()
        for one in bands
    )
    columns = ("band", "unit", "mean", "standard deviation")
    return Table("Normalisation of the pixels", columns, rows, align="llrr") if rows else None


def starting_facts(start: StartingWeights) -> Iterator[tuple[str, str]]:
    """Name and text of each fact of the pretrained weights that a run started from."""
    yield "started from", f"{start.name} ({start.training}), {start.source}"
    yield "first layer", start.first_layer
    yield "licence of the weights it started from", start.licence or "unknown"
    yield "source of the weights it started from", start.citation
    yield from (("note on the weights it started from", note) for note in start.notes)


def precision_text(card: EncoderCard | None) -> str:
    """What training multiplied in, in words; empty where no card says."""
    known = card.provenance.precision if card else ""
    return PRECISION_NAMES.get(known, known)


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    card = run.card
    if card is not None:
        yield (
            "encoder",
            f"{card.backbone.name}, {card.backbone.channels} input channel(s), from views of {card.image_size} px",
        )
        yield "method and recipe", f"{card.method}, {card.recipe}"
        yield from (("differs from its source", str(one)) for one in card.provenance.config.get("differs", ()))
        yield "weights SHA-256", card.weights_sha256 or "not recorded"
        yield from _source(card.provenance.data)
        if card.provenance.start is not None:
            yield from starting_facts(card.provenance.start)
        said = card.provenance.model_dump(exclude={"data", "config", "start", "precision"})
        yield from ((name, str(value)) for name, value in said.items())
    if run.log and "seconds" in run.log[-1]:
        yield "training took", duration(run.log[-1]["seconds"])
    train = run.config.get("train")
    if isinstance(train, Mapping):
        yield from ((name, str(train[name])) for name in ("seed", "batch_size") if name in train)
    # Where no card says which was used, it is the one that the settings ask for.
    asked = str(train.get("precision", "")) if isinstance(train, Mapping) else ""
    yield "precision of training", precision_text(card) or PRECISION_NAMES.get(asked, "not recorded")
    for row in run.rows[:1]:
        yield "probed on", row.data


def _source(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if data:
        kind = " (SIMULATED)" if data.get("simulated") else ""
        yield "trained on", f"{data.get('layout', 'unknown layout')} {data.get('root', '')}{kind}".strip()
        if data.get("fingerprint"):
            yield "data fingerprint", str(data["fingerprint"])


def _files(run: Run) -> Table:
    rows = []
    for path, digest in run.digests.items():
        facts = path.stat()
        name = path.relative_to(run.folder).as_posix()
        rows.append(row_of(name, file_size(facts.st_size), day(facts.st_mtime), digest))
    return Table("Files of the run", ("file", "size", "written", "SHA-256"), tuple(rows))
