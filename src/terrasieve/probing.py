"""Everything that is measured of one encoder on one labelled archive, as rows or written to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from terrasieve.archive.protocol import Archive
from terrasieve.baselines.loading import load_baseline
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import EmbedSettings, device_of
from terrasieve.embeddings.table import EmbeddingTable, provenance, with_columns
from terrasieve.explain.explaining import explain
from terrasieve.explain.record import write_explanation
from terrasieve.files.writing import write_whole
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.probes.compare import (
    Embedded,
    ProbeTask,
    embed_candidate,
    fit_probes,
    prepare,
    used_samples,
    with_target,
)
from terrasieve.probes.finetune import EndToEndSettings, train_end_to_end
from terrasieve.probes.groups import warn_of_overlap
from terrasieve.probes.models import Candidate, check_names, showing, with_floors
from terrasieve.probes.probe import Probe, probes_named
from terrasieve.probes.results import Measured, ProbeRow, default_inputs, predictions_table
from terrasieve.probes.row_tables import write_csv, write_json
from terrasieve.probes.splits import Splits, make_splits
from terrasieve.runs import RunFolder


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
class ProbeSetup:
    """An encoder beside its floors and baselines, and what they are measured on.

    Attributes:
        encoder: The encoder in question.
        card: Its card.
        plan: What is measured.
        candidates: The models, the encoder in question first.
        inputs: What each is shown, resolved against the archive.
        tasks: What every model shares, one task a target. Targets of the same samples stand together, because the same
            vectors serve them; the first target of the plan is the first of all.
    """

    encoder: Encoder
    card: EncoderCard
    plan: ProbePlan
    candidates: tuple[Candidate, ...]
    inputs: tuple[EncoderInput, ...]
    tasks: tuple[tuple[ProbeTask, ...], ...]


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
    setup = set_up(encoder, card, archive, plan or ProbePlan())
    return [one.row for _, measured in _measure(setup, embed_encoder(setup)) for one in measured]


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
    setup = set_up(encoder, card, archive, plan or ProbePlan())
    return measure_run(setup, embed_encoder(setup), folder)


def set_up(encoder: Encoder, card: EncoderCard, archive: Archive, plan: ProbePlan) -> ProbeSetup:
    """Choose models, inputs and samples, and measure what standardises the pixels; see :func:`probe`.

    Raises:
        ArchiveError: The archive has no labels, or its published split is incomplete.
        BandError: An input does not exist in the archive or does not fit the encoder.
        ConfigError: There is no such target, split column, probe or baseline.
        SampleError: A sample of the train split cannot be read.
    """
    offered = plan.inputs or default_inputs(archive.sensors, encoder.channels)
    inputs = tuple(dict.fromkeys(one.resolve(archive.sensors) for one in offered))
    loaded, device = [load_baseline(text) for text in plan.baselines], device_of(encoder)
    baselines = [Candidate(one.name, one.encoder.to(device), one.channels, one.bands) for one in loaded]
    candidates = (*with_floors(encoder, card, plan.seed), *baselines)
    check_names(candidates)
    return ProbeSetup(encoder, card, plan, candidates, inputs, _tasks(candidates, inputs, archive, plan))


def embed_encoder(setup: ProbeSetup) -> Embedded:
    """Vectors of the encoder in question for the first target, and for every other target of the same samples.

    Raises:
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    return embed_candidate(setup.candidates[0], setup.inputs, setup.tasks[0][0])


def embedding_table(setup: ProbeSetup, embedded: Embedded) -> EmbeddingTable:
    """The vectors of the last input with what is known of each sample, as ``embeddings.parquet`` holds them.

    Pixels are standardised by statistics of the train split, as for the probes.

    Args:
        setup: What the vectors were made for.
        embedded: The vectors, from :func:`embed_encoder`.
    """
    task, shown = setup.tasks[0][0], embedded.shown[-1]
    inputs, settings = shown.row.members, task.settings.on(device_of(setup.encoder))
    facts = provenance(setup.card, task.archive, inputs, task.normaliser, settings)
    if any(embedded.models[one] is not setup.encoder for one in inputs):
        facts["batch_norms"] = "measured on the train split, for each input"
    return with_columns(embedded.vectors(shown), task.archive, inputs, used_samples(task.splits), facts)


