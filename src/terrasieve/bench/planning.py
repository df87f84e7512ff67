"""From what a user names to a plan: which models, shown what."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from terrasieve.archive.protocol import Archive
from terrasieve.bench.entries import Entry, baselines, floors, runs, seeds_of
from terrasieve.bench.running import BenchPlan
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import EmbedSettings
from terrasieve.errors import BandError, ConfigError
from terrasieve.models.backbone import BackboneSpec
from terrasieve.probes.candidates import fits
from terrasieve.probes.end_to_end import EndToEndSettings
from terrasieve.probes.rows import default_inputs


def make_plan(
    archive: Archive,
    named_runs: Sequence[str],
    named_baselines: Sequence[str],
    inputs: Sequence[str],
    probes: Sequence[str],
    size: int | None,
    scratch_epochs: int,
    device: torch.device,
) -> BenchPlan:
    """A benchmark of runs and baselines beside their floors.

    Args:
        archive: The labelled archive.
        named_runs: ``FOLDER`` or ``NAME=FOLDER``; a name that comes again is another seed of it.
        named_baselines: Text forms, each with an optional ``NAME=`` before it.
        inputs: Text forms; every band and every named set of three where empty.
        probes: Names; the benchmark's own where empty.
        size: Pixels that samples are resized to; their own size when None.
        scratch_epochs: Of training the first run's network from scratch; 0 leaves that out.
        device: Where everything runs.

    Raises:
        BandError: An input does not exist, or fits none of the models.
        CheckpointError: A run or baseline cannot be loaded.
        ConfigError: Nothing is named, or two models have one name.
    """
    trained = runs(named_runs, device)
    if not trained and not named_baselines:
        raise ConfigError("No model is named: add --run FOLDER or --baseline NAME.")
    seeds = seeds_of(trained) or (0,)
    backbone = next((entry.backbone for entry in trained if entry.backbone), BackboneSpec())
    entries = (*trained, *baselines(named_baselines, seeds, device), *floors(backbone, seeds, device))
    shown = [EncoderInput.parse(text) for text in inputs] or list(default_inputs(archive.sensors, 1))
    _check_shown(entries, shown, archive)
    return BenchPlan(
        entries=entries,
        archive=archive,
        inputs=tuple(shown),
        probes=tuple(probes),
        settings=EmbedSettings(size=size),
        scratch=backbone if scratch_epochs else None,
        end_to_end=EndToEndSettings(epochs=scratch_epochs or 1),
    )


def _check_shown(entries: Sequence[Entry], inputs: Sequence[EncoderInput], archive: Archive) -> None:
    """Refuse a model that no line of the table fits: its column would be empty."""
    for entry in entries:
        if not any(fits(entry.candidate, one, archive.sensors) for one in inputs):
            raise BandError(
                f"{entry.candidate.name} takes {entry.candidate.channels} bands, and none of the inputs "
                f"{', '.join(map(str, inputs))} has as many; name one with --input, or leave the model out."
            )
