"""Draws take what they are said to take, and from the same seed the same samples as ever."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terrasieve.archive.patches.listing import stratified_split
from terrasieve.draws import few_of_each, stratified_holdout, stratified_sample, stratified_subset
from terrasieve.errors import ConfigError
from terrasieve.explain.subject import right_and_wrong

LABELS = np.array([0, 1, 2, 0, 1, 0, 2, 2, 0, 0, 1, 0, 2, 0, 1, 2, 3])
PREDICTED = np.array([0, 1, 0, 0, 2, 0, 2, 2, 1, 0, 1, 0, 2, 2, 1, 2, 3])


def test_every_seed_draws_what_it_always_drew() -> None:
    # Scores and pages that were published stand on these draws.
    assert stratified_holdout(LABELS, 0.3, seed=4)[1].tolist() == [1, 3, 5, 6, 15]
    assert stratified_subset(LABELS, 0.4, seed=4).tolist() == [0, 1, 2, 8, 9, 10, 15, 16]
    assert stratified_sample(LABELS, 6, seed=4).tolist() == [1, 3, 5, 6, 15]
    assert few_of_each(LABELS, 2, seed=4).tolist() == [3, 5, 1, 4, 6, 15, 16]
    confidence = np.linspace(1, 0.2, 17)
    assert right_and_wrong(LABELS, PREDICTED, confidence, 1, seed=4).tolist() == [5, 8, 10, 4, 6, 2, 16]
    parts = stratified_split([f"c{code}" for code in LABELS], {"train": 0.5, "val": 0.2, "test": 0.3}, seed=4)
    assert np.flatnonzero(np.array(parts) == "val").tolist() == [2, 7, 9, 14, 16]
    assert np.flatnonzero(np.array(parts) == "test").tolist() == [8, 10, 12, 13]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.floats(0.01, 0.9), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_holding_out_loses_and_doubles_nothing_and_keeps_every_class(codes: list[int], share: float, seed: int) -> None:
    labels = np.array(codes, dtype=np.int64)
    kept, held = stratified_holdout(labels, share, seed)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    assert set(labels[kept]) == set(codes)


def test_smaller_shares_lie_within_larger_ones_and_keep_every_class() -> None:
    strata = np.repeat([0, 1, 2], [200, 40, 3])
    drawn = [stratified_subset(strata, share, seed=4) for share in (0.01, 0.05, 0.1, 1.0)]
    assert [np.bincount(strata[one]).tolist() for one in drawn] == [[2, 1, 1], [10, 2, 1], [20, 4, 1], [200, 40, 3]]
    for smaller, larger in pairwise(drawn):
        assert set(smaller) <= set(larger)
    assert not np.array_equal(stratified_subset(strata, 0.1, seed=4), stratified_subset(strata, 0.1, seed=5))
    with pytest.raises(ConfigError, match="got 0"):
        stratified_subset(strata, 0, seed=4)


def test_a_sample_keeps_proportions() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    drawn = stratified_sample(labels, 100, seed=4)
    assert np.bincount(labels[drawn]).tolist() == [60, 30, 10]
    assert len(np.unique(drawn)) == 100
    assert np.array_equal(drawn, stratified_sample(labels, 100, seed=4))
    assert not np.array_equal(drawn, stratified_sample(labels, 100, seed=5))
    assert np.array_equal(stratified_sample(labels, 1000, seed=4), np.arange(1000))


def test_a_few_of_each_class() -> None:
    labels = np.array([2, 0, 0, 2, 2, 0, 5])
    drawn = few_of_each(labels, 2, seed=0)
    assert labels[drawn].tolist() == [0, 0, 2, 2, 5]
    assert len(set(drawn.tolist())) == 5
