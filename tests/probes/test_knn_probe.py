"""The kNN probe equals scikit-learn's with the same weights, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

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


def test_chunks_do_not_change_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(0, 100)
    unseen, _ = blobs(1, 50)
    whole = KnnProbe().fit(x, y).predict(unseen)
    monkeypatch.setattr(knn, "SIMILARITIES_AT_ONCE", 700)
    largest = 0

    def spy(self: KnnProbe, vectors: np.ndarray, vote: object = KnnProbe._vote) -> object:
        nonlocal largest
        largest = max(largest, len(vectors) * 100)
        return vote(self, vectors)  # type: ignore[operator]

    monkeypatch.setattr(KnnProbe, "_vote", spy)
    assert np.array_equal(KnnProbe().fit(x, y).predict(unseen), whole)
    assert largest == 700


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
