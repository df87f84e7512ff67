from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from terrasieve.curation.balanced import BalancedClusters
from terrasieve.curation.deduplicated import DeduplicatedClusters
from terrasieve.curation.peers import NearDuplicates

SEARCH = NearDuplicates(clusters=4, precision="float32")
COPIES, DISTINCT = 380, 40


@pytest.fixture
def vectors() -> NDArray[np.float32]:
    """Near-copies of four rows, then rows that lie far apart."""
    generator = np.random.default_rng(0)
    originals = generator.standard_normal((4, 16))
    copies = originals[generator.integers(4, size=COPIES)] + 0.01 * generator.standard_normal((COPIES, 16))
    return np.concatenate([copies, generator.standard_normal((DISTINCT, 16))]).astype(np.float32)


def made(duplicates: float) -> DeduplicatedClusters:
    return DeduplicatedClusters(
        levels=(40, 8), precision="float32", iterations=5, duplicates=duplicates, near_duplicates=SEARCH
    )


def test_the_near_copies_go_first(vectors: NDArray[np.float32]) -> None:
    selection = made(0.9).select(vectors, DISTINCT, 0)
    balanced = BalancedClusters(levels=(40, 8), precision="float32", iterations=5).select(vectors, DISTINCT, 0)
    assert (selection.indices >= COPIES).sum() >= 36
    assert (selection.indices >= COPIES).sum() > (balanced.indices >= COPIES).sum()
    assert selection.provenance["distinct"] == 42
    # Rows that were not offered have a leaf none the less: only rejected rows have none.
    assert selection.leaves.min() == 0


def test_dropping_nothing_is_balancing(vectors: NDArray[np.float32]) -> None:
    balanced = BalancedClusters(levels=(40, 8), precision="float32", iterations=5).select(vectors, 50, 3)
    np.testing.assert_array_equal(made(0.0).select(vectors, 50, 3).indices, balanced.indices)


@pytest.mark.parametrize("keep", [10, 210])
def test_what_is_dropped_is_not_chosen(vectors: NDArray[np.float32], keep: int) -> None:
    left = NearDuplicates(clusters=4, precision="float32").select(vectors, 210, 0)
    selection = made(0.5).select(vectors, keep, 0)
    assert np.isin(selection.indices, left.indices).all()
    assert selection.provenance["epsilon"] == left.provenance["epsilon"]


def test_a_pool_larger_than_what_is_left_is_that_of_semdedup(vectors: NDArray[np.float32]) -> None:
    expected = NearDuplicates(clusters=4, precision="float32").select(vectors, 300, 0)
    np.testing.assert_array_equal(made(0.9).select(vectors, 300, 0).indices, expected.indices)
