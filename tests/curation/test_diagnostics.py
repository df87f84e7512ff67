"""Diagnostics against their definitions in loops."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from terrasieve.curation.balanced import BalancedClusters
from terrasieve.curation.candidates import unit_rows
from terrasieve.curation.curator import Selection
from terrasieve.curation.diagnostics import Occupancy, cautions, diagnose, occupancy
from terrasieve.curation.peers import RandomPruning
from terrasieve.errors import CurationError


def _selection(leaves: list[int], indices: list[int]) -> Selection:
    groups, chosen = np.array(leaves), np.array(sorted(indices), dtype=np.int64)
    quotas = np.bincount(groups[chosen], minlength=max(leaves) + 1)
    return Selection(chosen, groups, quotas, np.flatnonzero(groups < 0), {})


def _vectors(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, 5)).astype(np.float32)


def _nearest(vectors: NDArray[Any], row: int, others: list[int]) -> float:
    unit = unit_rows(vectors).astype(np.float64)
    return min(float(np.linalg.norm(unit[row] - unit[other])) for other in others)


@given(n=st.integers(3, 40), seed=st.integers(0, 30), data=st.data())
@settings(deadline=None)
def test_distances_equal_their_definition(n: int, seed: int, data: st.DataObject) -> None:
    vectors = _vectors(n, seed)
    chosen = data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=n - 1, unique=True))
    left = [row for row in range(n) if row not in chosen]
    found = diagnose(vectors, _selection([0] * n, chosen))
    inside = [_nearest(vectors, row, [other for other in chosen if other != row]) for row in chosen]
    outside = [_nearest(vectors, row, chosen) for row in left]
    assert found.nearest_neighbour == pytest.approx(np.mean(inside), abs=1e-4)
    assert found.coverage_mean == pytest.approx(np.mean(outside), abs=1e-4)
    assert found.coverage_p95 == pytest.approx(np.percentile(outside, 95), abs=1e-4)
    assert (found.n, found.kept, found.compared) == (n, len(chosen), len(chosen))


def test_rejected_rows_count_nowhere() -> None:
    vectors = _vectors(12)
    vectors[[2, 5]] = np.nan
    leaves = [0, 0, -1, 0, 1, -1, 1, 1, 1, 1, 1, 1]
    found = diagnose(vectors, _selection(leaves, [0, 4, 6]), labels=["a", "b", "c"] * 4)
    assert found.n == 10
    assert found.occupancy_before == occupancy(np.array([3, 7]))
    assert found.coverage_mean is not None
    assert math.isfinite(found.coverage_mean)
    assert found.classes_before is not None
    assert found.classes_before.counts == {"a": 4, "b": 4, "c": 2}


def test_occupancy_by_hand() -> None:
    assert occupancy(np.array([5, 5, 0, 5, 5])) == Occupancy(4, pytest.approx(4), 0.25)
    assert occupancy(np.array([7])) == Occupancy(1, 1.0, 1.0)
    # Shares 1/2, 1/4, 1/4: an entropy of 1.5 bits.
    assert occupancy(np.array([2, 1, 1])).effective == pytest.approx(2**1.5)
    assert occupancy(np.array([999_999, 1])).largest == pytest.approx(0.999999)


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any))
def test_occupancy_stays_in_its_range_whatever_the_order(counts: list[int]) -> None:
    found = occupancy(np.array(counts))
    assert 1 <= found.effective <= found.groups == sum(count > 0 for count in counts)
    assert found == occupancy(np.array(counts[::-1]))


def test_occupancy_before_and_after() -> None:
    leaves = [0] * 6 + [1] * 2 + [2]
    found = diagnose(_vectors(9), _selection(leaves, [0, 6, 8]))
    assert found.occupancy_before == occupancy(np.array([6, 2, 1]))
    assert found.occupancy_after == Occupancy(3, pytest.approx(3), pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("previous", "turnover"), [(None, None), ([1, 3, 5, 7], 0.0), ([1, 3, 0, 9], 0.5), ([], 1.0), ([3], 0.75)]
)
def test_turnover_is_the_share_of_new_rows(previous: list[int] | None, turnover: float | None) -> None:
    before = None if previous is None else np.array(previous, dtype=np.int64)
    assert diagnose(_vectors(10), _selection([0] * 10, [1, 3, 5, 7]), previous=before).turnover == turnover


@pytest.mark.parametrize("labels", [["sea", "sea", "sea", "ice", "ice", "rain"], np.array([4, 4, 4, 7, 7, 9])])
def test_classes_are_counted_by_name(labels: Any) -> None:
    found = diagnose(_vectors(6), _selection([0] * 6, [0, 3]), labels=labels)
    assert found.classes_before is not None
    assert found.classes_after is not None
    names = [str(label) for label in labels]
    assert found.classes_before.counts == {name: names.count(name) for name in sorted(set(names))}
    assert found.classes_after.counts == {names[0]: 1, names[3]: 1, names[5]: 0}
    shares = np.array([3, 2, 1]) / 6
    assert found.classes_before.entropy == pytest.approx(-(shares * np.log(shares)).sum() / math.log(3))
    # The number of classes is the archive's, also where the pool lacks one.
    assert found.classes_after.entropy == pytest.approx(math.log(2) / math.log(3))


def test_one_class_has_no_evenness() -> None:
    found = diagnose(_vectors(4), _selection([0] * 4, [0]), labels=["sea"] * 4)
    assert found.classes_before is not None
    assert found.classes_before.entropy is None


@pytest.mark.parametrize("chosen", [[2], [0, 1, 2, 3]])
def test_is_json_without_nan(chosen: list[int]) -> None:
    vectors = np.zeros((4, 5), dtype=np.float32)
    found = diagnose(vectors, _selection([0, 0, 1, 1], chosen), previous=np.array([2]), labels=[1, 1, 2, 2])
    facts = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert facts["occupancy_after"]["effective"] == (1.0 if len(chosen) == 1 else 2.0)
    assert (facts["nearest_neighbour"] is None) == (len(chosen) == 1)
    assert (facts["coverage_mean"] is None) == (facts["coverage_p95"] is None) == (len(chosen) == 4)


def test_sampling_is_bounded_seeded_and_near_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = _vectors(3000)
    selection = RandomPruning().select(vectors, 1000, 0)
    whole, part, again = (diagnose(vectors, selection, seed=1, sample=sample) for sample in (4000, 200, 200))
    assert part == again
    assert part != diagnose(vectors, selection, seed=2, sample=200)
    assert whole.compared == 1000
    assert part.compared == 800
    for name in ("nearest_neighbour", "coverage_mean", "coverage_p95"):
        assert getattr(part, name) == pytest.approx(getattr(whole, name), rel=0.3)


def test_sampling_reads_no_more_rows_than_it_compares() -> None:
    vectors = np.lib.stride_tricks.as_strided(_vectors(1), (10**6, 5), (0, 4))
    selection = _selection([0] * 1000, list(range(500)))
    read: list[int] = []

    class Watched:
        """Counts the rows that are read."""

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, which: NDArray[np.int64]) -> NDArray[np.float32]:
            read.append(len(which))
            return np.asarray(vectors[which])

    diagnose(Watched(), selection, sample=40)  # type: ignore[arg-type]
    assert sorted(read) == [10, 10, 160]


@pytest.mark.parametrize(("rows", "labels", "message"), [(9, None, "9 vectors"), (10, ["a"] * 11, "11 labels")])
def test_vectors_and_labels_must_be_the_selections_own(rows: int, labels: Any, message: str) -> None:
    with pytest.raises(CurationError, match=message):
        diagnose(_vectors(rows), _selection([0] * 10, [1]), labels=labels)


def test_vectors_of_one_number_are_cautioned_of() -> None:
    vectors = _vectors(200)[:, :1]
    told = cautions(vectors, RandomPruning().select(vectors, 20, 0))
    assert len(told) == 1
    assert "hold one number each" in told[0]


@pytest.mark.parametrize(("distinct", "cautioned"), [(200, False), (25, False), (5, True)])
def test_far_fewer_clusters_than_were_asked_for_are_cautioned_of(distinct: int, cautioned: bool) -> None:
    vectors = np.tile(_vectors(distinct), (200 // distinct, 1))
    told = cautions(vectors, BalancedClusters(levels=(20, 4)).select(vectors, 40, 0))
    assert len(told) == cautioned
    if cautioned:
        assert "Of 20 clusters that were asked for, 5 hold samples" in told[0]
