"""Every curator, as one setting that a user can write."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from terrasieve.curation.balanced import BalancedClusters
from terrasieve.curation.peers import DensityFlattening, FarthestPoint, NearDuplicates, RandomPruning

CuratorSpec = Annotated[
    BalancedClusters | RandomPruning | NearDuplicates | FarthestPoint | DensityFlattening,
    Field(discriminator="name"),
]
"""The curator of that ``name``: balanced, random, semdedup, k-center or density."""
