"""The kNN probe equals scikit-learn's with the same weights, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from terrasieve.embeddings import neighbours as similarity
from terrasieve.embeddings.neighbours import nearest_neighbours
from terrasieve.errors import ConfigError
from terrasieve.probes import knn
from terrasieve.probes.knn import KnnProbe


def blobs(seed: int, n: int, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, n)
    centres = np.random.default_rng(99).normal(size=(5, 12))
    return (centres[labels] + spread * rng.normal(size=(n, 12))).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0)])
def test_predictions_equal_scikit_learn(k: int, temperature: float) -> None:
    x, y = blobs(0, 300)
    unseen, _ = blobs(1, 120)
    oracle = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    ).fit(x, y)
    assert np.array_equal(KnnProbe(k, temperature).fit(x, y).predict(unseen), oracle.predict(unseen))


def brute_force(train: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    units = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries, train)]
    cosines = units[0] @ units[1].T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, order, axis=1), order


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    sizes=st.tuples(st.integers(1, 50), st.integers(0, 12)),
    k=st.integers(1, 50),
    at_once=st.integers(10, 200),
    rows=st.integers(4, 60),
)
def test_any_chunks_give_the_neighbours_of_brute_force_lower_row_first(
    seed: int, sizes: tuple[int, int], k: int, at_once: int, rows: int
) -> None:
    # Vectors of four signs have exact cosines, of which many are equal.
    generator = np.random.default_rng(seed)
    train, queries = (generator.choice([-1.0, 1.0], (count, 4)) for count in sizes)
    k = min(k, len(train))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "SIMILARITIES_AT_ONCE", at_once)
        patch.setattr(similarity, "TRAIN_ROWS", rows)
        found = nearest_neighbours(train, queries, k)
    cosines, order = brute_force(train, queries, k)
    assert np.array_equal(found.indices, order)
    assert np.array_equal(found.similarities, cosines)
    assert (found.similarities.dtype, found.indices.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("order", ["as drawn", "least similar first", "most similar first"])
def test_neighbours_in_many_chunks_whatever_the_order_of_the_rows(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    train, queries = (
        generator.normal(size=(500, 8)),
        generator.normal(size=(1, 8)) + 0.1 * generator.normal(size=(9, 8)),
    )
    by_similarity = brute_force(train, queries[:1], 500)[1][0]
    train = {"as drawn": train, "least similar first": train[by_similarity[::-1]]}.get(order, train[by_similarity])
    monkeypatch.setattr(similarity, "TRAIN_ROWS", 32)
    monkeypatch.setattr(similarity, "SIMILARITIES_AT_ONCE", 100)
    found, (cosines, rows) = nearest_neighbours(train, queries, 12), brute_force(train, queries, 12)
    assert np.array_equal(found.indices, rows)
    assert np.allclose(found.similarities, cosines, atol=1e-6)


def test_a_vector_of_zeros_is_as_near_to_all() -> None:
    found = nearest_neighbours(np.eye(3), np.zeros((1, 3)), 2)
    assert found.similarities.tolist() == [[0.0, 0.0]]
    assert found.indices.tolist() == [[0, 1]]


def test_no_matrix_of_similarities_is_larger_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(0, 100)
    unseen, _ = blobs(1, 50)
    whole = KnnProbe().fit(x, y).predict(unseen)
    monkeypatch.setattr(similarity, "SIMILARITIES_AT_ONCE", 700)
    monkeypatch.setattr(similarity, "TRAIN_ROWS", 64)
    monkeypatch.setattr(knn, "QUERIES_AT_ONCE", 16)
    sizes = []

    def spy(*args: Any, merge: Callable[..., Any] = similarity._merge) -> object:
        sizes.append(args[2].numel())
        return merge(*args)

    monkeypatch.setattr(similarity, "_merge", spy)
    assert np.array_equal(KnnProbe().fit(x, y).predict(unseen), whole)
    assert max(sizes) == 640
    assert sum(sizes) == 100 * 50


def test_mapped_files_are_read_in_place(tmp_path: Path) -> None:
    x, y = blobs(0, 100)
    np.save(tmp_path / "vectors.npy", x.astype(np.float16))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    probe = KnnProbe().fit(mapped, y)
    assert probe.vectors_ is mapped
    assert np.array_equal(probe.predict(x[:9]), KnnProbe().fit(np.array(mapped), y).predict(x[:9]))


def test_equal_votes_go_to_the_lower_class_and_equal_neighbours_to_the_earlier() -> None:
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    query = np.array([[1.0, 1.0]])
    assert KnnProbe(k=4).fit(x, np.array([3, 1, 3, 1])).predict(query).tolist() == [1]
    assert KnnProbe(k=1).fit(x, np.array([3, 1, 1, 1])).predict(query).tolist() == [3]


def test_nothing_to_predict_is_no_prediction() -> None:
    x, y = blobs(0, 100)
    assert KnnProbe().fit(x, y).predict(x[:0]).shape == (0,)


def test_length_of_a_vector_does_not_matter() -> None:
    x, y = blobs(0, 100)
    unseen, _ = blobs(1, 50)
    scaled = x * np.random.default_rng(2).uniform(0.1, 10, (100, 1))
    assert np.array_equal(KnnProbe().fit(x, y).predict(unseen), KnnProbe().fit(scaled, y).predict(7 * unseen))


def test_fewer_samples_than_neighbours_and_a_tiny_temperature() -> None:
    x, y = np.eye(3, dtype=np.float32), np.arange(3)
    assert np.array_equal(KnnProbe(k=20, temperature=1e-4).fit(x, y).predict(x), y)


def test_result_states_the_protocol() -> None:
    x, y = blobs(0, 100)
    result = KnnProbe(k=7, temperature=0.2).fit(x, y).score(*blobs(1, 50))
    assert "k = 7" in str(result.protocol)
    assert "T = 0.2" in str(result.protocol)
    assert result.ci95["accuracy"][0] <= result.metrics["accuracy"] <= result.ci95["accuracy"][1]


@pytest.mark.parametrize(
    ("features", "labels", "reason"),
    [
        (np.zeros((3, 2)), np.zeros(2, dtype=np.int64), "match them"),
        (np.zeros((3, 2)), np.zeros(3, dtype=np.int64), "at least two classes"),
        (np.full((2, 2), np.nan), np.arange(2), "NaN or infinity"),
    ],
)
def test_unfit_vectors_are_refused(features: np.ndarray, labels: np.ndarray, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        KnnProbe().fit(features, labels)
