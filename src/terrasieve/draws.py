"""Seeded draws of samples class by class, so that every part of a data set has its share of each class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.errors import ConfigError
from terrasieve.streams import Stream, generator

Positions = NDArray[np.int64]


def shuffled_members(labels: NDArray[Any], classes: Iterable[Any], rng: np.random.Generator) -> list[Positions]:
    """The positions of each class in a random order, of which a caller takes the first.

    Args:
        labels: Class of each sample, as codes or as text, shape ``(n,)``.
        classes: The classes that are drawn from, in the order in which they use up its numbers.
        rng: Goes on by one permutation a class.

    Returns:
        Of each class an array of positions in ``labels``; an empty one for a class that no sample has.
    """
    return [rng.permutation(np.flatnonzero(labels == one)) for one in classes]


def stratified_holdout(labels: NDArray[np.int64], share: float, seed: int) -> tuple[Positions, Positions]:
    """Positions that stay and positions that are held out, drawn per class.

    Args:
        labels: Class codes, shape ``(n,)``.
        share: Of each class, 0 to 1, rounded to whole samples; a class with one sample keeps it, and one sample at
            least is held out of every other.
        seed: Seed of the draw.

    Returns:
        Two ascending arrays that together hold every position once.
    """
    members = shuffled_members(labels, np.unique(labels), generator(Stream.SPLIT, seed))
    held = [one[: min(max(1, round(share * len(one))), len(one) - 1)] for one in members]
    held_out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def stratified_sample(labels: NDArray[np.int64], count: int, seed: int) -> Positions:
    """About ``count`` positions, each class with its share of them; all where there are no more.

    Args:
        labels: Class codes, shape ``(n,)``.
        count: Number of positions; rounding in each class may change it by half a sample a class.
        seed: Seed of the draw.

    Returns:
        Ascending positions in ``labels``.
    """
    return np.arange(len(labels)) if count >= len(labels) else stratified_holdout(labels, count / len(labels), seed)[1]


def stratified_subset(strata: NDArray[np.int64], share: float, seed: int) -> Positions:
    """Positions of a seeded part of the samples, drawn within each stratum.

    A smaller part lies within every larger one of the same seed, so that a curve over shares adds labels and
    exchanges none.

    Args:
        strata: Class code, or another stratum, of each sample, shape ``(n,)``.
        share: Of each stratum, above 0 and at most 1; rounded, one sample at least.
        seed: Seed of the draw.

    Returns:
        Ascending positions in ``strata``.

    Raises:
        ConfigError: The share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"A share of the train split lies above 0 and is 1 at most, got {share}.")
    # One order of all samples and not one a stratum, which would change every curve that was measured so far.
    order = generator(Stream.TRAIN_SHARE, seed).permutation(len(strata))
    members = [order[strata[order] == one] for one in np.unique(strata)]
    return np.sort(np.concatenate([one[: max(1, round(share * len(one)))] for one in members]))


def few_of_each(labels: NDArray[np.int64], per_class: int, seed: int) -> Positions:
    """At most ``per_class`` positions of each class, in the order of the classes.

    Args:
        labels: Class codes, shape ``(n,)``.
        per_class: Number of positions; all of a class that has no more.
        seed: Seed of the draw.
    """
    members = shuffled_members(labels, np.unique(labels), generator(Stream.EXPLAINED_SAMPLES, seed))
    return np.concatenate([one[:per_class] for one in members])
