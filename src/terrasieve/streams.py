"""Every random stream, by name: what is drawn at random, from whose seed, and what keeps two streams apart.

There are two kinds. A :class:`Counted` stream is a place in the sequence of a counter-based generator (Philox, Salmon
et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), whose key is the seed and an index, and whose counter is
four words, the lowest first::

    key      seed, index
    counter  counted up, counted up, block, top + part

A stream counts up its two lowest words alone, which lasts for 2**128 blocks of numbers, so that streams of one seed
that differ in index, block or top never meet, however much is drawn. The streams of one owner differ in these, but
for the pairs named below; the tests go through all of them.

A :class:`Seeded` stream begins where its seed says and nothing else. Of one library and one seed, all of them begin
with the same numbers. Each belongs to one measurement (a split, a bootstrap, the weights of a probe's head), which
draws its numbers in one go, and none is compared with another; so these streams are named here, but not kept apart.

Nothing keeps apart the streams of two owners whose seeds are equal: a simulated archive of seed 0 shares numbers with
a run of seed 0, which learns nothing from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

import numpy as np
import torch


class Owner(StrEnum):
    """Whose seed a stream begins from."""

    RUN = "train.seed of a run"
    LAND = "the seed of a simulated archive of land"
    SEA = "the seed of a simulated archive of the ocean"
    SELECTION = "the seed that a curator is given"
    MEASUREMENT = "the seed of a probe, split, figure or draw of samples"


@dataclass(frozen=True)
class Counted:
    """A place in the sequence of a counter-based generator.

    Attributes:
        owner: Whose seed is the first word of the key.
        what: What is drawn, and what the index counts.
        has_index: Whether whoever draws gives the second word of the key, from 0 to ``2**64 - 1``; it is 0 otherwise.
        block: Third word of the counter, the same for everything that the stream draws.
        top: Fourth word of the counter, the highest.
        has_parts: Whether a part, from 0, is added to ``top``; nothing of the same block lies above.
    """

    owner: Owner
    what: str
    has_index: bool = True
    block: int = 0
    top: int = 0
    has_parts: bool = False


@dataclass(frozen=True)
class Seeded:
    """A generator that begins from a seed alone.

    Attributes:
        owner: The settings or the run whose seed it begins from.
        what: What is drawn from it, in words.
        library: Whose generator, ``numpy`` (PCG64) or ``torch`` (Mersenne Twister on the CPU).
        word: Of torch's, hashed together with the seed where it is given, which gives another seed.
    """

    owner: Owner
    what: str
    library: str = "numpy"
    word: int | None = None


class Stream(Enum):
    """The random streams."""

    # ---------------------------------------------------------------- a run
    # The next two are one sequence in the first pass: which samples a run takes tells something of the order in which
    # it first shows them.
    POOL_PASS = Counted(Owner.RUN, "the order of the pool in a pass over it; the index is the pass")
    SAMPLES = Counted(Owner.RUN, "the samples that a run takes of its archive", has_index=False)
    VIEW_BANDS = Counted(Owner.RUN, "the bands that the views of a step show; the index is the step", top=1)
    VIEW = Counted(Owner.RUN, "the augmentation of one view, a part, in a step, the index", top=2, has_parts=True)
    VIEW_TIME = Counted(
        Owner.RUN,
        "which time of its place a sample shows in one view, a part, in a step, the index",
        block=2,
        has_parts=True,
    )
    DIRECTIONS = Counted(
        Owner.RUN, "the directions along which a step's projections are to look normal; the index is the step", block=4
    )
    # Both the samples that a round looks at and the seed that its curator is given, each from the beginning: they are
    # not independent, but the curator hashes its seed.
    ROUND = Counted(Owner.RUN, "what is random about a round of curation; the index is the round", block=1)
    PATCH_MASKS = Counted(
        Owner.RUN,
        "the patches of a sample, a part, that a student does not see in a step, the index",
        block=3,
        has_parts=True,
    )
    # The next two are one sequence of torch's: weights are drawn at its beginning, and so is the first dropped path.
    ENCODER_WEIGHTS = Seeded(Owner.RUN, "the initial weights of an encoder", "torch")
    TRAINING = Seeded(Owner.RUN, "whatever a network in training draws, such as the paths that it drops", "torch")
    HEAD_WEIGHTS = Seeded(Owner.RUN, "the initial weights of a method's heads", "torch", word=1)

    # ---------------------------------------------------------------- simulated archives; the index is the sample
    LAND_SCENE = Counted(Owner.LAND, "covers, texture and relief of a scene", top=0)
    LAND_OPTICAL = Counted(Owner.LAND, "sun, clouds, haze and noise of an optical image", top=1)
    LAND_RADAR = Counted(Owner.LAND, "incidence, weather and speckle of a radar image", top=2)
    LAND_COPY = Counted(Owner.LAND, "whether a sample shows an earlier scene again, and from where", top=3)
    LAND_SPLIT = Counted(Owner.LAND, "the split of a scene", top=4)
    LAND_DAY = Counted(Owner.LAND, "the day of a scene", top=5)
    LAND_JITTER = Counted(Owner.LAND, "the days between a sample and its scene", top=6)
    LAND_CLOUDS = Counted(Owner.LAND, "whether a sample has clouds", top=7)
    LAND_APPEARANCE = Counted(Owner.LAND, "colours, contrast and spectra of a scene", top=8)
    SEA_CONDITIONS = Counted(Owner.SEA, "phenomenon, wind, waves, place and time of a vignette", top=0)
    SEA_WAVES = Counted(Owner.SEA, "the phases of the waves", top=1)
    SEA_SCENERY = Counted(Owner.SEA, "what the phenomenon looks like", top=2)
    SEA_SPECKLE = Counted(Owner.SEA, "the speckle", top=3)
    SEA_SPLIT = Counted(Owner.SEA, "the split of a vignette", top=4)
    SEA_CALIBRATION = Counted(Owner.SEA, "level, contrast and spectrum of a vignette", top=5)

    # ---------------------------------------------------------------- a selection
    # These two are one sequence: the first numbers become the multipliers of a hash, or decide which rows are compared.
    SELECTION_KEYS = Counted(Owner.SELECTION, "what is random about rows and groups, by way of a hash", has_index=False)
    SELECTION_DIAGNOSTICS = Counted(Owner.SELECTION, "the rows whose distances are measured", has_index=False)

    # ---------------------------------------------------------------- measurements and draws of samples
    SPLIT = Seeded(Owner.MEASUREMENT, "the part of each class that is held out")
    TRAIN_SHARE = Seeded(Owner.MEASUREMENT, "the share of a train split that is learnt from")
    ARCHIVE_SPLIT = Seeded(Owner.MEASUREMENT, "the split of samples or groups of an archive that comes without one")
    FOLDS = Seeded(Owner.MEASUREMENT, "the groups of each fold")
    BOOTSTRAP = Seeded(Owner.MEASUREMENT, "the resamples of a bootstrap interval")
    CALIBRATION = Seeded(Owner.MEASUREMENT, "the samples whose pixels batch normalisation is measured on")
    ONLINE_PROBE = Seeded(Owner.MEASUREMENT, "the samples of the probe that runs in training")
    MLP_WEIGHTS = Seeded(Owner.MEASUREMENT, "the initial weights of an MLP probe", "torch")
    MLP_BATCHES = Seeded(Owner.MEASUREMENT, "the batches of an MLP probe", "torch")
    FINETUNE_HEAD = Seeded(Owner.MEASUREMENT, "the initial head of fine-tuning, and what it drops", "torch")
    FINETUNE_BATCHES = Seeded(Owner.MEASUREMENT, "the batches of fine-tuning, and how each sample is turned")
    DEEPLAB_HEAD = Seeded(Owner.MEASUREMENT, "the initial segmentation head, and its dropout", "torch")
    DEEPLAB_BATCHES = Seeded(Owner.MEASUREMENT, "the batches of a segmentation head, and how each is turned")
    PATCH_PIXELS = Seeded(Owner.MEASUREMENT, "the pixels that a segmentation probe learns from")
    PRINCIPAL_AXES = Seeded(Owner.MEASUREMENT, "where the search for the axes of most variance begins", "torch")
    EXPLAINED_SAMPLES = Seeded(Owner.MEASUREMENT, "the samples of each class that are explained")
    SHUFFLED_BANDS = Seeded(Owner.MEASUREMENT, "the orders in which a band is shuffled")
    DRAWN_SAMPLES = Seeded(Owner.MEASUREMENT, "the samples of a table of vectors that a drawing shows")
    SHOWN_PLACES = Seeded(Owner.MEASUREMENT, "the samples that a map shows")
    TRIAL_VECTORS = Seeded(Owner.MEASUREMENT, "the vectors on which the time of a clustering is measured")
    DEMO_SAMPLES = Seeded(Owner.MEASUREMENT, "the labelled samples of the demo")


def generator(stream: Stream, seed: int, index: int = 0, part: int = 0) -> np.random.Generator:
    """The generator of a stream, at its beginning.

    Args:
        stream: The name of what is drawn.
        seed: The owner's seed, from 0 to ``2**64 - 1``.
        index: What the stream counts, from 0; streams without an index have the one alone.
        part: Part of the stream, from 0; streams without parts have the one alone.
    """
    place = stream.value
    if isinstance(place, Seeded):
        assert place.library == "numpy", f"{stream.name} is torch's"
        return np.random.default_rng(seed)
    assert place.has_parts or part == 0, f"{stream.name} has no parts"
    assert place.has_index or index == 0, f"{stream.name} has no index"
    counter = [0, 0, place.block, place.top + part]
    # A list would become floats, which round, where one number is above 2**63 and another below. Without an index the
    # seed may take both words of the key.
    key = np.array([seed, index], dtype=np.uint64) if place.has_index else seed
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def torch_seed(stream: Stream, seed: int) -> int:
    """The seed of one of torch's streams, for generators that only torch itself can reach.

    Args:
        stream: The name of what is drawn.
        seed: The owner's seed, from 0 to ``2**64 - 1``.
    """
    place = stream.value
    assert isinstance(place, Seeded), f"{stream.name} is numpy's"
    assert place.library == "torch", f"{stream.name} is numpy's"
    return seed if place.word is None else int(np.random.SeedSequence([seed, place.word]).generate_state(1)[0])


def torch_generator(stream: Stream, seed: int) -> torch.Generator:
    """The generator of one of torch's streams, on the CPU, at its beginning; see :func:`torch_seed`."""
    return torch.Generator().manual_seed(torch_seed(stream, seed))
