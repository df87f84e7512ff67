"""Everything that is measured of one encoder on one labelled archive, as rows or written to a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from terrasieve.archive.protocol import Archive
from terrasieve.baselines.loading import load_baseline
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import EmbedSettings, calibrated_encoders, device_of
from terrasieve.explain.explaining import explain
from terrasieve.explain.record import write_explanation
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.probes.compare import Embedded, ProbeTask, compare, embed_candidate, fit_probes, prepare
from terrasieve.probes.finetune import EndToEndSettings, train_end_to_end
from terrasieve.probes.groups import warn_of_overlap
from terrasieve.probes.models import Candidate, check_names, showing, with_floors
from terrasieve.probes.probe import Probe, probes_named
from terrasieve.probes.results import Measured, ProbeRow, default_inputs, predictions_table
from terrasieve.probes.row_tables import write_csv, write_json
from terrasieve.probes.splits import make_splits
from terrasieve.runs import RunFolder
from terrasieve.writing import write_whole


@dataclass(frozen=True)
class ProbePlan:
    """What is measured.

    Attributes:
        inputs: One line of the tables each; every one that the archive offers where empty.
        probes: Probes, or their names as :func:`terrasieve.probes.probe.probes_named` knows them; the quick ones of the
            target's kind where empty.
        targets: Columns of the archive's table.
        train_shares: Shares of the train split to fit on, for curves of few labels.
        baselines: Encoders that others trained, in their text form.
        fine_tune: How a copy of the encoder is also trained on the labels; None leaves that out.
        settings: Size, batch size and precision.
        split_column: Column with the published split.
        group: Column whose equal values a split keeps together, instead of the published split; none when None.
        block_km: Side in km of squares of ground that a split keeps together likewise; none when None.
        seed: Seed of the untrained network, and of whatever has to be drawn.
    """

    inputs: tuple[EncoderInput, ...] = ()
    probes: tuple[str | Probe, ...] = ()
    targets: tuple[str, ...] = ("label",)
    train_shares: tuple[float, ...] = (1.0,)
    baselines: tuple[str, ...] = ()
    fine_tune: EndToEndSettings | None = None
    settings: EmbedSettings = field(default_factory=EmbedSettings)
    split_column: str = "split"
    group: str | None = None
    block_km: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Probed:
    """What was measured of one target.

    Attributes:
        task: Samples, probes and settings that every model shared.
        embedded: Vectors of the encoder in question.
        measured: Every result with its predictions, ordered by model (the encoder, its floors, the baselines, then the
            encoder fine-tuned), input, share of the train split and probe.
    """

    task: ProbeTask
    embedded: Embedded
    measured: tuple[Measured, ...]


def probe(encoder: Encoder, card: EncoderCard, archive: Archive, plan: ProbePlan | None = None) -> list[ProbeRow]:
    """Probe an encoder and, always beside it, its own backbone untrained and image statistics.

    Pixels are standardised by statistics of the train split of this archive, the same for every model.
    Each sample passes each model once per distinct input, however many rows use it.

    Args:
        encoder: On the device that it is to run on; left exactly as it is.
        card: The encoder's card, which names its recipe and backbone.
        archive: The labelled archive that the encoder is measured on.
        plan: What to measure; ``ProbePlan()``, which is the quick probes of ``label``, when None.

    Returns:
        Rows ordered by target, model (the encoder, its floors, the baselines, then the encoder fine-tuned), input,
        share of the train split and probe.

    Raises:
        ArchiveError: The archive has no labels, or its published split is incomplete.
        BandError: An input does not exist in the archive or does not fit the encoder.
        ConfigError: There is no such target, split column, probe or baseline.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    targets = _each_target(encoder, card, archive, plan or ProbePlan())
    return [one.row for probed in targets for one in probed.measured]


