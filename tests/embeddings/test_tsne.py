"""T-SNE keeps apart what is apart, and draws the same picture for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from terrasieve.embeddings.tsne import default_perplexity, describe_tsne, tsne
from terrasieve.errors import ConfigError


def blobs(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    return (rng.normal(size=(n, 16)) + 6 * np.eye(16)[labels]).astype(np.float32), labels


def test_same_seed_same_coordinates_and_blobs_stay_apart() -> None:
    vectors, labels = blobs()
    first = tsne(vectors, seed=3)
    # Cosine, so lengths do not count; powers of two change no bit of the unit vectors.
    lengths = 2.0 ** np.random.default_rng(1).integers(-3, 4, (len(vectors), 1))
    assert np.array_equal(first, tsne(vectors * lengths.astype(np.float32), seed=3))
    distances = np.linalg.norm(first[:, None] - first[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(axis=1)] == labels).all()
    centres = [first[labels == code].mean(axis=0) for code in (0, 1)]
    spread = max(np.linalg.norm(first[labels == code] - centres[code], axis=1).mean() for code in (0, 1))
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread


def test_perplexity_of_few_samples() -> None:
    assert default_perplexity(1000) == 30
    assert default_perplexity(31) == 10
    assert np.isfinite(tsne(blobs(6)[0], seed=0)).all()
    assert "perplexity 10" in describe_tsne(31, 0)
    assert "seed 4" in describe_tsne(31, 4)


def test_refuses_too_few_and_collapsed_vectors() -> None:
    with pytest.raises(ConfigError, match="at least 5 samples, and there are 4"):
        tsne(blobs(4)[0], seed=0)
    with pytest.raises(ConfigError, match="collapsed"):
        tsne(np.outer(np.arange(1, 9), np.ones(3)).astype(np.float32), seed=0)
