"""Rows come to where they are used: each read once a pass, ahead of its use, in the type that it is stored in."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from terrasieve.curation import kmeans as kmeans_module
from terrasieve.curation import rows as rows_module
from terrasieve.curation.assignment import NearestCentroids
from terrasieve.curation.balanced import BalancedClusters
from terrasieve.curation.candidates import candidates, unit_rows
from terrasieve.curation.curator import assign_units
from terrasieve.curation.hierarchy import HierarchicalKMeans
from terrasieve.curation.kmeans import KMeans
from terrasieve.curation.rows import Places, Rows, UnitRows, unit_scales
from terrasieve.errors import CurationError

CPU = torch.device("cpu")
VALUES = np.random.default_rng(0).normal(size=(1000, 6)).astype(np.float16)


class Counted:
    """Unit rows that count how often each was read, and say when a run that begins at a row has been."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.rows = UnitRows(values, unit_scales(values.astype(np.float32)))
        self.shape, self.dtype = values.shape, values.dtype
        self.reads = np.zeros(len(values), dtype=np.int64)
        self.read = {start: threading.Event() for start in range(len(values))}

    def __getitem__(self, which: Places) -> UnitRows:
        self.reads[which] += 1
        if isinstance(which, slice):
            self.read[which.start].set()
        return self.rows[which]


def _all(rows: Rows, size: int) -> NDArray[np.float32]:
    parts = [(part, chunk.clone()) for part, chunk in rows.chunks(size)]
    assert [part.start for part, _ in parts] == list(range(0, len(rows), size))
    return torch.cat([chunk for _, chunk in parts]).numpy()


@pytest.mark.parametrize("size", [1, 300, 1000, 5000])
@pytest.mark.parametrize("kind", ["float16", "float64", "big-endian", "fortran", "mapped", "tensor", "half-tensor"])
def test_chunks_are_the_rows_in_their_order(kind: str, size: int, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", VALUES)
    forms: dict[str, Any] = {
        "float16": VALUES,
        "float64": VALUES.astype(np.float64),
        "big-endian": VALUES.astype(">f4"),
        "fortran": np.asfortranarray(VALUES),
        "mapped": np.load(tmp_path / "rows.npy", mmap_mode="r"),
        "tensor": torch.from_numpy(VALUES).float(),
        "half-tensor": torch.from_numpy(VALUES),
    }
    rows = Rows(forms[kind], CPU)
    np.testing.assert_array_equal(_all(rows, size), VALUES.astype(np.float32))
    which = np.array([7, 3, 3, 999])
    np.testing.assert_array_equal(rows.gather(which).numpy(), VALUES[which].astype(np.float32))
    np.testing.assert_array_equal(_all(rows.take(which), size), VALUES[which].astype(np.float32))


@pytest.mark.parametrize("held", [False, True])
def test_unit_rows_are_those_of_numpy_to_the_last_bit(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    values = VALUES.copy()
    values[5] = 0
    rows = Rows(Counted(values), CPU)
    if held:
        monkeypatch.setattr(rows_module, "room_for_rows", lambda device: 2**20)
        rows.settle()
    expected = unit_rows(values)
    np.testing.assert_array_equal(_all(rows, 128), expected)
    np.testing.assert_array_equal(rows[10:20], expected[10:20])
    np.testing.assert_array_equal(_all(rows.take(np.array([9, 5, 2])), 2), expected[[9, 5, 2]])


def test_a_chunk_is_read_while_the_one_before_is_in_use() -> None:
    source = Counted(VALUES)
    for part, _ in Rows(source, CPU).chunks(100):
        following = part.start + 100
        assert following == 1000 or source.read[following].wait(timeout=30)
        # Two buffers: what comes after that would overwrite the rows in use.
        assert not any(source.read[start].is_set() for start in range(following + 100, 1000, 100))


@pytest.mark.parametrize(("room", "reads"), [(VALUES.nbytes, 1), (VALUES.nbytes - 1, 3)])
def test_rows_cross_once_where_they_fit_and_once_a_pass_where_not(
    room: int, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "room_for_rows", lambda device: room)
    source = Counted(VALUES)
    start = torch.from_numpy(unit_rows(VALUES[:9]))
    keys = np.arange(1000, dtype=np.uint64)
    model = KMeans(9, iterations=2, tolerance=-np.inf).fit(source, start, keys)
    assert len(model.history_) == 3
    # No cluster of these lost its rows, which would read single rows again.
    np.testing.assert_array_equal(source.reads, reads)
    expected = KMeans(9, iterations=2, tolerance=-np.inf).fit(unit_rows(VALUES), start, keys)
    assert torch.equal(model.centroids_, expected.centroids_)


def test_a_tree_looks_for_what_is_not_finite_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    total = rows_module._sum

    def note(piece: Any) -> float:
        looked.append(len(piece))
        return total(piece)

    monkeypatch.setattr(rows_module, "_sum", note)
    values = unit_rows(VALUES)
    HierarchicalKMeans((20, 4), resampling_steps=2).fit(values)
    # The centroids of each of the three fits of the second level are rows of their own, small ones.
    assert [count for count in looked if count > 20] == [1000]
    looked.clear()
    BalancedClusters(levels=(20, 4)).select(VALUES, 100, 0)
    assert [count for count in looked if count > 20] == []


def test_numbers_whose_sum_overflows_are_finite_and_others_are_named() -> None:
    values = np.full((400, 3), 3e38, dtype=np.float32)
    Rows(values, CPU).check()
    Rows(torch.from_numpy(values), CPU).check()
    for bad in (np.nan, np.inf, -np.inf):
        values[321, 1] = bad
        for form in (values, torch.from_numpy(values), values.astype(np.float64)):
            with pytest.raises(CurationError, match="Row 321 "):
                Rows(form, CPU).check()


def test_centroids_are_prepared_once_an_update_and_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def note(centroids: Any, *rest: Any) -> NearestCentroids:
        made.append(len(centroids))
        return NearestCentroids(centroids, *rest)

    monkeypatch.setattr(kmeans_module, "NearestCentroids", note)
    monkeypatch.setattr(kmeans_module, "_ROWS_AT_ONCE", 64)
    model = KMeans(9, iterations=2, tolerance=-np.inf).fit(unit_rows(VALUES))
    assert len(made) == len(model.history_)
    made.clear()
    pool = candidates(VALUES, 1, 0)
    labels, distances = assign_units(model, pool, 9)
    assert made == [9]
    expected = model.assign(unit_rows(VALUES))
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_array_equal(distances, expected.distances)


def test_rows_to_fit_clusters_on_stay_in_half_precision() -> None:
    values = VALUES.copy()
    values[::7] = np.inf
    pool = candidates(values, 1, 0)
    rows, keys = pool.sample(pool.keys(0), 300)
    assert rows.values.dtype == np.float16
    assert len(rows) == len(keys) == 300
    contents = {tuple(row) for row in unit_rows(values[np.isfinite(values).all(axis=1)]).tolist()}
    assert {tuple(row) for row in np.asarray(rows).tolist()} <= contents
    assert candidates(values.astype(np.float64), 1, 0).sample(pool.keys(0), 9)[0].values.dtype == np.float32
