"""k-means: against FAISS and the definition, and where there is little or bad data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from terrasieve.curation.keys import row_keys
from terrasieve.curation.kmeans import KMeans
from terrasieve.curation.seeding import seed_centroids
from terrasieve.errors import CurationError

pytestmark = pytest.mark.usefixtures("either_processor")


def mixture(count: int, classes: int, length: int = 16, seed: int = 0, noise: float = 0.5) -> Any:
    """Rows around Gaussian centres, the first classes more frequent, and their classes."""
    generator = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, classes + 1)
    labels = generator.choice(classes, count, p=frequency / frequency.sum())
    centres = generator.normal(size=(classes, length))
    rows = centres[labels] + noise * generator.normal(size=(count, length))
    return rows.astype(np.float32), labels


def brute_force(rows: NDArray[Any], centroids: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    squares = ((rows.astype(np.float64)[:, None] - centroids.astype(np.float64)[None]) ** 2).sum(axis=2)
    return squares.argmin(axis=1), squares.min(axis=1)


# ------------------------------------------------------------------------------ oracles


def test_each_row_goes_to_its_nearest_centroid() -> None:
    rows, _ = mixture(500, 7)
    model = KMeans(20).fit(rows)
    found = model.assign(rows)
    labels, distances = brute_force(rows, model.centroids_.numpy())
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-4, atol=1e-5)
    assert model.objective_ == pytest.approx(distances.mean(), rel=1e-5)


def test_updates_are_those_of_faiss() -> None:
    rows, _ = mixture(2000, 12)
    start = rows[:30].copy()
    oracle = faiss.Kmeans(16, 30, niter=6, min_points_per_centroid=1, max_points_per_centroid=10**6)
    oracle.train(rows, init_centroids=start)
    model = KMeans(30, iterations=6, tolerance=-np.inf, precision="float32").fit(rows, torch.from_numpy(start))
    np.testing.assert_allclose(model.centroids_.numpy(), oracle.centroids, atol=1e-4)
    # FAISS reports the sum before each update.
    np.testing.assert_allclose(np.array(model.history_[:6]) * len(rows), oracle.obj, rtol=1e-4)


def test_seeded_by_distance_it_is_no_worse_than_faiss_with_twenty_iterations() -> None:
    rows, _ = mixture(4000, 40, noise=0.3)
    oracle = faiss.Kmeans(16, 100, niter=20, seed=1, min_points_per_centroid=1)
    oracle.train(rows)
    theirs = brute_force(rows, oracle.centroids)[1].mean()
    for seed in range(3):
        assert KMeans(100, seed=seed).fit(rows).objective_ < 1.01 * theirs


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 60), clusters=st.integers(1, 12), seed=st.integers(0, 5))
def test_the_objective_never_rises_and_centroids_end_as_means(count: int, clusters: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    model = KMeans(clusters, seed=seed, iterations=100, tolerance=0).fit(rows)
    assert (np.diff(model.history_) <= 1e-5).all()
    assert model.converged_
    found = model.assign(rows)
    assert len(model.centroids_) == min(clusters, count)
    assert len(np.unique(found.labels)) == len(model.centroids_), "a cluster is empty"
    means = np.stack([rows[found.labels == label].mean(axis=0) for label in range(len(model.centroids_))])
    np.testing.assert_allclose(model.centroids_.numpy(), means, atol=1e-4)


def test_mini_batches_come_near_to_full_passes() -> None:
    rows, _ = mixture(6000, 20, noise=0.2)
    full = KMeans(20, iterations=50).fit(rows)
    model = KMeans(20, iterations=60, batch_size=500).fit(rows)
    assert model.iterations_ == 60
    assert model.assign(rows).distances.mean() < 1.05 * full.objective_


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_the_products_may_be_rounded(offset: float) -> None:
    """Also where all rows lie in a narrow cone, as those of a young encoder do."""
    rows, _ = mixture(2000, 12, noise=0.3)
    rows = rows + np.float32(offset)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    exact, rounded = (KMeans(12, precision=kind).fit(rows) for kind in ("float32", "bf16"))
    assert len(rounded.centroids_) == 12
    assert rounded.objective_ == pytest.approx(exact.objective_, rel=0.05)
    labels = rounded.assign(rows).labels
    distances = ((rows - rounded.centroids_.numpy()[labels]) ** 2).sum(axis=1)
    np.testing.assert_allclose(rounded.assign(rows).distances, distances, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------- invariants


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    rows, _ = mixture(3000, 30)
    first, again, other = (KMeans(50, seed=seed, iterations=2).fit(rows).centroids_ for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("init", ["k-means++", "random", "farthest"])
def test_the_order_of_the_rows_does_not_matter(init: Any) -> None:
    rows, _ = mixture(3000, 30)
    order = np.random.default_rng(1).permutation(len(rows))
    straight, turned = (KMeans(20, init=init, iterations=3).fit(x).centroids_ for x in (rows, rows[order]))
    np.testing.assert_allclose(turned.numpy(), straight.numpy(), atol=1e-4)


def test_memory_for_products_changes_nothing() -> None:
    rows, _ = mixture(3000, 30)
    wide = KMeans(700, iterations=2, memory_mib=256).fit(rows)
    narrow = KMeans(700, iterations=2, memory_mib=1).fit(rows)
    np.testing.assert_allclose(narrow.centroids_.numpy(), wide.centroids_.numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["float16", "float64", "memmap", "torch", "torch-half", "fortran"])
def test_vectors_come_in_any_form(kind: str, tmp_path: Path) -> None:
    rows, _ = mixture(400, 5)
    rows = rows.astype(np.float16).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    forms = {
        "float16": rows.astype(np.float16),
        "float64": rows.astype(np.float64),
        "memmap": np.load(tmp_path / "rows.npy", mmap_mode="r"),
        "torch": torch.from_numpy(rows),
        "torch-half": torch.from_numpy(rows).half(),
        "fortran": np.asfortranarray(rows),
    }
    expected, model = KMeans(9).fit(rows), KMeans(9).fit(forms[kind])
    assert torch.equal(model.centroids_, expected.centroids_)
    np.testing.assert_array_equal(model.assign(forms[kind]).labels, expected.assign(rows).labels)


# ------------------------------------------------------------------- little or bad data


def test_fewer_distinct_rows_than_clusters_give_fewer_clusters() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), [5, 1, 4], axis=0)
    for init in ("k-means++", "farthest", "random"):
        model = KMeans(8, init=init).fit(rows)
        assert sorted(model.centroids_.numpy().tolist()) == sorted(np.eye(3).tolist()), init
        assert model.objective_ == 0
    assert KMeans(8).fit(np.ones((1, 4), dtype=np.float32)).centroids_.tolist() == [[1, 1, 1, 1]]
    many = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32).repeat(10, axis=0)
    model = KMeans(400).fit(many)
    assert len(np.unique(model.assign(many).labels)) == len(model.centroids_) == 300


def test_no_cluster_of_mini_batches_is_empty() -> None:
    rows, _ = mixture(3000, 30, noise=0.02)
    model = KMeans(200, init="random", batch_size=500).fit(rows)
    assert len(np.unique(model.assign(rows).labels)) > 0.95 * len(model.centroids_) > 150


def test_a_cluster_that_lost_its_rows_begins_anew_at_the_farthest_row() -> None:
    rows = np.array([[0.0], [0.1], [0.2], [9.0]], dtype=np.float32)
    start = torch.tensor([[0.1], [500.0]])
    model = KMeans(2).fit(rows, start)
    assert sorted(model.centroids_.flatten().tolist()) == pytest.approx([0.1, 9.0])


def test_the_row_that_is_not_finite_is_named() -> None:
    rows, _ = mixture(200, 3)
    for value in (np.nan, np.inf):
        bad = rows.copy()
        bad[137, 2] = value
        with pytest.raises(CurationError, match="Row 137 of the vectors holds NaN or infinity"):
            KMeans(3).fit(bad)
        with pytest.raises(CurationError, match="Row 137"):
            KMeans(3).fit(rows).assign(bad)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_what_is_not_finite_in_single_precision_is_named() -> None:
    rows = mixture(200, 3)[0].astype(np.float64)
    rows[137, 2] = 1e300
    with pytest.raises(CurationError, match="Row 137"):
        KMeans(3).fit(rows)


def test_what_cannot_be_clustered_is_refused() -> None:
    with pytest.raises(CurationError, match=r"shape \(0, 3\)"):
        KMeans(2).fit(np.zeros((0, 3), dtype=np.float32))
    with pytest.raises(CurationError, match=r"shape \(3,\)"):
        KMeans(2).fit(np.zeros(3, dtype=np.float32))
    with pytest.raises(CurationError, match="clusters is 0"):
        KMeans(0).fit(np.zeros((4, 3), dtype=np.float32))


# ----------------------------------------------------------------------------- seeding


@pytest.mark.parametrize(("kind", "large"), [("k-means++", False), ("k-means++", True), ("farthest", False)])
def test_rare_concepts_far_away_are_not_missed(kind: Any, large: bool) -> None:
    generator = np.random.default_rng(0)
    common = generator.normal(scale=0.01, size=(60_000 if large else 3000, 4))
    rare = 50 * np.concatenate([np.eye(4), -np.eye(4)])
    rows = np.concatenate([common, rare]).astype(np.float32)
    chosen = seed_centroids(torch.from_numpy(rows), row_keys(rows, 0), 100, kind).numpy()
    assert len(np.unique(chosen, axis=0)) == 100
    far = chosen[np.abs(chosen).max(axis=1) > 10]
    assert len(np.unique(far, axis=0)) == 8
    missed = seed_centroids(torch.from_numpy(rows), row_keys(rows, 0), 100, "random").numpy()
    assert (np.abs(missed).max(axis=1) > 10).sum() < 4


def test_farthest_seeding_is_gonzalez() -> None:
    rows, _ = mixture(200, 9)
    keys = row_keys(rows, 0)
    chosen = seed_centroids(torch.from_numpy(rows), keys, 12, "farthest").numpy()
    expected = [rows[np.argmin(keys)]]
    for _ in range(11):
        expected.append(rows[brute_force(rows, np.stack(expected))[1].argmax()])
    np.testing.assert_array_equal(chosen, np.stack(expected))
