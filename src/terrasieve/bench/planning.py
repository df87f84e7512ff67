"""From what a user names to a plan: which models, shown what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from terrasieve.archive.protocol import Archive
from terrasieve.baselines.loading import load_baseline
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import EmbedSettings
from terrasieve.errors import BandError, ConfigError
from terrasieve.models.backbone import BackboneSpec
from terrasieve.models.export import load_encoder
from terrasieve.probes.finetune import EndToEndSettings
from terrasieve.probes.models import Candidate, fits, image_statistics, untrained
from terrasieve.probes.results import default_inputs


@dataclass(frozen=True)
class BenchPlan:
    """What a benchmark measures.

    Attributes:
        entries: The models, one a column; the first is the one in question.
        archive: The labelled archive that every model is measured on.
        inputs: What the models are shown, one input a line.
        target: Column of the archive's table that is predicted.
        probes: Names of the probes; the quick ones of the target's kind where empty.
        settings: Size, batch size and precision of embedding.
        split_column: Column of the archive's table with the published split.
        scratch: Network that is also trained from scratch on the labels; None leaves that out.
        end_to_end: How the network of ``scratch`` is trained.
    """

    entries: tuple[Entry, ...]
    archive: Archive
    inputs: tuple[EncoderInput, ...]
    target: str = "label"
    probes: tuple[str, ...] = ()
    settings: EmbedSettings = field(default_factory=EmbedSettings)
    split_column: str = "split"
    scratch: BackboneSpec | None = None
    end_to_end: EndToEndSettings = field(default_factory=EndToEndSettings)


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
        archive: The labelled archive that every model is measured on.
        named_runs: Runs as ``FOLDER`` or ``NAME=FOLDER``; a name that comes again is another seed of it.
        named_baselines: Baselines in text form, each with an optional ``NAME=`` before it.
        inputs: Inputs in text form; every band and every named set of three where empty.
        probes: Names of the probes; the benchmark's own where empty.
        size: Height and width in pixels that samples are resized to; their own size when None.
        scratch_epochs: Epochs of training the first run's network from scratch on the labels; 0 leaves that out.
        device: Device that all models are moved to.

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


# --------------------------------------------------------------------- entries
# What stands in the columns of a benchmark: runs of ours, baselines, floors, and a network trained on labels alone.


@dataclass(frozen=True)
class Entry:
    """One model, and the seeds that it stands for.

    Attributes:
        candidate: The model, and what it can be shown.
        seeds: The seed of its training; every seed of the benchmark for one that has none.
        backbone: Specification of the network, where it is one of ours.
    """

    candidate: Candidate
    seeds: tuple[int, ...]
    backbone: BackboneSpec | None = None


def runs(named: Sequence[str], device: torch.device) -> list[Entry]:
    """Trained encoders, given as ``FOLDER`` or ``NAME=FOLDER``; a name that comes again is another seed of it.

    Raises:
        CheckpointError: A folder holds no encoder, or a damaged one.
        ConfigError: Runs of one name have different backbones.
    """
    seen: Counter[str] = Counter()
    found: list[Entry] = []
    for text in named:
        name, separator, folder = text.rpartition("=")
        encoder, card = load_encoder(Path(folder))
        name = name if separator else card.recipe
        first = next((entry for entry in found if entry.candidate.name == name), None)
        if first is not None and first.backbone != card.backbone:
            raise ConfigError(f"Two runs are called {name!r}, but have different backbones; write NAME=FOLDER.")
        candidate = Candidate(name, encoder.to(device), encoder.channels, calibrates=True)
        found.append(Entry(candidate, (seen[name],), card.backbone))
        seen[name] += 1
    return found


def baselines(texts: Sequence[str], seeds: Sequence[int], device: torch.device) -> list[Entry]:
    """Encoders that others trained, each in its text form, with an optional ``NAME=`` before it."""
    found = []
    for text in texts:
        # A name may not hold a colon, and every text form has one before its file.
        name, separator, form = text.partition("=")
        named = bool(separator) and ":" not in name
        loaded = load_baseline(form if named else text)
        encoder = loaded.encoder.to(device)
        label = name if named else loaded.name
        found.append(Entry(Candidate(label, encoder, encoder.channels, loaded.bands), tuple(seeds)))
    return found


def floors(backbone: BackboneSpec, seeds: Sequence[int], device: torch.device) -> list[Entry]:
    """An untrained network of each seed, and image statistics."""
    single = backbone.model_copy(update={"channels": 1})
    of_seeds = [Entry(untrained(single, seed, device), (seed,), single) for seed in seeds]
    return [*of_seeds, Entry(image_statistics(1), tuple(seeds))]


def seeds_of(entries: Iterable[Entry]) -> tuple[int, ...]:
    """Every seed that any entry has, ascending."""
    return tuple(sorted({seed for entry in entries for seed in entry.seeds}))
