"""The other curators, each against its definition."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from terrasieve.curation import peers
from terrasieve.curation.candidates import candidates, unit_rows
from terrasieve.curation.peers import DensityFlattening, FarthestPoint, NearDuplicates, RandomPruning


def _points(n: int, d: int = 4, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def _distances(vectors: NDArray[Any]) -> NDArray[np.float64]:
    unit = unit_rows(vectors).astype(np.float64)
    return np.sqrt(((unit[:, None] - unit[None]) ** 2).sum(axis=2))


# ------------------------------------------------------------------------------------------------ random


def test_random_pruning_takes_every_row_equally_often() -> None:
    vectors = np.concatenate([_points(10), np.ones((10, 4), dtype=np.float32)])  # copies, too, one by one
    taken = np.zeros(20)
    for seed in range(1000):
        taken[RandomPruning().select(vectors, 6, seed).indices] += 1
    assert np.abs(taken / 1000 - 0.3).max() < 5 * math.sqrt(0.3 * 0.7 / 1000)
    # One by one: all ten copies together would be taken in all seeds or in none.
    copies = [(RandomPruning().select(vectors, 6, seed).indices >= 10).sum() for seed in range(200)]
    assert np.std(copies) < 1.6  # hypergeometric: sqrt(6 * .5 * .5 * 14 / 19) = 1.05


# ------------------------------------------------------------------------------------------------ semdedup


def _kept_by_definition(vectors: NDArray[Any], selection: Any, distances: NDArray[Any], keep: int) -> set[int]:
    """SemDeDup in loops: in each cluster, farthest first, each row's highest cosine with one before it."""
    unit = unit_rows(vectors).astype(np.float64)
    similar = np.full(len(unit), -np.inf)
    for leaf in np.unique(selection.leaves):
        members = sorted(np.flatnonzero(selection.leaves == leaf), key=lambda row: -distances[row])
        for place, row in enumerate(members[1:], start=1):
            similar[row] = max(float(unit[row] @ unit[before]) for before in members[:place])
    assert len(np.unique(similar[np.isfinite(similar)])) == np.isfinite(similar).sum(), "the order is not unique"
    firsts = np.flatnonzero(np.isinf(similar))
    if keep <= len(firsts):
        return set(firsts.tolist())
    return set(np.argsort(similar)[:keep].tolist())


