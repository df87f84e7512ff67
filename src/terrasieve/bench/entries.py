"""What stands in the columns of a benchmark: runs of ours, baselines, floors, and a network trained on labels alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from terrasieve.baselines.loading import load_baseline
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.export import load_encoder
from terrasieve.probes.candidates import IMAGE_STATISTICS, RANDOM_INIT, Candidate
from terrasieve.probes.floors import ImageStatistics


@dataclass(frozen=True)
class Entry:
    """One model, and the seeds that it stands for.

    Attributes:
        candidate: The model.
        seeds: The seed of its training; every seed of the benchmark for one that has none.
        backbone: Its network, where it is one of ours.
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
        candidate = Candidate(name, encoder.to(device), encoder.channels)
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
    untrained = [
        Entry(Candidate(RANDOM_INIT, build_encoder(single, seed).to(device), 1), (seed,), single) for seed in seeds
    ]
    return [*untrained, Entry(Candidate(IMAGE_STATISTICS, ImageStatistics(), 1), tuple(seeds))]


def seeds_of(entries: Iterable[Entry]) -> tuple[int, ...]:
    """Every seed that any entry has, ascending."""
    return tuple(sorted({seed for entry in entries for seed in entry.seeds}))
