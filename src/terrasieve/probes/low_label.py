"""Fewer labels: smaller and smaller parts of a train split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrasieve.errors import ConfigError


def thin(strata: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Positions of a seeded part of a train split, drawn within each stratum.

    A smaller part lies within every larger one of the same seed, so that a curve over shares adds labels and
    exchanges none.

    Args:
        strata: Class code, or another stratum, of each train sample, shape ``(n,)``.
        share: Of each stratum, above 0 and at most 1; rounded, one sample at least.
        seed: Of the draw.

    Returns:
        Ascending positions.

    Raises:
        ConfigError: The share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"A share of the train split lies above 0 and is 1 at most, got {share}.")
    order = np.random.default_rng(seed).permutation(len(strata))
    chosen = []
    for code in np.unique(strata):
        members = order[strata[order] == code]
        chosen.append(members[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(chosen))
