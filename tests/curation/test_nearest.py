"""The nearest centroid against its definition in float64, with products of either precision on any processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from terrasieve.curation.assignment import NearestCentroids
from terrasieve.curation.kmeans import KMeans

PRECISIONS: Any = ("float32", "bf16")


def squared(rows: NDArray[Any], centroids: NDArray[Any]) -> NDArray[np.float64]:
    """All squared distances, in float64."""
    return np.stack([((rows.astype(np.float64) - centre) ** 2).sum(axis=1) for centre in centroids.astype(float)], 1)


def check(rows: NDArray[Any], centroids: NDArray[Any], labels: NDArray[np.int64]) -> int:
    """Assert that each row has its nearest centroid; the number of rows for which float32 could tell it."""
    distances = squared(rows, centroids)
    nearest = np.sort(distances, axis=1)
    # Each term of |c|^2 / 2 - <x, c> is rounded to one part in 2^24, and many are added up.
    lengths = (rows.astype(np.float64) ** 2).sum(axis=1) + (centroids.astype(np.float64) ** 2).sum(axis=1).max()
    noise = 2.0**-21 * lengths
    own = distances[np.arange(len(rows)), labels]
    assert (own - nearest[:, 0] <= noise).all()
    if distances.shape[1] == 1:
        return len(rows)
    told = nearest[:, 1] - nearest[:, 0] > noise
    np.testing.assert_array_equal(labels[told], distances.argmin(axis=1)[told])
    return int(told.sum())


def found(rows: NDArray[Any], centroids: NDArray[Any], precision: Any) -> NDArray[np.int64]:
    model = KMeans(len(centroids), precision=precision)
    model.centroids_ = torch.from_numpy(centroids)
    assignment = model.assign(rows)
    assert assignment.distances.dtype == np.float32
    own = ((rows.astype(np.float64) - centroids[assignment.labels]) ** 2).sum(axis=1)
    np.testing.assert_allclose(assignment.distances, own, rtol=1e-4)
    return assignment.labels


def clustered(count: int, clusters: int, length: int, spread: float = 0.3) -> tuple[Any, Any]:
    """Centroids, and rows around them."""
    generator = np.random.default_rng(3)
    centroids = generator.normal(size=(clusters, length)).astype(np.float32)
    rows = centroids[generator.integers(0, clusters, count)] + spread * generator.normal(size=(count, length))
    return rows.astype(np.float32), centroids


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def cone(count: int, clusters: int, spread: float = 5.0) -> tuple[Any, Any]:
    """Unit vectors with a mean cosine above 0.99, as those of a young encoder."""
    rows, centroids = clustered(count, clusters, 96, spread)
    rows, centroids = unit(rows + 60), unit(centroids + 60)
    assert rows.mean(axis=0) @ rows.mean(axis=0) > 0.99
    return rows, centroids


def with_outlier(count: int, clusters: int) -> tuple[Any, Any]:
    """A cone of distinct clusters, and a centroid with its rows far away from all of them."""
    rows, centroids = cone(count, clusters, spread=1.0)
    rows[:5], centroids[-1] = -rows[:5], -centroids[-1]
    return rows, centroids


def near_ties(count: int, clusters: int) -> tuple[Any, Any]:
    """Pairs of centroids close together, and rows between the two."""
    _, centroids = clustered(1, clusters // 2, 64)
    generator = np.random.default_rng(4)
    step = 0.03 * unit(generator.normal(size=centroids.shape))
    which = generator.integers(0, len(centroids), count)
    rows = centroids[which] + generator.uniform(-1, 1, (count, 1)) * step[which]
    return rows.astype(np.float32), np.concatenate([centroids + step, centroids - step]).astype(np.float32)


def scaled(scale: float) -> Any:
    return lambda count, clusters: tuple((scale * part).astype(np.float32) for part in clustered(count, clusters, 48))


CASES = {
    "clusters": lambda count, clusters: clustered(count, clusters, 64),
    "overlapping": lambda count, clusters: clustered(count, clusters, 64, spread=3.0),
    "cone": cone,
    "outlier": with_outlier,
    "near-ties": near_ties,
    "one-number": lambda count, clusters: clustered(count, clusters, 1),
    "tiny": scaled(1e-12),
    "products-below-normal": scaled(3e-20),
    "huge": scaled(1e15),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_of_brute_force(name: str, precision: Any) -> None:
    rows, centroids = CASES[name](2500, 150)
    told = check(rows, centroids, found(rows, centroids, precision))
    assert told > 0.9 * len(rows), "the case says little: float32 cannot tell its centroids apart"


@pytest.mark.parametrize("name", ["cone", "near-ties"])
def test_rounded_products_alone_would_be_wrong(name: str) -> None:
    """The cases above show something."""
    rows, centroids = (torch.from_numpy(part) for part in CASES[name](2500, 600))
    nearest = NearestCentroids(centroids, len(rows), shortlist=True)
    products = (rows - nearest.middle).bfloat16() @ nearest.centroids.bfloat16().T
    rounded = (nearest.half - products).argmin(dim=1)
    assert (rounded != nearest(rows)).sum() > 10


@given(
    rows=st.integers(1, 40),
    clusters=st.integers(1, 40),
    length=st.integers(1, 70),
    offset=st.sampled_from([0.0, 1.0, 30.0]),
    coarse=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_the_nearest_is_among_the_candidates(
    rows: int, clusters: int, length: int, offset: float, coarse: bool, seed: int
) -> None:
    """The bound on the error of rounding holds, however the numbers fall."""
    generator = np.random.default_rng(seed)
    values = generator.standard_t(2, size=(rows + clusters, length)) + offset
    # Numbers halfway between two of bfloat16 are rounded by as much as can be.
    values = (np.round(values * 8) / 8 + 2.0**-9) if coarse else values
    tensors = torch.from_numpy(values.astype(np.float32))
    nearest = NearestCentroids(tensors[rows:], rows, shortlist=True)
    shifted = tensors[:rows] - nearest.middle
    counts, columns = nearest.candidates(tensors[:rows])
    distances = squared(shifted.numpy(), nearest.centroids.numpy())
    for row, among in enumerate(columns.split(counts.tolist())):
        assert int(distances[row].argmin()) in among.tolist()


def test_a_row_that_rounding_moves_to_another_centroid_keeps_its_own() -> None:
    """Nothing but the row is rounded here: 1.0037 to 1, which is nearer to the other centroid."""
    row = 1 + 2.0**-8 - 2.0**-12
    centroids = torch.tensor([[0.75 + 2.0**-8], [1.25], [-0.75 - 2.0**-8], [-1.25]])
    assert (centroids.bfloat16() == centroids).all()
    nearest = NearestCentroids(centroids, 2, shortlist=True)
    counts, columns = nearest.candidates(torch.tensor([[row], [-row]]))
    assert [own.tolist() for own in columns.split(counts.tolist())] == [[0, 1], [2, 3]]
    # As many candidates as here are left to float32, which is not what is tested.
    far = torch.cat([centroids, torch.linspace(10, 20, 32)[:, None], torch.linspace(-20, -10, 32)[:, None]])
    assert NearestCentroids(far, 2, shortlist=True)(torch.tensor([[row], [-row]])).tolist() == [1, 3]


def test_an_outlier_does_not_widen_the_margins_of_all_rows() -> None:
    rows, centroids = (torch.from_numpy(part) for part in with_outlier(2500, 400))
    nearest = NearestCentroids(centroids, len(rows), shortlist=True)
    counts, _ = nearest.candidates(rows)
    assert counts.float().mean() < 4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_first_of_equal_centroids_is_taken(precision: Any) -> None:
    rows, centroids = clustered(600, 40, 32)
    np.testing.assert_array_equal(
        found(rows, np.concatenate([centroids, centroids]), precision), found(rows, centroids, precision)
    )
    same = np.ones((50, 32), dtype=np.float32)
    assert (found(rows, same, precision) == 0).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_copies_zeros_and_single_rows_have_defined_answers(precision: Any) -> None:
    rows, centroids = clustered(300, 60, 32)
    centroids[7] = 0
    assert (found(np.zeros_like(rows), centroids, precision) == 7).all()
    np.testing.assert_array_equal(found(centroids, centroids, precision), np.arange(60))
    assert found(rows, centroids[:1], precision).tolist() == [0] * 300
    check(rows[:1], centroids, found(rows[:1], centroids, precision))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_are_found_alike_in_chunks_of_any_size(precision: Any) -> None:
    rows, centroids = cone(5000, 120)
    model = KMeans(120, precision=precision)
    model.centroids_ = torch.from_numpy(centroids)
    wide = model.assign(rows).labels
    model.memory_mib = 1
    check(rows, centroids, wide)
    check(rows, centroids, model.assign(rows).labels)


@pytest.mark.parametrize("clusters", [1, 30, 500])
def test_both_precisions_fit_the_same_clusters(clusters: int) -> None:
    """Also with more clusters than rows: where every product is decided alike, so is every update."""
    rows, _ = clustered(400, 25, 64)
    plain, shortlisted = (KMeans(clusters, precision=kind).fit(rows) for kind in PRECISIONS)
    assert plain.history_ == pytest.approx(shortlisted.history_, rel=1e-5)
    np.testing.assert_allclose(shortlisted.centroids_.numpy(), plain.centroids_.numpy(), atol=1e-5)
