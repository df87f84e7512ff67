"""Features that an encoder gave at many steps, brought to what it gives today.

An encoder moves while it trains, and fastest at the beginning. Clusters of features of many steps are then clusters of
steps as much as of content, and a draw that balances them takes most of the steps between which the encoder moved most.
Centring and scaling the features of each step does not mend that, since what moves is mainly the directions; and after
a round, when old and new features are of different samples, it takes away what tells these apart.

Some samples of every age are therefore embedded anew. From their old and their new features follows, for each block of
rows of similar age, an affine map from the one to the other; it is fitted on the same samples in both, so that it
cannot mistake content for age. Every row goes through the map of its block, also those that were embedded anew: exact
features beside estimated ones would be told apart just as old from new.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCKS = 16
"""Blocks of rows of similar age, where there are enough pairs; more follow the encoder's path more closely."""

PAIRS = 16
"""Pairs of old and new features that a block has at least; and the fewest rows that are embedded anew."""

_PENALTY = 0.1
"""Ridge penalty as a share of the mean squared length of the centred old features; 0.03 to 0.3 do about the same."""


_AT_ONCE = 65_536
"""Rows that are mapped together, which bounds what a large bank needs beside itself."""


def spread_over_ages(ages: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Rows at even distances in the order of their ages.

    Args:
        ages: ``(n,)`` numbers by which rows are ordered; rows of one age come in random order.
        count: How many rows, from 0 to n.
        generator: Draws the order of the samples of one age.

    Returns:
        ``(count,)`` rows, ascending.
    """
    order = generator.permutation(len(ages))
    order = order[np.argsort(ages[order], kind="stable")]
    return np.sort(order[((np.arange(count) + 0.5) * len(ages) / max(1, count)).astype(np.int64)])


def as_of_today(
    vectors: Tensor, ages: NDArray[np.int64], renewed: NDArray[np.int64], fresh: Tensor, device: torch.device
) -> Tensor:
    """What today's encoder would give for every row, as far as its old features tell.

    Args:
        vectors: ``(n, d)`` old features, float16.
        ages: ``(n,)`` numbers that are near each other where features are of nearby steps.
        renewed: Rows that were embedded anew, ``(m,)``, at least one.
        fresh: ``(m, d)`` features of these rows by today's encoder, in the same order.
        device: The device to compute on.

    Returns:
        ``(n, d)`` float16 on the CPU. Rows with NaN or infinity stay so and change no other.
    """
    today = torch.empty_like(vectors)
    positions = np.full(len(vectors), -1)
    positions[renewed] = np.arange(len(renewed))
    blocks = max(1, min(BLOCKS, len(renewed) // PAIRS))
    for rows in np.array_split(np.argsort(ages, kind="stable"), blocks):
        pairs = rows[positions[rows] >= 0]
        old, new = vectors[torch.from_numpy(pairs)], fresh[torch.from_numpy(positions[pairs])]
        centre, matrix, target = (part.to(device) for part in _ridge(old.double(), new.double()))
        for part in np.array_split(rows, -(-len(rows) // _AT_ONCE)):
            index = torch.from_numpy(part)
            today[index] = ((vectors[index].to(device).float() - centre) @ matrix + target).half().cpu()
    return today


def _ridge(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The affine map from old to new: what is subtracted, the matrix ``(d, d)``, and what is added; float32."""
    finite = torch.isfinite(old).all(dim=1) & torch.isfinite(new).all(dim=1)
    old, new = old[finite], new[finite]
    centre, target = old.mean(dim=0), new.mean(dim=0)
    x, y = old - centre, new - target
    gram = x.T @ x
    # Features that are all alike tell nothing: any penalty gives the zero matrix, none would give no solution.
    penalty = _PENALTY * float(gram.trace()) / max(1, len(x)) or 1.0
    matrix = torch.linalg.solve(gram + penalty * torch.eye(len(gram), dtype=gram.dtype), x.T @ y)
    return centre.float(), matrix.float(), target.float()