def measure_run(setup: ProbeSetup, embedded: Embedded, folder: Path) -> list[ProbeRow]:
    """Do what :func:`probe_run` does, with vectors of the encoder that are there already.

    Args:
        setup: What to measure.
        embedded: Vectors of the encoder in question, from :func:`embed_encoder`.
        folder: Where the files go; made if absent.

    Returns:
        What :func:`probe` returns.

    Raises:
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    # The first target is the one in question; explanations are of classes.
    if setup.tasks[0][0].splits.target.task == "classification":
        _explain(setup, embedded, folder)
    found = _measure(setup, embedded)
    rows = [one.row for _, measured in found for one in measured]
    tables = [predictions_table(measured, task.splits, task.archive.ids) for task, measured in found]
    run = RunFolder(folder)
    write_json(rows, run.probe)
    write_csv(rows, run.probe_table)
    with write_whole(run.predictions) as partial:
        pq.write_table(pa.concat_tables(tables), partial, compression="zstd")
    return rows


def _measure(setup: ProbeSetup, embedded: Embedded) -> list[tuple[ProbeTask, list[Measured]]]:
    """Every result by target, in the order of the plan; of any split, the vectors of one more model are in memory."""
    found: dict[str, tuple[ProbeTask, list[Measured]]] = {}
    for tasks in setup.tasks:
        for task in tasks:
            found[task.splits.target.column] = (task, [])
        for candidate in setup.candidates:
            at_hand = tasks is setup.tasks[0] and candidate is setup.candidates[0]
            shown = embedded if at_hand else embed_candidate(candidate, setup.inputs, tasks[0])
            for task in tasks:
                found[task.splits.target.column][1].extend(fit_probes(shown, task))
        for task in tasks:
            found[task.splits.target.column][1].extend(_fine_tuned(setup, task))
    return [found[target] for target in setup.plan.targets]


def _tasks(
    candidates: Sequence[Candidate], inputs: Sequence[EncoderInput], archive: Archive, plan: ProbePlan
) -> tuple[tuple[ProbeTask, ...], ...]:
    """A task for each target, those of the same samples together."""
    rows = [showing(candidate, one, archive.sensors).row for candidate in candidates for one in inputs]
    found: dict[tuple[bytes, ...], list[ProbeTask]] = {}
    for target in dict.fromkeys(plan.targets):
        splits = make_splits(archive.table(), plan.seed, plan.split_column, target, plan.group, plan.block_km)
        options = "--group COLUMN or --block-km KM"
        warn_of_overlap(splits.overlapping, f"samples of {target}", "train or validation samples", options)
        probes = _probes(plan, splits)
        same = found.setdefault(tuple(part.tobytes() for part in (splits.train, splits.val, splits.test)), [])
        if same:
            same.append(with_target(same[0], splits, probes))
        else:
            same.append(prepare(archive, splits, rows, probes, plan.settings, plan.train_shares, plan.seed))
    return tuple(map(tuple, found.values()))


def _probes(plan: ProbePlan, splits: Splits) -> list[Probe]:
    # The same name in another case is the same probe.
    wanted = dict.fromkeys(one.lower() if isinstance(one, str) else one for one in plan.probes)
    probes: list[Probe] = []
    for one in wanted:
        probes += probes_named([one], splits.target.task) if isinstance(one, str) else [one]
    return probes


def _fine_tuned(setup: ProbeSetup, task: ProbeTask) -> list[Measured]:
    plan, encoder, name = setup.plan, setup.encoder, setup.card.recipe
    if plan.fine_tune is None:
        return []
    candidate = Candidate(name, encoder, encoder.channels)
    rows = [showing(candidate, one, task.archive.sensors).row for one in setup.inputs]
    return [
        train_end_to_end(name, encoder, row, task, plan.fine_tune, share) for row in rows for share in plan.train_shares
    ]


def _explain(setup: ProbeSetup, embedded: Embedded, folder: Path) -> None:
    task, shown = setup.tasks[0][0], embedded.shown[-1]
    encoders = [model for one in shown.row.members if isinstance(model := embedded.models[one], Encoder)]
    explanation = explain(
        encoders[0],
        setup.card.recipe,
        task.archive,
        shown.row,
        task.splits,
        task.normaliser,
        task.settings,
        task.data,
        embedded.vectors(shown),
        target=task.splits.target.column,
        seed=task.seed,
        encoders=encoders,
    )
    write_explanation(explanation, folder)
