"""A curator that prefers rows which point north, along the first axis."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from terrasieve.curation.candidates import Indices, Vectors, candidates
from terrasieve.curation.curator import Curator, Selection, Stopwatch, make_selection
from terrasieve.curation.keys import smallest, uniform


class Northern(Curator):
    """Draw rows without replacement, by weights that grow with their first coordinate (Efraimidis and Spirakis 2006).

    Attributes:
        name: Marks the curator.
        strength: How much it prefers them; at 0 all weigh alike.
    """

    name: Literal["northern"] = "northern"
    strength: float = Field(default=2.0, ge=0)

    def select(
        self, vectors: Vectors, keep: int, seed: int, device: str = "cpu", numbers: Indices | None = None
    ) -> Selection:
        """Choose rows; see :class:`terrasieve.curation.curator.Curator`."""
        watch = Stopwatch()
        with watch.stage("draw"):
            pool = candidates(vectors, keep, seed, numbers)
            north = np.concatenate([pool.unit(part)[:, 0].astype(np.float64) for part in pool.chunks()])
            # The exponential's arrival times: the heavier a row, the earlier it tends to come.
            times = -np.log(uniform(pool.keys(seed))) / np.exp(self.strength * north)
        return make_selection(pool, smallest(times, keep), curator=self, seed=seed, seconds=watch.seconds)
