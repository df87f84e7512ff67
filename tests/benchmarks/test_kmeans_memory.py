"""The pieces of the benchmark of clusters in a file, on little."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from terrasieve.curation import kmeans
from terrasieve.curation.assignment import NearestCentroids
from terrasieve.curation.kmeans import KMeans

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from kmeans_memory import few_products, pass_vs_product, select, write_vectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_vectors(tmp_path / "rows.npy", 12_000, 16, seed=0)
    return tmp_path / "rows.npy"


def test_vectors_are_distinct_halves_of_unit_length(path: Path) -> None:
    vectors = np.load(path)
    assert (vectors.dtype, vectors.shape) == (np.float16, (12_000, 16))
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=2e-3)
    assert len(np.unique(vectors, axis=0)) == len(vectors)


def test_every_stage_goes_over_all_rows_though_few_are_multiplied(path: Path) -> None:
    selection, gib = select(path, 0.1, seed=0)
    facts = selection.provenance
    assert (facts["n"], facts["fitted_on"], len(selection)) == (12_000, 12_000, 1_200)
    assert 0 < gib < 4
    assert kmeans.NearestCentroids is NearestCentroids


def test_a_whole_share_is_k_means_itself(path: Path) -> None:
    vectors = np.load(path, mmap_mode="r")
    start = torch.from_numpy(vectors[:50].astype(np.float32))
    expected = KMeans(50, iterations=1).fit(vectors, start)
    with few_products(1.0):
        same = KMeans(50, iterations=1).fit(vectors, start)
    with few_products(0.3):
        other = KMeans(50, iterations=1).fit(vectors, start)
    assert torch.equal(same.centroids_, expected.centroids_)
    assert not torch.equal(other.centroids_, expected.centroids_)


def test_the_pass_is_told_with_its_products(path: Path) -> None:
    vectors = np.load(path, mmap_mode="r")
    figures = pass_vs_product(vectors, torch.from_numpy(vectors[:50].astype(np.float32)), 5000, turns=1)
    assert figures.keys() == {"bf16_pass_vs_product", "product_s", "pass_s"}