@pytest.mark.parametrize("tile", [4, 7, 4096])
@given(seed=st.integers(0, 30), keep=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_semdedup_equals_its_definition(tile: int, seed: int, keep: int) -> None:
    vectors = _points(40, seed=seed)
    curator = NearDuplicates(clusters=3, precision="float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "_TILE", tile)
        seen: dict[str, NDArray[Any]] = {}
        assign = peers.assign_units

        def watch(*args: Any) -> Any:
            labels, seen["distances"] = assign(*args)
            return labels, seen["distances"]

        patch.setattr(peers, "assign_units", watch)
        selection = curator.select(vectors, keep, seed)
    expected = _kept_by_definition(vectors, selection, seen["distances"], keep)
    chosen = set(selection.indices.tolist())
    assert chosen == expected if keep >= len(expected) else chosen < expected


def test_semdedup_drops_planted_copies_and_says_the_threshold() -> None:
    originals = _points(60, d=16)
    vectors = np.concatenate([originals, originals[:25] + 0.01 * _points(25, d=16, seed=1)])
    selection = NearDuplicates(clusters=4).select(vectors, 60, 0)
    # Of each planted pair one is left, whichever stood first, and every other row.
    left = selection.indices % 60
    assert sorted(left.tolist()) == list(range(60))
    assert 0.001 < selection.provenance["epsilon"] < 1


def test_semdedup_threshold_is_that_of_the_last_row_kept() -> None:
    angles = np.radians([0.0, 90.0, 100.0, 130.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    selections = [NearDuplicates(clusters=1, precision="float32").select(vectors, keep, 0) for keep in (1, 2, 3, 4)]
    # The mean points to 86 degrees. Farthest from it first: 0, 130, 100 (30 degrees from 130), 90 (10 from 100).
    assert [s.indices.tolist() for s in selections] == [[0], [0, 3], [0, 2, 3], [0, 1, 2, 3]]
    found = [s.provenance["epsilon"] for s in selections]
    assert found[0] is None
    assert found[1:] == pytest.approx([1 - math.cos(math.radians(a)) for a in (130, 30, 10)], abs=1e-6)


def test_semdedup_takes_zero_vectors_for_copies_of_each_other() -> None:
    vectors = np.concatenate([np.zeros((5, 4), dtype=np.float32), _points(6)])
    selection = NearDuplicates(clusters=1).select(vectors, 7, 0)
    assert (selection.indices < 5).sum() == 1


# ------------------------------------------------------------------------------------------------ k-centre


def _greedy(distances: NDArray[np.float64], start: int, keep: int) -> list[int]:
    chosen = [start]
    while len(chosen) < keep:
        nearest = distances[:, chosen].min(axis=1)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


@pytest.mark.parametrize("batch", [1, 3, 10, 512])
@given(n=st.integers(1, 50), seed=st.integers(0, 30), data=st.data())
@settings(max_examples=25, deadline=None)
def test_k_centre_is_exactly_greedy(batch: int, n: int, seed: int, data: st.DataObject) -> None:
    vectors = _points(n, seed=seed)
    keep = data.draw(st.integers(1, n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "_BATCH", batch)
        start = FarthestPoint().select(vectors, 1, seed).indices[0]
        selection = FarthestPoint().select(vectors, keep, seed)
    expected = _greedy(_distances(vectors), start, keep)
    assert selection.indices.tolist() == sorted(expected)
    radius = _distances(vectors)[:, expected].min(axis=1).max()
    assert selection.provenance["radius"] == pytest.approx(radius, abs=2e-3)


def test_k_centre_reads_anew_what_it_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = _points(80)
    held = FarthestPoint().select(vectors, 30, 0).indices
    monkeypatch.setattr(peers, "_HELD_BYTES", 0)
    np.testing.assert_array_equal(FarthestPoint().select(vectors, 30, 0).indices, held)


@given(seed=st.integers(0, 30))
@settings(max_examples=10, deadline=None)
def test_k_centre_is_within_twice_the_best(seed: int) -> None:
    vectors = _points(11, d=3, seed=seed)
    distances = _distances(vectors)
    best = min(distances[:, list(centres)].min(axis=1).max() for centres in combinations(range(11), 3))
    assert FarthestPoint().select(vectors, 3, seed).provenance["radius"] <= 2 * best + 1e-3


def test_k_centre_takes_all_that_differ_before_copies() -> None:
    vectors = np.repeat(_points(20), 4, axis=0)
    vectors[:4] = 0
    selection = FarthestPoint().select(vectors, 20, 0)
    assert sorted((selection.indices // 4).tolist()) == list(range(20))
    assert selection.provenance["radius"] == 0
    assert len(FarthestPoint().select(vectors, 33, 0)) == 33


# ------------------------------------------------------------------------------------------------ density


@pytest.mark.slow
def test_density_counts_references_within_the_radius() -> None:
    vectors = _points(20)
    distances = _distances(vectors)
    curator = DensityFlattening(references=20, radius=0.9)
    # All rows are references, so that the density is known: the neighbours within the radius and the row itself.
    density = (distances <= 0.9).sum(axis=1)
    taken = np.zeros(20)
    for seed in range(1000):
        taken[curator.select(vectors, 1, seed).indices] += 1
    # One draw: the chance of a row is its weight's share.
    chance = (1 / density) / (1 / density).sum()
    error = (taken / 1000 - chance) / np.sqrt(chance * (1 - chance) / 1000)
    assert np.abs(error).max() < 4.5
    assert density.max() > 2.5 * density.min()


@pytest.mark.parametrize("references", [1, 13, 200])
def test_density_of_any_reference_set_counts_the_row_once(references: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = _points(50)
    seen: list[NDArray[Any]] = []
    smallest = peers.smallest

    def watch(values: NDArray[Any], count: int) -> NDArray[np.int64]:
        seen.append(values)
        return smallest(values, count)

    monkeypatch.setattr(peers, "smallest", watch)
    curator = DensityFlattening(references=references, radius=0.7)
    facts = curator.select(vectors, 10, 3).provenance
    which = smallest(seen[0], references)
    others = (_distances(vectors)[:, which] <= 0.7).sum(axis=1)
    others[which] -= 1
    pool = candidates(vectors, 1, 3)
    np.testing.assert_allclose(seen[1] / -np.log(peers.uniform(pool.keys(3))), 1 + others)
    assert facts["references"] == min(references, 50)
    assert facts["radius"] == 0.7


def test_density_flattens_a_long_tail() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(4, 2000, p=[0.9, 0.05, 0.03, 0.02])
    vectors = generator.standard_normal((4, 16))[labels] + 0.2 * generator.standard_normal((2000, 16))
    counts = np.bincount(labels[DensityFlattening().select(vectors, 100, 0).indices], minlength=4)
    uniform = np.bincount(labels[RandomPruning().select(vectors, 100, 0).indices], minlength=4)
    assert uniform[0] > 80 > 70 > counts[0]
    assert counts[1:].sum() > 2 * uniform[1:].sum()


def test_density_radius_is_the_median_distance_to_a_near_reference() -> None:
    vectors = _points(49)
    facts = DensityFlattening(references=49).select(vectors, 5, 0).provenance
    # The seventh nearest other row; place 0 is the row itself.
    expected = float(np.median(np.sort(_distances(vectors), axis=1)[:, 7]))
    assert facts["radius"] == pytest.approx(expected, abs=1e-5)
    # Mostly copies: the median would be 0, and the radius is that of the rows that differ.
    vectors[:40] = vectors[0]
    assert DensityFlattening(references=49).select(vectors, 5, 0).provenance["radius"] > 0.1
