"""Balanced sampling from a tree of clusters: how many rows of each leaf, and which.

The allocation is the top-down one of Vo et al. 2024 (arXiv 2405.15613, section 3.3): every cluster gives the same
number of rows, or all that it has, and what it may give is shared among its children by the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.curation.keys import Keys, group_keys, uniform

Counts = NDArray[np.int64]


def water_fill(sizes: Counts, target: int, order: NDArray[Any]) -> Counts:
    """Share a target among groups as evenly as their sizes allow.

    The cut is the largest whole number ``x`` with ``sum(min(x, size)) <= target``; each group gets ``min(x, size)``,
    and what is left goes one by one to groups that have more than ``x``, in the given order. A larger target gives
    no group less.

    Args:
        sizes: ``(k,)`` rows in each group, 0 or more.
        target: Rows wanted in all; 0 or more.
        order: ``(k,)`` the groups' positions, those that receive of the remainder first.

    Returns:
        ``(k,)`` quotas, none above its size, that sum to ``min(target, sum(sizes))``.
    """
    assert target >= 0, "a target is not negative"
    if target >= sizes.sum():
        return np.array(sizes, dtype=np.int64)
    cut = _cut(sizes, target)
    quotas = np.minimum(sizes, cut).astype(np.int64)
    open_groups = order[sizes[order] > cut]
    quotas[open_groups[: target - quotas.sum()]] += 1
    return quotas


def tree_quotas(leaf_sizes: Counts, parents: Sequence[NDArray[np.int64]], target: int, seed: int) -> Counts:
    """Share a target among the leaves of a tree, level by level from the coarsest.

    Args:
        leaf_sizes: ``(k_0,)`` rows in each cluster of the finest level, 0 or more.
        parents: For each level but the coarsest, finest first, ``(k_l,)`` the clusters' parents in the next coarser
            level. Empty for a single level.
        target: Rows wanted in all; 0 or more.
        seed: Decides, for each cluster of each level, whether it comes early when a remainder is handed out.

    Returns:
        ``(k_0,)`` quotas, none above its leaf's size, that sum to ``min(target, sum(leaf_sizes))``. For one seed, a
        larger target gives no leaf less.
    """
    sizes = _sizes_by_level(leaf_sizes, parents)
    top = len(parents)
    quotas = water_fill(sizes[top], target, _order(len(sizes[top]), seed, top))
    for level in reversed(range(top)):
        quotas = _share(sizes[level], parents[level], quotas, _order(len(sizes[level]), seed, level))
    return quotas


def diversity_scores(
    ranks: NDArray[np.float64], uniforms: NDArray[np.float64], diversity: float
) -> NDArray[np.float64]:
    """How much a row is wanted within its leaf: ``(1 - |eta|) u + |eta| r``, with ``1 - r`` for a negative eta.

    OceanSAR-1 (Kerdreux et al. 2025, arXiv 2504.06962) describes a diversity parameter that favours points near the
    centroid or far from it, but gives no formula; this one is our reading. It is continuous in eta.

    Args:
        ranks: ``r`` in (0, 1): near 0 for the row nearest the centroid, near 1 for the farthest.
        uniforms: ``u`` in (0, 1), random.
        diversity: ``eta`` from -1 (the order of nearness) over 0 (chance alone) to 1 (the order of distance).

    Returns:
        Scores in (0, 1), the highest wanted first.
    """
    assert -1 <= diversity <= 1, "diversity lies in [-1, 1]"
    favoured = ranks if diversity > 0 else 1 - ranks
    return np.asarray((1 - abs(diversity)) * uniforms + abs(diversity) * favoured)


def draw(leaves: Counts, distances: NDArray[Any], quotas: Counts, keys: Keys, diversity: float) -> NDArray[np.int64]:
    """Take of each leaf as many rows as its quota, those with the highest :func:`diversity_scores`.

    A row's rank is that of its distance in its leaf of ``m`` rows, ``(rank + 0.5) / m``. Ties go by key. A larger
    quota only adds rows.

    Args:
        leaves: ``(n,)`` leaf of each row, in ``[0, len(quotas))``.
        distances: ``(n,)`` from the leaf's centroid, in any unit that grows with it.
        quotas: ``(k,)`` rows to take of each leaf; none above the leaf's size.
        keys: ``(n,)`` the rows' random keys.
        diversity: ``eta`` in [-1, 1].

    Returns:
        ``(sum(quotas),)`` rows, ascending.
    """
    sizes = np.bincount(leaves, minlength=len(quotas))
    assert np.all(quotas <= sizes), "no quota exceeds its leaf"
    places = _places(leaves, sizes, np.lexsort((keys, distances, leaves)))
    wanted = diversity_scores((places + 0.5) / sizes[leaves], uniform(keys), diversity)
    places = _places(leaves, sizes, np.lexsort((keys, -wanted, leaves)))
    return np.flatnonzero(places < quotas[leaves])


def _places(leaves: Counts, sizes: Counts, order: NDArray[np.int64]) -> Counts:
    """Each row's place within its leaf, from 0, where ``order`` sorts the rows by leaf first."""
    starts = np.cumsum(sizes) - sizes
    places = np.empty(len(leaves), dtype=np.int64)
    places[order] = np.arange(len(leaves)) - starts[leaves[order]]
    return places


def _cut(sizes: Counts, target: int) -> int:
    """The largest whole number that all groups can give at most, with a sum of no more than the target."""
    ascending = np.sort(sizes)
    # With the cut at the i-th size, the smaller groups are full and the others give that size each.
    smaller = np.cumsum(ascending) - ascending
    others = len(ascending) - np.arange(len(ascending))
    # The first size at which that would be too much: the cut lies below it, and its group is the first that is cut.
    i = int(np.argmax(smaller + others * ascending > target))
    return int((target - smaller[i]) // others[i])


def _sizes_by_level(leaf_sizes: Counts, parents: Sequence[NDArray[np.int64]]) -> list[Counts]:
    sizes = [np.asarray(leaf_sizes, dtype=np.int64)]
    for level, parent in enumerate(parents):
        count = len(parents[level + 1]) if level + 1 < len(parents) else int(parent.max(initial=-1)) + 1
        above = np.zeros(count, dtype=np.int64)
        np.add.at(above, parent, sizes[-1])
        sizes.append(above)
    return sizes


def _share(sizes: Counts, parent: NDArray[np.int64], quotas: Counts, order: NDArray[np.int64]) -> Counts:
    """Share each parent's quota among its children."""
    # Grouped by parent, and within a parent in the order of the remainder.
    family = order[np.argsort(parent[order], kind="stable")]
    shares = np.zeros(len(sizes), dtype=np.int64)
    for children in np.split(family, np.flatnonzero(np.diff(parent[family])) + 1):
        if len(children):
            shares[children] = water_fill(sizes[children], int(quotas[parent[children[0]]]), np.arange(len(children)))
    return shares


def _order(count: int, seed: int, level: int) -> NDArray[np.int64]:
    return np.argsort(group_keys(count, seed, level), kind="stable")
