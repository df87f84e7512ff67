"""What lies in a run folder: every file by name, and the records that are written there.

Whoever writes a file of a run and whoever reads it take its place from :class:`RunFolder` and its form from a record
here, so that neither can drift from the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from terrasieve.curation.diagnostics import Diagnostics
from terrasieve.errors import ArchiveError
from terrasieve.files.writing import write_text

WEIGHTS = "encoder.safetensors"
"""Weights of an exported encoder, in its folder."""
CARD = "encoder.json"
"""Card of an exported encoder, beside its weights."""

_ROUND = "round-"


class Record(BaseModel):
    """A frozen value that is written to a run folder. Keys of a later version are ignored when it is read."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class RoundRecord(Record):
    """What one round of curation did.

    Attributes:
        round: Number of the round, from 1.
        step: Optimiser step before which it took place, from 0.
        candidates: Samples that it could choose from.
        pool: Samples that it chose.
        inputs: What the encoder was shown, such as ``s2:B04,B03,B02``; the vectors of several were joined.
        seconds: Duration of each part of the round, in seconds.
        diagnostics: What the choice did to the archive.
        selection: Curator, settings, seed and whatever else the selection says of itself; values fit for JSON.
        group_sizes: Candidates in each cluster, shape ``(clusters,)``; empty in records of early versions.
        quotas: Chosen samples of each cluster, shape ``(clusters,)``; empty in records of early versions.
    """

    round: int
    step: int
    candidates: int
    pool: int
    inputs: tuple[str, ...]
    seconds: dict[str, float]
    diagnostics: Diagnostics
    selection: dict[str, Any]
    group_sizes: tuple[int, ...] = ()
    quotas: tuple[int, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds that the whole round took."""
        return sum(self.seconds.values())

    def __str__(self) -> str:
        """The round in one line."""
        found = self.diagnostics
        turnover = "" if found.turnover is None else f" · {found.turnover:.0%} new"
        return (
            f"Curation round {self.round} before step {self.step}: {self.pool:,} of {self.candidates:,} samples · "
            f"effective clusters {found.occupancy_before.effective:.0f} -> {found.occupancy_after.effective:.0f}"
            f"{turnover} · {self.duration:.1f} s"
        )


class StartingWeights(Record):
    """The pretrained weights that a run started from, and what was done to make them fit.

    Attributes:
        source: The setting ``model.init`` that named them.
        name: What they are, in a few words.
        training: How they were trained, in one line.
        first_layer: Where the kernels of the first layer come from, in words.
        citation: Papers or addresses to cite as the source of the weights.
        licence: SPDX identifier of their licence; empty where none is known.
        sha256: Hash of the weights file in hexadecimal.
        notes: What was done to the file's content to load it, a line each.
    """

    source: str
    name: str
    training: str
    first_layer: str
    citation: str = ""
    licence: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The weights in two lines."""
        return f"Starting from {self.name} ({self.training}).\nFirst layer: {self.first_layer}."


class Provenance(Record):
    """Where an encoder comes from. What is not known is not written.

    Attributes:
        terrasieve: Version that trained it.
        torch: Version of torch that computed it.
        data: The archive's ``source``: layout, folder, fingerprint, and whether it is simulated.
        config: The whole resolved configuration of the run.
        step: Optimiser steps done when it was exported.
        samples: Samples that it could learn from.
        hardware: What it was trained on, in words.
        precision: What training multiplied in, ``32``, ``bf16`` or ``16``: never ``auto``, but what that meant there.
        start: The pretrained weights that training started from; null where they were random.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    terrasieve: str = ""
    torch: str = ""
    data: Mapping[str, Any] = Field(default_factory=dict)
    config: Mapping[str, Any] = Field(default_factory=dict)
    step: int | None = None
    samples: int | None = None
    hardware: str = ""
    precision: str = ""
    start: StartingWeights | None = None

    @model_serializer(mode="wrap")
    def _what_is_known(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialise(self).items() if value not in (None, "", {})}


@dataclass(frozen=True)
class RunFolder:
    """The files of a run. Any of them may be missing: a run may be young, or only probed, or copied in part.

    Attributes:
        path: The folder that holds them; it need not exist yet.
    """

    path: Path

    # ---------------------------------------------------------------- training

    @property
    def config(self) -> Path:
        """Every resolved parameter, as YAML."""
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        """Numbers of the logged steps, a row each, as CSV."""
        return self.path / "log.csv"

    @property
    def tensorboard(self) -> Path:
        """Folder of the numbers that TensorBoard shows."""
        return self.path / "tensorboard"

    @property
    def wandb_id(self) -> Path:
        """Identifier of the run at Weights & Biases, as text."""
        return self.path / "wandb.txt"

    @property
    def mlflow_id(self) -> Path:
        """Identifier of the run at MLflow, as text."""
        return self.path / "mlflow.txt"

    @property
    def views(self) -> Path:
        """Samples that the run learns from and views of them, as JSON."""
        return self.path / "views.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints that a run is resumed from."""
        return self.path / "checkpoints"

    @property
    def encoder(self) -> Path:
        """Folder of the exported encoder."""
        return self.path / "encoder"

    def exported(self) -> Path | None:
        """The folder that holds an exported encoder: :attr:`encoder`, or this one; None where neither does."""
        return next((folder for folder in (self.encoder, self.path) if (folder / CARD).is_file()), None)

    # ---------------------------------------------------------------- curation

    @property
    def curation(self) -> Path:
        """Folder of the rounds of curation."""
        return self.path / "curation"

    def round_record(self, number: int) -> Path:
        """The record of a round, as JSON.

        Args:
            number: Of the round, from 1.
        """
        return self.curation / f"{_ROUND}{number:05d}.json"

    def round_selection(self, number: int) -> Path:
        """The samples that a round chose, as Parquet.

        Args:
            number: Of the round, from 1.
        """
        return self.curation / f"{_ROUND}{number:05d}.parquet"

    def write_round(self, record: RoundRecord) -> None:
        """Write the record of a round.

        Raises:
            WriteError: The system refused it.
        """
        write_text(self.round_record(record.round), record.model_dump_json(indent=1))

    def rounds(self) -> tuple[RoundRecord, ...]:
        """The records of all rounds, the first first.

        Raises:
            ArchiveError: One is damaged or of another version.
        """
        return tuple(_read_round(path) for path in sorted(self.curation.glob(f"{_ROUND}*.json")))

    # --------------------------------------------------------------- measuring

    @property
    def embeddings(self) -> Path:
        """Vectors of an archive's samples, as GeoParquet."""
        return self.path / "embeddings.parquet"

    @property
    def probe(self) -> Path:
        """Everything that probes measured, as JSON."""
        return self.path / "probe.json"

    @property
    def probe_table(self) -> Path:
        """The same as a table, as CSV."""
        return self.path / "probe.csv"

    @property
    def predictions(self) -> Path:
        """What each probe said of each test sample, as Parquet."""
        return self.path / "probe-predictions.parquet"

    @property
    def explanation(self) -> Path:
        """Projection, maps and galleries, as JSON."""
        return self.path / "explanation.json"

    @property
    def comparisons(self) -> Path:
        """Paired tests between the models of a benchmark, as JSON."""
        return self.path / "comparisons.json"

    @property
    def segmentation(self) -> RunFolder:
        """The folder in the run of what segmentation probes measured: a run folder of its own."""
        return RunFolder(self.path / "segment")

    # --------------------------------------------------------------- reporting

    @property
    def report(self) -> Path:
        """The page about the run, as HTML."""
        return self.path / "report.html"

    @property
    def told(self) -> tuple[Path, ...]:
        """Files of which at least one makes a folder a run worth a report."""
        return (
            self.config,
            self.log,
            self.encoder / CARD,
            self.probe,
            self.explanation,
            self.embeddings,
            # A run that was copied in part may lack its first rounds.
            next(iter(sorted(self.curation.glob(f"{_ROUND}*.json"))), self.round_record(1)),
        )

    def files(self) -> tuple[Path, ...]:
        """All files of the run that a report rests on and that are there, in a fixed order."""
        rounds = sorted(self.curation.glob(f"{_ROUND}*.json"))
        selections = sorted(self.curation.glob(f"{_ROUND}*.parquet"))
        fixed = (self.config, self.log, self.encoder / CARD, self.probe, self.explanation, self.embeddings, self.views)
        beside = (self.encoder / WEIGHTS, self.path / CARD, self.path / WEIGHTS, self.predictions, self.comparisons)
        return tuple(path for path in (*fixed, *rounds, *beside, *selections) if path.is_file())


@dataclass(frozen=True)
class BenchFolder(RunFolder):
    """The files of a benchmark, which are those of a probed run and its tables."""

    @property
    def cells(self) -> Path:
        """Folder with the results of each cell of the tables, by which a stopped benchmark goes on."""
        return self.path / "cells"

    @property
    def table_markdown(self) -> Path:
        """The tables in the form of the paper, as Markdown, with every comparison in words."""
        return self.path / "table.md"

    @property
    def table_latex(self) -> Path:
        """The same tables as LaTeX."""
        return self.path / "table.tex"

    @property
    def table_csv(self) -> Path:
        """Every value of the tables and every published one, a row each, as CSV."""
        return self.path / "table.csv"


def _read_round(path: Path) -> RoundRecord:
    try:
        return RoundRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArchiveError(
            f"{path} is no record of a curation round of this version ({type(error).__name__}: {error}). Restore it, "
            "or move it out of the run folder."
        ) from error