def probe_run(
    encoder: Encoder, card: EncoderCard, archive: Archive, folder: Path, plan: ProbePlan | None = None
) -> list[ProbeRow]:
    """Do what :func:`probe` does, explain the encoder, and write all of it to a folder.

    Written are ``probe.json`` and ``probe.csv`` (every number), ``probe-predictions.parquet`` (what was said of each
    test sample) and, where the first target is a class, ``explanation.json``.

    Args:
        encoder: On the device that it is to run on; left exactly as it is.
        card: The encoder's card, which names its recipe and backbone.
        archive: The labelled archive that the encoder is measured on.
        folder: Where the files go; made if absent.
        plan: What to measure, as in :func:`probe`.

    Returns:
        What :func:`probe` returns.

    Raises:
        ArchiveError: The archive has no labels, or its published split is incomplete.
        BandError: An input does not exist in the archive or does not fit the encoder.
        ConfigError: There is no such target, split column, probe or baseline.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    rows: list[ProbeRow] = []
    tables: list[pa.Table] = []
    for probed in _each_target(encoder, card, archive, plan or ProbePlan()):
        splits = probed.task.splits
        # The first target is the one in question; explanations are of classes.
        if not rows and splits.target.task == "classification":
            _explain(encoder, card, probed, folder)
        rows += [one.row for one in probed.measured]
        tables.append(predictions_table(probed.measured, splits, archive.ids))
    run = RunFolder(folder)
    write_json(rows, run.probe)
    write_csv(rows, run.probe_table)
    with write_whole(run.predictions) as partial:
        pq.write_table(pa.concat_tables(tables), partial, compression="zstd")
    return rows


def _each_target(encoder: Encoder, card: EncoderCard, archive: Archive, plan: ProbePlan) -> Iterator[Probed]:
    """Measure one target after the other, so that the vectors of one only are in memory."""
    offered = plan.inputs or default_inputs(archive.sensors, encoder.channels)
    inputs = tuple(dict.fromkeys(one.resolve(archive.sensors) for one in offered))
    loaded, device = [load_baseline(text) for text in plan.baselines], device_of(encoder)
    baselines = [Candidate(one.name, one.encoder.to(device), one.channels, one.bands) for one in loaded]
    candidates = (*with_floors(encoder, card, plan.seed), *baselines)
    check_names(candidates)
    for target in plan.targets:
        task = _task(candidates, inputs, archive, target, plan)
        embedded = embed_candidate(candidates[0], inputs, task)
        measured = [*fit_probes(embedded, task), *compare(candidates[1:], inputs, task)]
        yield Probed(task, embedded, (*measured, *_fine_tuned(encoder, card, inputs, task, plan)))


def _task(
    candidates: Sequence[Candidate], inputs: Sequence[EncoderInput], archive: Archive, target: str, plan: ProbePlan
) -> ProbeTask:
    splits = make_splits(archive.table(), plan.seed, plan.split_column, target, plan.group, plan.block_km)
    options = "--group COLUMN or --block-km KM"
    warn_of_overlap(splits.overlapping, f"samples of {target}", "train or validation samples", options)
    rows = [showing(candidate, one, archive.sensors).row for candidate in candidates for one in inputs]
    # The same name in another case is the same probe.
    wanted = dict.fromkeys(one.lower() if isinstance(one, str) else one for one in plan.probes)
    probes: list[Probe] = []
    for one in wanted:
        probes += probes_named([one], splits.target.task) if isinstance(one, str) else [one]
    return prepare(archive, splits, rows, probes, plan.settings, plan.train_shares, plan.seed)


def _fine_tuned(
    encoder: Encoder, card: EncoderCard, inputs: Sequence[EncoderInput], task: ProbeTask, plan: ProbePlan
) -> list[Measured]:
    if plan.fine_tune is None:
        return []
    rows = [showing(Candidate(card.recipe, encoder, encoder.channels), one, task.archive.sensors).row for one in inputs]
    return [
        train_end_to_end(card.recipe, encoder, row, task, plan.fine_tune, share)
        for row in rows
        for share in plan.train_shares
    ]


def _explain(encoder: Encoder, card: EncoderCard, probed: Probed, folder: Path) -> None:
    task, shown = probed.task, probed.embedded.shown[-1]
    # Pictures pass the first member's encoder alone: of several members, only their vectors are looked at.
    looked_at = (task.archive, shown.row.members[:1], task.normaliser, task.settings, task.splits.train, task.seed)
    explanation = explain(
        calibrated_encoders(encoder, *looked_at)[0],
        card.recipe,
        task.archive,
        shown.row,
        task.splits,
        task.normaliser,
        task.settings,
        task.data,
        probed.embedded.vectors(shown),
        target=task.splits.target.column,
        seed=task.seed,
    )
    write_explanation(explanation, folder)
