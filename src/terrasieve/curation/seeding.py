"""Where k-means begins."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from terrasieve.curation.keys import Keys, rekey, slices, uniform
from terrasieve.curation.rows import cached_slices
from terrasieve.processes.ranks import everyones, own_part

Seeding = Literal["k-means++", "farthest", "random"]

_ROUNDS = 16
"""Rounds in which many centroids are drawn; each costs as much as an assignment to those it draws."""
_ONE_BY_ONE = 2**19
"""Distances up to which centroids are chosen one by one."""

_SAME = 1e-6
"""Squared distances below this share of the mean squared length are rounding: the rows are copies."""


def seed_centroids(
    rows: Tensor, keys: Keys, clusters: int, kind: Seeding, memory_mib: int = 256, together: bool = False
) -> Tensor:
    """Choose rows to begin with.

    ``random`` takes rows as their keys come. ``k-means++`` takes each with a chance that grows with its squared
    distance to those taken already (Arthur and Vassilvitskii 2007): concepts of a few rows, far from everything, are
    not missed for being rare. With many rows and clusters it draws them in 16 rounds, each by the distances to all
    earlier rounds (as k-means|| does, Bahmani et al. 2012), which costs no more than one assignment. ``farthest``
    takes the row that is farthest from those taken (Gonzalez 1985): for rows that are means already, and so have no
    outliers.

    Args:
        rows: ``(n, d)`` float32 finite, on any device.
        keys: ``(n,)`` keys of the rows, which decide what is random.
        clusters: Number of rows to choose; at least 1.
        kind: The rule by which rows are chosen, described above.
        memory_mib: Bound on the memory for products, in MiB.
        together: Whether all processes of the run call this with the same rows, and share the products.

    Returns:
        ``(k, d)`` rows; k is less than ``clusters`` where there are fewer distinct rows, except for ``random``.
    """
    wanted = min(clusters, len(rows))
    first = torch.from_numpy(np.argsort(keys, kind="stable")).to(rows.device)
    if kind == "random":
        return rows[first[:wanted]]
    one_by_one = kind == "farthest" or len(rows) * wanted <= _ONE_BY_ONE
    rounds = wanted if one_by_one else min(_ROUNDS, wanted)
    # In pieces, since the squares of all rows take as much memory as the rows.
    lengths = torch.cat([rows[part].square().sum(dim=1) for part in cached_slices(rows.shape, rows.device)])
    # Distances come from lengths and products, whose rounding is relative to the lengths.
    noise = _SAME * lengths.mean()
    nearest = torch.full((len(rows),), torch.inf, dtype=torch.float32, device=rows.device)
    chosen: list[Tensor] = []
    own = own_part(len(rows)) if together else slice(0, len(rows))
    for turn in range(rounds):
        count = wanted // rounds + (turn < wanted % rounds)
        if turn == 0:
            taken = first[:count]
        else:
            scores = nearest if kind == "farthest" else _scores(nearest, rekey(keys, turn))
            taken = scores.masked_fill(nearest <= noise, -torch.inf).topk(count).indices
            # Where fewer distinct rows than wanted are left, copies fill up the count: away with them.
            taken = taken[nearest[taken] > noise]
        if not len(taken):
            break
        chosen.append(rows[taken])
        _lower(nearest[own], rows[own], lengths[own], chosen[-1], memory_mib)
        if together:
            told = everyones(nearest[own].cpu().numpy(), own, (len(rows),))
            nearest = torch.from_numpy(told).to(rows.device)
    return torch.cat(chosen)


def _scores(weights: Tensor, keys: Keys) -> Tensor:
    """The highest scores are a weighted sample without replacement (Efraimidis and Spirakis 2006)."""
    draws = torch.from_numpy(np.log(uniform(keys))).to(weights.device)
    return draws / weights.double().clamp_min(1e-30)


def _lower(nearest: Tensor, rows: Tensor, lengths: Tensor, centroids: Tensor, memory_mib: int) -> None:
    """Lower each row's squared distance to the nearest centroid by new centroids, in place."""
    size = max(1, memory_mib * 2**18 // (2 * len(centroids)))
    own = centroids.square().sum(dim=1)
    for which in slices(len(rows), size):
        squares = torch.addmm(own, rows[which], centroids.T, alpha=-2).amin(dim=1) + lengths[which]
        torch.minimum(nearest[which], squares.clamp_min(0), out=nearest[which])
