"""Splits of data sets that publish none: drawn once with a fixed seed, so that results can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

SEED = 0


def stratified_split(labels: Sequence[str], shares: Mapping[str, float], seed: int = SEED) -> list[str]:
    """A split in which every class has the same shares.

    Args:
        labels: The class of each sample, in an order that does not change.
        shares: Of each part; they sum to 1.
        seed: Of the draw.

    Returns:
        The part of each sample.
    """
    generator = np.random.default_rng(seed)
    parts = np.empty(len(labels), dtype=object)
    array = np.asarray(labels)
    for label in np.unique(array):
        members = generator.permutation(np.flatnonzero(array == label))
        ends = [round(len(members) * end) for end in accumulate(shares.values())]
        for part, start, end in zip(shares, [0, *ends], ends, strict=False):
            parts[members[start:end]] = part
    return [str(part) for part in parts]


def grouped_split(groups: Sequence[str], shares: Mapping[str, float], seed: int = SEED) -> list[str]:
    """A split that keeps the samples of a group together; shares are met as nearly as whole groups allow.

    Args:
        groups: The group of each sample, such as the orbit that it was seen from.
        shares: Of each part; they sum to 1.
        seed: Of the draw.

    Returns:
        The part of each sample.
    """
    names, codes, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    ends = np.array(list(accumulate(shares.values()))) * len(groups)
    part_of = np.empty(len(names), dtype=np.int64)
    part_of[order] = np.minimum(np.searchsorted(ends, middles), len(shares) - 1)
    parts = list(shares)
    return [parts[part] for part in part_of[codes].tolist()]
