"""Random numbers of simulated archives."""

from __future__ import annotations

import numpy as np


def generator(seed: int, index: int, purpose: int) -> np.random.Generator:
    """A generator of its own for each seed, sample and purpose (Salmon et al. 2011, counter-based Philox).

    Args:
        seed: Of the archive.
        index: Of the sample.
        purpose: What is drawn, so that one draw tells nothing of another.
    """
    return np.random.Generator(np.random.Philox(key=[seed, index], counter=[0, 0, 0, purpose]))
