"""From a configuration and an archive to a trained encoder: puts the rooms together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from terrasieve import __version__
from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import statistics_of
from terrasieve.baselines.starting import start_from
from terrasieve.config import RunConfig, to_yaml
from terrasieve.console import console
from terrasieve.device import describe_device, resolve_precision
from terrasieve.distinct import distinct
from terrasieve.embeddings.inputs import EncoderInput, resolve_inputs, views_as_inputs
from terrasieve.embeddings.stream import device_of
from terrasieve.errors import ConfigError, SampleError
from terrasieve.explain.training_views import make_training_views, write_training_views
from terrasieve.files.outputs import hold_folder
from terrasieve.models.backbone import Encoder, build_encoder, check_sizes, checkpoint_activations
from terrasieve.models.calibration import CALIBRATION_BATCH, CALIBRATION_SAMPLES, batch_norms, calibrated
from terrasieve.models.export import EncoderCard, save_encoder
from terrasieve.probes.online import OnlineKnn
from terrasieve.probes.results import default_rows, input_row
from terrasieve.processes.ranks import own_rank
from terrasieve.runs import Provenance, RunFolder, StartingWeights
from terrasieve.sensors import BandStatistics
from terrasieve.streams import Stream, generator
from terrasieve.training.checkpoints import checkpoints
from terrasieve.training.job import Curation, Evaluator, TrainingJob, TrainingResult
from terrasieve.training.loop import train
from terrasieve.training.pool import Batch, ViewReader
from terrasieve.training.schedules import Timeline, make_timeline
from terrasieve.training.spec import FeatureBank
from terrasieve.views.places import Places
from terrasieve.views.plan import ViewPlanner
from terrasieve.views.render import Normaliser, render

_MAY_DIFFER_ON_RESUME: Any = {
    "train": {
        "workers",
        "log_every",
        "evaluate_every",
        "evaluate_steps",
        "checkpoint_minutes",
        "keep_checkpoints",
        "timeout_minutes",
        "loggers",
        "compile",
    },
    "model": {"checkpoint"},
    "description": True,
    "source": True,
    "differs": True,
}


def pretrain(
    config: RunConfig,
    archive: Archive,
    folder: Path,
    fabric: Fabric,
    *,
    resume: bool = False,
    evaluate: Evaluator | None = None,
    evaluate_counterpart: Evaluator | None = None,
    subset: NDArray[np.int64] | None = None,
) -> TrainingResult:
    """Train an encoder on an archive.

    The run folder receives ``config.yaml`` (every resolved parameter), ``log.csv``, ``views.json`` (samples and views
    as pictures), ``checkpoints/`` and ``encoder/`` (weights that plain timm loads, and a card that says what they are).

    Args:
        config: The recipe with every parameter resolved.
        archive: Archive to learn from, of which samples are read again and again.
        folder: Folder that everything is written to; it is made where it is absent.
        fabric: Device, precision and processes; already launched.
        resume: Go on from the last checkpoint in ``folder``.
        evaluate: Measures the encoder that is exported now and then, as :func:`online_probe` does; None measures
            nothing.
        evaluate_counterpart: Measures the other one of student and teacher at the same steps, mostly the same probe;
            None measures the exported encoder alone.
        subset: Archive indices to learn from, for example of :func:`terrasieve.archive.selection.read_selection`; all
            when None. Curation, where the recipe has it, chooses among them.

    Raises:
        ConfigError: The archive and the recipe do not fit, the folder holds another run, or a new run is to curate
            from the feature bank before it has seen every sample.
        WriteError: The folder cannot be written to, or another process trains in it.
        TrainingError: See :func:`terrasieve.training.loop.train`.
    """
    # The first process writes for all.
    with hold_folder(folder) if fabric.is_global_zero else nullcontext():
        # A run that an older version began goes on as it was asked to.
        if not (resume and checkpoints(RunFolder(folder).checkpoints)):
            _check_warmup(config)
        job = replace(make_job(config, archive, folder, evaluate, subset), evaluate_counterpart=evaluate_counterpart)
        if fabric.is_global_zero:
            for warning in job.warnings:
                console.print(f"[yellow]Warning:[/] {warning}", highlight=False)
            if job.start is not None:
                console.print(str(job.start), highlight=False)
            if not RunFolder(folder).views.is_file():
                _show_views(job)
        return train(job, fabric, resume)


def _show_views(job: TrainingJob) -> None:
    """Draw what the run learns from; a sample that cannot be read is for training to tell of."""
    try:
        write_training_views(make_training_views(job), job.folder)
    except SampleError as error:
        console.print(f"[yellow]Warning:[/] The report will show no views. {error}", highlight=False)


def make_job(
    config: RunConfig,
    archive: Archive,
    folder: Path,
    evaluate: Evaluator | None = None,
    subset: NDArray[np.int64] | None = None,
) -> TrainingJob:
    """Everything that training needs, built from a configuration and an archive; see :func:`pretrain`.

    Raises:
        ConfigError: The views do not suit the method or backbone, the run ends before its first round of curation, or
            ``model.init`` names weights of another network, or none.
        CheckpointError: The weights that ``model.init`` names cannot be read or downloaded.
        BandError: The archive lacks a sensor or band that the views want.
        ArchiveError: Views show other times, but the archive does not say which samples show one place.
    """
    statistics = statistics_of(archive)
    planner = ViewPlanner(config.views, archive.sensors, config.train.seed)
    encoder = build_encoder(config.model.backbone, config.train.seed)
    if config.model.checkpoint:
        checkpoint_activations(encoder)
    check_sizes(encoder, {branch.name: branch.size for branch in config.views.branches})
    pool = _pool(config, np.arange(len(archive)) if subset is None else distinct(subset))
    timeline = make_timeline(len(pool), config.train, config.curation)
    config = config.model_copy(update={"method": config.method.paced(timeline.steps, timeline.first_use)})
    memory = config.method.memory(timeline.steps)
    curation = _curation(config, archive, len(pool))
    card = _card(config, archive, planner, statistics)
    start = None if config.model.init is None else start_from(encoder, config.model.init, card)

    normaliser = Normaliser(archive.sensors, statistics)
    # Among the samples of the run alone: others may be held out.
    places = Places.of(archive, pool) if any(branch.time for branch in config.views.branches) else None

    def export(trained: Encoder, step: int) -> None:
        crops = _training_crops(archive, pool, planner, normaliser, places, device_of(trained))
        measured = calibrated(trained, crops)
        device = device_of(trained)
        done = {
            "step": step,
            "samples": len(pool),
            "hardware": describe_device(device),
            "precision": resolve_precision(config.train.precision, device),
            "start": start,
        }
        written = {
            "teacher_memory": None if memory is None else float(memory[step]),
            "provenance": card.provenance.model_copy(update=done),
            "calibrated_on": "training crops" if batch_norms(trained) else None,
        }
        if own_rank() == 0:
            save_encoder(RunFolder(folder).encoder, measured, card.model_copy(update=written))

    return TrainingJob(
        method=config.method.build(encoder, [branch.count for branch in config.views.branches], config.train.seed),
        archive=archive,
        pool=pool,
        planner=planner,
        normaliser=normaliser,
        spec=config.train,
        folder=folder,
        config=_compared_on_resume(config, archive, pool, start),
        resolved=to_yaml(config),
        export=export,
        start=start,
        evaluate=evaluate,
        memory=memory,
        warnings=tuple(_warnings(config, timeline)),
        curation=curation,
        places=places,
    )


def online_probe(config: RunConfig, archive: Archive, wanted: str | None) -> Evaluator:
    """The kNN that a run measures while it trains.

    Args:
        config: Decides how many bands the encoder takes, and the seed.
        archive: Archive with labels, which need not be the one that is trained on.
        wanted: What the encoder is shown, for example ``s2:B03``; None takes the first input that fits.

    Raises:
        ArchiveError: The archive has no labels.
        BandError: The input does not exist or does not fit.
    """
    channels = config.model.channels
    if wanted is None:
        row = default_rows(archive.sensors, channels)[0]
    else:
        row = input_row(EncoderInput.parse(wanted), archive.sensors, channels)
    return OnlineKnn(archive, row.members, seed=config.train.seed)


def _warnings(config: RunConfig, timeline: Timeline) -> Iterator[str]:
    train = config.train
    if train.steps is None and (said := train.schedule.warning(train.epochs)):
        yield said
    # Pretrained weights are nothing to forget.
    if config.model.init is None and (said := config.method.warning(timeline.steps, timeline.first_use)):
        yield said


def _pool(config: RunConfig, offered: NDArray[np.int64]) -> NDArray[np.int64]:
    if config.samples is None:
        return offered
    if config.samples > len(offered):
        console.print(
            f"samples is {config.samples:,}, and {len(offered):,} are offered: all of them are taken.", highlight=False
        )
        return offered
    return np.sort(generator(Stream.SAMPLES, config.train.seed).permutation(offered)[: config.samples])


def _check_warmup(config: RunConfig) -> None:
    spec = config.curation
    if spec is not None and isinstance(spec.features, FeatureBank) and spec.warmup < 1:
        raise ConfigError(
            f"curation.warmup is {spec.warmup:g} passes, after which the feature bank would know only a share of the "
            "samples. Set curation.warmup=1 or more, or take curation.features=clean, which embeds them all."
        )


def _training_crops(
    archive: Archive,
    pool: NDArray[np.int64],
    planner: ViewPlanner,
    normaliser: Normaliser,
    places: Places | None,
    device: torch.device,
) -> Iterator[Tensor]:
    """Views of samples of a run, as its first steps would show them, in equal batches of all branches together.

    Views of other sizes than the first branch's, which the card names, are left out.
    """
    drawn = generator(Stream.CALIBRATION, planner.seed).permutation(pool)
    own = [i for i, view in enumerate(planner.recipe.views) if view.size == planner.recipe.views[0].size]
    drawn = drawn[: CALIBRATION_SAMPLES // len(own)]
    size = min(len(drawn), max(1, CALIBRATION_BATCH // len(own)))
    reader = ViewReader(archive, planner, size, places)
    for step in range(len(drawn) // size):
        batch = reader[Batch(step, drawn[step * size :][:size], 0)]
        views = render(batch.to(device), normaliser)
        yield torch.cat([views[i] for i in own])


def _curation(config: RunConfig, archive: Archive, samples: int) -> Curation | None:
    spec = config.curation
    if spec is None:
        return None
    if not make_timeline(samples, config.train, spec).rounds:
        raise ConfigError(
            f"curation.warmup is {spec.warmup:g} passes, but the run ends before the first round. Lower it, or raise "
            "train.epochs."
        )
    if spec.inputs is None:
        inputs = views_as_inputs(config.views, archive.sensors)
    else:
        inputs = tuple(EncoderInput.parse(text) for text in spec.inputs)
    banked = isinstance(spec.features, FeatureBank)
    if banked and spec.inputs is not None and len(inputs) > 1:
        raise ConfigError(
            f"curation.inputs names {len(inputs)} inputs, but the feature bank holds one vector a sample. Name one, or "
            "take curation.features=clean."
        )
    if banked and config.views.branches[0].draws_source:
        raise ConfigError(
            f"The feature bank holds what the first view shows, but view {config.views.branches[0].name!r} draws the "
            "sensor or the time at random, by which samples would be sorted. Take curation.features=clean, or let the "
            "first view show one sensor of the sample itself."
        )
    resolved = resolve_inputs(inputs[:1] if banked else inputs, archive.sensors, config.model.channels)
    size = config.views.branches[0].size
    return Curation(spec if spec.size else spec.model_copy(update={"size": size}), resolved)


def _card(
    config: RunConfig,
    archive: Archive,
    planner: ViewPlanner,
    statistics: Mapping[str, tuple[BandStatistics, ...]],
) -> EncoderCard:
    return EncoderCard(
        backbone=config.model.backbone,
        method=config.method.name,
        recipe=config.name,
        image_size=config.views.branches[0].size,
        sensors=dict(archive.sensors),
        view_bands=tuple(tuple(f"{key}:{band}" for key, band in view) for view in planner.channels),
        statistics=dict(statistics),
        provenance=Provenance(
            terrasieve=__version__,
            torch=torch.__version__,
            data=dict(archive.source),
            config=config.model_dump(mode="json"),
        ),
    )


def _compared_on_resume(
    config: RunConfig, archive: Archive, pool: NDArray[np.int64], start: StartingWeights | None
) -> dict[str, Any]:
    values = config.model_dump(mode="json", exclude=_MAY_DIFFER_ON_RESUME)
    data = {
        "fingerprint": archive.source.get("fingerprint"),
        "samples": len(archive),
        "pool": hashlib.sha256(np.ascontiguousarray(pool).data).hexdigest()[:16],
        "start": start.sha256[:16] if start else None,
    }
    return {**values, "data": data}
