"""Sample data for the demos and the small benchmark: samples to learn from, and labelled ones to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.draws import shuffled_members
from terrasieve.errors import ConfigError
from terrasieve.processes.parallel import spare_cores
from terrasieve.simulation.land import SimulatedSpec
from terrasieve.simulation.sea import SENSOR_KEY, SimulatedOceanSpec
from terrasieve.streams import Stream, generator

TILE = 64
LABELLED = {"train": 1500, "val": 500, "test": 1000}
"""Labelled samples that are kept, so that probing takes no longer than training."""


@dataclass(frozen=True)
class Samples:
    """What is learnt from and what is measured on.

    Attributes:
        unlabelled: Samples to learn from, with the sensors that the recipe wants.
        labelled: Samples of which the targets are known, never trained on.
        inputs: What the probes show the encoder, in text form; the last is what is embedded and explained.
        description: One sentence that says what the data are, and that they are simulated if they are.
        targets: Columns of the labelled archive's table that the probes predict.
        mapped: Whether ``embeddings.parquet`` is of the samples to learn from, so that the map shows which were kept;
            else it is of the labelled ones, whose vectors are there anyway. It is quick for one band.
    """

    unlabelled: Archive
    labelled: Archive
    inputs: Sequence[str]
    description: str
    targets: Sequence[str] = ("label",)
    mapped: bool = False


def real_samples(data: Path, seed: int) -> Samples:
    """Scenes in ``la_texas_pairs`` and a seeded part of the classes in ``eurosat_rgb``.

    Raises:
        ConfigError: One of the two folders is not there.
    """
    scenes, labelled = data / "la_texas_pairs", data / "eurosat_rgb"
    for folder in (scenes, labelled):
        if not folder.is_dir():
            raise ConfigError(
                f"{folder} does not exist. Point --data at a folder that holds la_texas_pairs and eurosat_rgb, "
                "or leave it out (and unset TERRASIEVE_DATA) for simulated data."
            )
    spec = scenes_spec_from_options(scenes, ["s2=s2-rgb8", "s1=s1-vh8"], TILE, None, "stem")
    return Samples(
        open_archive(spec),
        _thinned(open_archive(labelled), seed),
        ("s2:B04", "s2:B03", "s2:B02", "s2:rgb"),
        f"real Sentinel-1 and Sentinel-2 scenes in {scenes}, probed on part of EuroSAT RGB in {labelled}",
    )


def simulated_samples(seed: int, count: int, store: Path) -> Samples:
    """Simulated pairs, and half as many samples with every cover equally frequent and no near-copies to measure on.

    Args:
        seed: Seed of the samples to learn from; the labelled ones have the next.
        count: Number of pairs to learn from; half as many are labelled.
        store: Where the labelled samples are packed: probes read each several times, and simulating one takes longer
            than reading it.
    """
    measured = SimulatedSpec(seed=seed + 1, samples=count // 2, zipf=0, redundancy=0)
    pack(open_archive(measured), store, workers=spare_cores())
    return Samples(
        open_archive(SimulatedSpec(seed=seed, samples=count)),
        PackedArchive(store),
        ("s2:B04", "s2:B03", "s2:B02", "s1:VV", "s1:VH", "s2:rgb"),
        "SIMULATED Sentinel-1 and Sentinel-2 samples (no --data given): the figures say nothing about real imagery",
    )


def simulated_ocean_samples(seed: int, count: int, store: Path) -> Samples:
    """Simulated Wave Mode vignettes, and others with every phenomenon equally frequent to measure on.

    Args:
        seed: Seed of the vignettes to learn from; the labelled ones have the next.
        count: Number of vignettes to learn from; a quarter more are labelled, as wave heights and winds take many test
            samples to tell two models apart.
        store: Where the labelled vignettes are packed; see :func:`simulated_samples`.
    """
    measured = SimulatedOceanSpec(seed=seed + 1, samples=count * 5 // 4, zipf=0)
    pack(open_archive(measured), store, workers=spare_cores())
    return Samples(
        open_archive(SimulatedOceanSpec(seed=seed, samples=count)),
        PackedArchive(store),
        (f"{SENSOR_KEY}:VV",),
        "SIMULATED Sentinel-1 Wave Mode vignettes: the figures say nothing about the real ocean",
        ("label", "swh", "wind_speed"),
        mapped=True,
    )


def _thinned(labelled: Archive, seed: int) -> Archive:
    splits = np.array(labelled.table()["split"].to_pylist())
    members = shuffled_members(splits, LABELLED, generator(Stream.DEMO_SAMPLES, seed))
    kept = [one[:count] for one, count in zip(members, LABELLED.values(), strict=True)]
    return SubsetArchive(labelled, np.sort(np.concatenate(kept)))
