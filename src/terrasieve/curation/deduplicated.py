"""Balanced curation of what is left when near duplicates are gone."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from terrasieve.console import Stopwatch
from terrasieve.curation.balanced import BalancedClusters
from terrasieve.curation.candidates import Candidates, Indices
from terrasieve.curation.keys import Keys
from terrasieve.curation.peers import NearDuplicates


class DeduplicatedClusters(BalancedClusters):
    """Drop a share of the rows as near duplicates by SemDeDup, then balance the others over a tree of clusters.

    Clusters follow where the rows are. Where most rows are copies of a few, so are most clusters, and a balanced draw
    still spends most of its rows on them. SemDeDup (Abbas et al. 2023, arXiv 2303.09540) removes the copies first; its
    threshold is a quantile of the rows' similarities here, since cosines of one encoder mean something else than those
    of another, or of the same one later in training. DINOv2 removes copies before it balances, too (Oquab et al. 2023,
    arXiv 2304.07193, section 3), though by retrieval.

    Where ``keep`` is more than what is left, the dropped rows come back, the least similar first. Leaves and distances
    are told of all rows, the dropped ones included.

    Attributes:
        name: The word that chooses this curator in a configuration.
        duplicates: Share of the finite rows that is dropped, in [0, 1). The source finds half of a web archive
            droppable; an archive of near-copies wants more.
        near_duplicates: Settings of the search for near duplicates.
    """

    name: Literal["deduplicated"] = "deduplicated"  # type: ignore[assignment]  # another word than its base's
    duplicates: float = Field(default=0.5, ge=0, lt=1)
    near_duplicates: NearDuplicates = NearDuplicates()

    def _offer(
        self, pool: Candidates, keys: Keys, keep: int, seed: int, device: str, watch: Stopwatch
    ) -> tuple[Indices, dict[str, Any]]:
        ranked = self.near_duplicates.rank(pool, keys, seed, device, watch)
        distinct = max(1, round((1 - self.duplicates) * len(pool)))
        # The same rows for every smaller ``keep``, so that a larger pool holds the smaller one.
        offered = np.sort(ranked.order[: max(keep, distinct)])
        return offered, {"distinct": len(offered), "epsilon": ranked.epsilon(len(offered))}
