"""Which samples are shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrasieve.probes.splits import carve

Positions = NDArray[np.int64]


def stratified(labels: NDArray[np.int64], count: int, seed: int) -> Positions:
    """About ``count`` positions, each class with its share of them; all where there are no more.

    Args:
        labels: Class codes, shape ``(n,)``.
        count: How many; rounding in each class may change it by half a sample a class.
        seed: Of the draw.

    Returns:
        Ascending positions in ``labels``.
    """
    return np.arange(len(labels)) if count >= len(labels) else carve(labels, count / len(labels), seed)[1]


def a_few_of_each(labels: NDArray[np.int64], per_class: int, seed: int) -> Positions:
    """At most ``per_class`` positions of each class, drawn by a seed, in the order of the classes."""
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(np.flatnonzero(labels == code))[:per_class] for code in np.unique(labels)]
    return np.concatenate(drawn)


def right_and_wrong(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], confidence: NDArray[np.float64], per_class: int, seed: int
) -> Positions:
    """Of each class a few that were recognised, drawn by a seed, then the most confidently mistaken.

    Args:
        labels: Class codes, shape ``(n,)``.
        predicted: What was predicted instead, shape ``(n,)``.
        confidence: Probability of the predicted class, shape ``(n,)``.
        per_class: Most samples of each kind of each class.
        seed: Of the draw of the recognised.

    Returns:
        Positions in ``labels``, in the order of the classes.
    """
    generator = np.random.default_rng(seed)
    chosen = []
    for code in np.unique(labels):
        right = generator.permutation(np.flatnonzero((labels == code) & (predicted == code)))
        wrong = np.flatnonzero((labels == code) & (predicted != code))
        chosen += [right[:per_class], wrong[np.argsort(-confidence[wrong], kind="stable")][:per_class]]
    return np.concatenate(chosen)
