"""Balanced clusters, the settings of curators, and the rows that they read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from terrasieve.curation.balanced import BalancedClusters, default_levels
from terrasieve.curation.candidates import candidates, squared_distances, to_device, unit_rows
from terrasieve.curation.curator import CuratorSpec
from terrasieve.curation.diagnostics import occupancy


def _vectors(n: int = 80, d: int = 6, seed: int = 0) -> NDArray[np.float32]:
    """A few clusters of different sizes, exact in half precision."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((5, d))
    own = centres[generator.choice(5, n, p=[0.5, 0.25, 0.15, 0.07, 0.03])]
    return (own + 0.3 * generator.standard_normal((n, d))).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(
    "settings_",
    [
        {"name": "balanced", "diversity": 1.5},
        {"name": "balanced", "levels": []},
        {"name": "balanced", "levels": [5, 9]},
        {"name": "balanced", "levels": [4, 4]},
        {"name": "balanced", "levels": [0]},
        {"name": "density", "radius": 0},
        {"name": "k-center", "clusters": 3},
        {"name": "unknown"},
    ],
)
def test_wrong_settings_are_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(CuratorSpec).validate_python(settings_)


# --------------------------------------------------------------------------------- balanced clusters


def _long_tail(n: int = 2000, classes: int = 20, d: int = 16) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    frequencies = np.arange(1, classes + 1) ** -1.2
    labels = generator.choice(classes, n, p=frequencies / frequencies.sum())
    centres = generator.standard_normal((classes, d))
    return (centres[labels] + 0.3 * generator.standard_normal((n, d))).astype(np.float32), labels


def _evenness(labels: NDArray[np.int64], classes: int = 20) -> float:
    return math.log(occupancy(np.bincount(labels, minlength=classes)).effective) / math.log(classes)


def test_balances_a_long_tail() -> None:
    vectors, labels = _long_tail()
    selection = BalancedClusters(levels=(60, 20)).select(vectors, 200, 0)
    assert _evenness(labels) < 0.8
    assert _evenness(labels[selection.indices]) > 0.95


def test_quotas_are_level_or_exhausted() -> None:
    vectors, _ = _long_tail()
    selection = BalancedClusters(levels=(30,)).select(vectors, 300, 0)
    sizes = np.bincount(selection.leaves, minlength=len(selection.quotas))
    full = selection.quotas == sizes
    assert np.ptp(selection.quotas[~full]) <= 1
    assert selection.quotas[full].max(initial=0) <= selection.quotas[~full].max()


@pytest.mark.parametrize("nearest", [True, False])
def test_diversity_reaches_the_draw(nearest: bool) -> None:
    vectors, _ = _long_tail()
    unit = unit_rows(vectors)
    curator = BalancedClusters(levels=(20, 4), diversity=-1 if nearest else 1, resampling_steps=0)
    selection = curator.select(vectors, 300, 0)
    chosen = np.isin(np.arange(len(vectors)), selection.indices)
    gaps = []
    for leaf in np.flatnonzero(selection.quotas):
        own = selection.leaves == leaf
        # The mean stands for the centroid, which k-means moved to nearly there.
        distances = np.linalg.norm(unit - unit[own].mean(axis=0), axis=1)
        if (own & ~chosen).any():
            gaps.append(distances[own & ~chosen].mean() - distances[own & chosen].mean())
    assert len(gaps) > 5
    assert all((gap > 0) == nearest for gap in gaps)


def test_the_length_of_a_vector_does_not_decide_its_leaf() -> None:
    vectors, _ = _long_tail()
    scaled = vectors * np.float32(2.0) ** np.random.default_rng(1).integers(-3, 4, (len(vectors), 1)).astype(np.float32)
    # On all rows, as the keys, which come from the unscaled contents, would choose others.
    curator = BalancedClusters(levels=(1,), fit_samples=len(vectors), resampling_steps=0, precision="float32")
    plain, other = (curator.select(rows, 10, 0).provenance["mean_squared_distance"] for rows in (vectors, scaled))
    assert plain == pytest.approx(other, rel=1e-5)


def test_fits_on_as_many_rows_as_told() -> None:
    vectors, _ = _long_tail()
    facts = BalancedClusters(levels=(10, 2), fit_samples=100).select(vectors, 10, 0).provenance
    assert facts["fitted_on"] == 100
    assert facts["levels"] == [10, 2]
    assert BalancedClusters(levels=(10, 2)).select(vectors, 10, 0).provenance["fitted_on"] == 640


@pytest.mark.parametrize(
    ("n", "levels"),
    [
        (1, (1,)),
        (3, (1,)),
        (40, (10,)),
        (100, (25, 2)),
        (15_000, (980, 98)),
        (60_000, (1960, 196)),
        (10**6, (8000, 800)),
    ],
)
def test_default_levels_grow_with_the_root(n: int, levels: tuple[int, ...]) -> None:
    assert default_levels(n) == levels


# --------------------------------------------------------------------------------- reading rows


@given(seed=st.integers(0, 100), n=st.integers(1, 30))
def test_rows_are_read_in_any_order_as_unit_vectors(seed: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = _vectors(30)
    vectors[generator.choice(30, 5, replace=False)] = np.nan
    pool = candidates(vectors, 1, 0)
    which = generator.integers(0, len(pool), n)
    expected = unit_rows(vectors[np.isfinite(vectors).all(axis=1)][which])
    np.testing.assert_array_equal(pool.gather(which), expected)
    np.testing.assert_array_equal(pool.unit(which), expected)


def test_clusters_are_fitted_on_the_same_rows_in_the_same_order() -> None:
    vectors = _vectors(60)
    order = np.random.default_rng(1).permutation(60)
    samples = []
    for rows in (vectors, vectors[order]):
        pool = candidates(rows, 1, 0)
        samples.append(pool.sample(pool.keys(5), 20))
    for one, other in zip(*samples, strict=True):
        np.testing.assert_array_equal(one, other)
        assert len(np.unique(one, axis=0)) == 20


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-40])
def test_unit_rows_have_length_one_and_zero_stays_zero(scale: float) -> None:
    vectors = np.array([[3.0, -4.0], [0.0, 0.0], [0.0, 1e-3]]) * scale
    np.testing.assert_allclose(unit_rows(vectors), [[0.6, -0.8], [0, 0], [0, 1]], rtol=1e-2 if scale < 1e-30 else 1e-6)


def test_squared_distances_equal_the_formula() -> None:
    rows = unit_rows(np.concatenate([_vectors(20), np.zeros((2, 6)), -_vectors(3)]))
    expected = ((rows[:, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    found = squared_distances(to_device(rows, "cpu"), to_device(rows, "cpu")).numpy()
    np.testing.assert_allclose(found, expected, atol=3e-6)
    assert np.all(np.diag(found) == 0)
    assert found.max() <= 4
