"""Balanced sampling: how many rows of each leaf, and which."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from terrasieve.curation.keys import row_keys, uniform
from terrasieve.curation.sampling import diversity_scores, draw, tree_quotas, water_fill

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=8)


@st.composite
def trees(draw_from: st.DrawFn) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], ...]]:
    """Sizes of the leaves and one to three levels of parents; leaves and whole branches may be empty."""
    counts = [draw_from(st.integers(1, 12))]
    for _ in range(draw_from(st.integers(0, 3))):
        counts.append(draw_from(st.integers(1, counts[-1])))
    parents = []
    for own, above in pairwise(counts):
        # Every parent has a child, as a parent is the mean of its children.
        others = draw_from(st.lists(st.integers(0, above - 1), min_size=own - above, max_size=own - above))
        parents.append(np.array(draw_from(st.permutations([*range(above), *others])), dtype=np.int64))
    sizes = draw_from(st.lists(st.integers(0, 9), min_size=counts[0], max_size=counts[0]))
    return np.array(sizes, dtype=np.int64), tuple(parents)


def _hand_out_one_by_one(sizes: list[int], target: int, order: list[int]) -> list[int]:
    """Each row goes to the group with the fewest so far that has more to give; the first in the order on a tie."""
    quotas = [0] * len(sizes)
    for _ in range(target):
        able = [group for group in order if quotas[group] < sizes[group]]
        if not able:
            break
        quotas[min(able, key=lambda group: quotas[group])] += 1
    return quotas


def _totals(values: NDArray[np.int64], parents: tuple[NDArray[np.int64], ...]) -> list[list[int]]:
    """The sum of a value of the leaves in each cluster of each level, finest first."""
    levels = [values.tolist()]
    for parent in parents:
        above = [0] * (int(parent.max()) + 1)
        for value, up in zip(levels[-1], parent.tolist(), strict=True):
            above[up] += value
        levels.append(above)
    return levels


# ------------------------------------------------------------------------------------------------ shares


@given(sizes=SIZES, target=st.integers(0, 80), data=st.data())
def test_water_fill_equals_handing_out_one_by_one(sizes: list[int], target: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(sizes))))
    quotas = water_fill(np.array(sizes), target, np.array(order))
    assert quotas.tolist() == _hand_out_one_by_one(sizes, target, list(order))


def test_water_fill_by_hand() -> None:
    # The cut is 3: 1 + 3 + 3 + 0 + 3 = 10 of 12; the two left go to groups 4 and 1, which come first in the order.
    quotas = water_fill(np.array([1, 9, 9, 0, 9]), 12, np.array([3, 0, 4, 1, 2]))
    assert quotas.tolist() == [1, 4, 3, 0, 4]


def test_water_fill_of_many_large_groups() -> None:
    sizes = np.array([10**12, 10**12, 5])
    assert water_fill(sizes, 10**12 + 6, np.arange(3)).tolist() == [5 * 10**11 + 1, 5 * 10**11, 5]


@given(tree=trees(), target=st.integers(0, 120), seed=st.integers(0, 3))
def test_quotas_of_a_tree_sum_to_the_target_and_fit(
    tree: tuple[NDArray[np.int64], tuple[NDArray[np.int64], ...]], target: int, seed: int
) -> None:
    sizes, parents = tree
    quotas = tree_quotas(sizes, parents, target, seed)
    assert quotas.sum() == min(target, sizes.sum())
    assert np.all((quotas >= 0) & (quotas <= sizes))


@given(tree=trees(), target=st.integers(0, 120), seed=st.integers(0, 3))
def test_siblings_get_the_same_or_all_that_they_have(
    tree: tuple[NDArray[np.int64], tuple[NDArray[np.int64], ...]], target: int, seed: int
) -> None:
    sizes, parents = tree
    got, have = (_totals(v, parents) for v in (tree_quotas(sizes, parents, target, seed), sizes))
    for level, quotas in enumerate(got):
        above = parents[level].tolist() if level < len(parents) else [0] * len(quotas)
        for one in range(len(quotas)):
            for other in range(len(quotas)):
                if above[one] == above[other]:
                    assert quotas[one] >= quotas[other] - 1 or quotas[one] == have[level][one]


@given(tree=trees(), target=st.integers(0, 100), more=st.integers(0, 5), seed=st.integers(0, 3))
def test_a_larger_target_gives_no_leaf_less(
    tree: tuple[NDArray[np.int64], tuple[NDArray[np.int64], ...]], target: int, more: int, seed: int
) -> None:
    less = tree_quotas(*tree, target, seed)
    assert np.all(tree_quotas(*tree, target + more, seed) >= less)


def test_quotas_go_down_the_tree_and_not_to_the_leaves_alone() -> None:
    # One branch of three leaves and one of a single leaf: each branch gets half.
    quotas = tree_quotas(np.array([9, 9, 9, 9]), (np.array([0, 0, 0, 1]),), 12, seed=0)
    assert quotas.tolist() == [2, 2, 2, 6]


def test_the_seed_decides_who_gets_the_remainder() -> None:
    sizes = np.full(10, 5)
    taken = np.array([tree_quotas(sizes, (), 3, seed) for seed in range(1000)])
    # Each leaf is one of the three in 30 % of the seeds, give or take five standard errors.
    assert np.abs(taken.mean(axis=0) - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 1000)


def test_levels_hand_out_their_remainders_independently() -> None:
    sizes, parents = np.full(8, 1), (np.repeat([0, 1], 4),)
    picks = [int(tree_quotas(sizes, parents, 1, seed).argmax()) for seed in range(800)]
    assert np.abs(np.bincount(picks, minlength=8) / 800 - 1 / 8).max() < 5 * np.sqrt(1 / 8 * 7 / 8 / 800)


# ------------------------------------------------------------------------------------------------ draws


def _rows(n: int, leaves: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.uint64]]:
    generator = np.random.default_rng(seed)
    distances = generator.permutation(n).astype(np.float32)
    return generator.integers(0, leaves, n), distances, row_keys(generator.random((n, 2)).astype(np.float32), seed)


def _sizes(leaves: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return np.bincount(leaves, minlength=count)


@given(n=st.integers(1, 60), seed=st.integers(0, 20), share=st.floats(0, 1), eta=st.floats(-1, 1))
def test_draws_the_quota_of_each_leaf_and_no_row_twice(n: int, seed: int, share: float, eta: float) -> None:
    leaves, distances, keys = _rows(n, 6, seed)
    quotas = np.floor(share * _sizes(leaves, 6)).astype(np.int64)
    chosen = draw(leaves, distances, quotas, keys, eta)
    assert len(set(chosen.tolist())) == len(chosen)
    np.testing.assert_array_equal(_sizes(leaves[chosen], 6), quotas)


@given(n=st.integers(1, 60), seed=st.integers(0, 20), eta=st.sampled_from([-1.0, -0.3, 0.0, 0.6, 1.0]), data=st.data())
def test_permuting_rows_permutes_the_draw(n: int, seed: int, eta: float, data: st.DataObject) -> None:
    leaves, distances, keys = _rows(n, 4, seed)
    distances = distances // 3  # ties
    quotas = _sizes(leaves, 4) // 2
    order = np.array(data.draw(st.permutations(range(n))))
    permuted = draw(leaves[order], distances[order], quotas, keys[order], eta)
    assert sorted(order[permuted].tolist()) == draw(leaves, distances, quotas, keys, eta).tolist()


@given(n=st.integers(1, 60), seed=st.integers(0, 20), eta=st.floats(-1, 1))
def test_larger_quotas_only_add_rows(n: int, seed: int, eta: float) -> None:
    leaves, distances, keys = _rows(n, 4, seed)
    sizes = _sizes(leaves, 4)
    few, more = (set(draw(leaves, distances, sizes // part, keys, eta).tolist()) for part in (3, 2))
    assert few <= more


@pytest.mark.parametrize(("eta", "nearest_first"), [(-1.0, True), (1.0, False)])
@given(seed=st.integers(0, 50))
def test_extremes_take_the_nearest_and_the_farthest(eta: float, nearest_first: bool, seed: int) -> None:
    leaves, distances, keys = _rows(40, 5, seed)
    quotas = _sizes(leaves, 5) // 2
    expected = []
    for leaf, quota in enumerate(quotas):
        members = sorted(np.flatnonzero(leaves == leaf), key=lambda row: distances[row], reverse=not nearest_first)
        expected += members[:quota]
    assert draw(leaves, distances, quotas, keys, eta).tolist() == sorted(expected)


@given(seed=st.integers(0, 50))
def test_without_diversity_distance_has_no_say(seed: int) -> None:
    leaves, distances, keys = _rows(40, 5, seed)
    quotas = _sizes(leaves, 5) // 2
    chosen = draw(leaves, distances, quotas, keys, 0.0)
    other = np.random.default_rng(seed + 100).permutation(distances)
    np.testing.assert_array_equal(chosen, draw(leaves, other, quotas, keys, 0.0))
    # The rows with the highest random numbers of each leaf.
    for leaf, quota in enumerate(quotas):
        members = np.flatnonzero(leaves == leaf)
        expected = members[np.argsort(uniform(keys[members]))[len(members) - quota :]]
        assert set(expected.tolist()) == set(chosen[leaves[chosen] == leaf].tolist())


def test_only_the_order_of_distances_counts() -> None:
    leaves, distances, keys = _rows(60, 3)
    quotas = _sizes(leaves, 3) // 2
    for eta in (-0.7, 0.4):
        np.testing.assert_array_equal(
            draw(leaves, distances, quotas, keys, eta), draw(leaves, np.exp(distances / 9), quotas, keys, eta)
        )


@given(seed=st.integers(0, 20), eta=st.sampled_from([-0.8, -0.5, 0.3, 0.7]))
def test_other_leaves_have_no_say(seed: int, eta: float) -> None:
    leaves, distances, keys = _rows(80, 5, seed)
    quotas = _sizes(leaves, 5) // 2
    chosen = draw(leaves, distances, quotas, keys, eta)
    for leaf in range(5):
        own = np.flatnonzero(leaves == leaf)
        alone = draw(np.zeros(len(own), dtype=np.int64), distances[own], quotas[leaf : leaf + 1], keys[own], eta)
        np.testing.assert_array_equal(own[alone], chosen[leaves[chosen] == leaf])


@given(
    rank=st.floats(0, 1, exclude_min=True, exclude_max=True),
    u=st.floats(0, 1, exclude_min=True, exclude_max=True),
    eta=st.floats(-1, 1),
    other=st.floats(-1, 1),
)
@settings(max_examples=300)
def test_scores_are_continuous_in_diversity(rank: float, u: float, eta: float, other: float) -> None:
    here, there = (diversity_scores(np.array([rank]), np.array([u]), value)[0] for value in (eta, other))
    # Each term changes by at most |eta - other|, with opposite signs.
    assert abs(here - there) <= abs(eta - other) + 1e-12
    assert 0 <= here <= 1


def test_scores_by_hand() -> None:
    ranks, chance = np.array([0.25, 0.75]), np.array([0.5, 0.1])
    np.testing.assert_allclose(diversity_scores(ranks, chance, 0.4), [0.6 * 0.5 + 0.4 * 0.25, 0.6 * 0.1 + 0.4 * 0.75])
    np.testing.assert_allclose(diversity_scores(ranks, chance, -0.4), [0.6 * 0.5 + 0.4 * 0.75, 0.6 * 0.1 + 0.4 * 0.25])


def test_more_diversity_takes_farther_rows() -> None:
    leaves, distances, keys = _rows(20_000, 4)
    quotas = _sizes(leaves, 4) // 4
    etas = np.linspace(-1, 1, 21)
    means = [float(distances[draw(leaves, distances, quotas, keys, float(eta))].mean()) for eta in etas]
    assert np.all(np.diff(means) > 0)
    # Without a jump: the whole way is 0.75 of the range of the ranks, a twentieth of it at a time.
    assert np.diff(means).max() < 0.15 * 20_000


def test_quotas_and_draw_are_nested_together() -> None:
    leaves, distances, keys = _rows(300, 12)
    parents = (np.arange(12) % 3,)
    chosen: set[int] = set()
    for keep in (1, 2, 10, 77, 150, 299, 300):
        quotas = tree_quotas(_sizes(leaves, 12), parents, keep, seed=4)
        now = set(draw(leaves, distances, quotas, keys, 0.3).tolist())
        assert chosen <= now
        assert len(now) == keep
        chosen = now
