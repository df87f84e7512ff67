"""What every curator promises, and balanced clusters in particular."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from terrasieve.curation import keys as keys_module
from terrasieve.curation.balanced import BalancedClusters, default_levels
from terrasieve.curation.candidates import candidates, squared_distances, to_device, unit_rows
from terrasieve.curation.curator import Curator, CuratorSpec, Selection
from terrasieve.curation.diagnostics import occupancy
from terrasieve.curation.peers import DensityFlattening, FarthestPoint, NearDuplicates, RandomPruning
from terrasieve.errors import CurationError

CURATORS = [
    pytest.param(curator, id=name)
    for name, curator in {
        "balanced": BalancedClusters(levels=(9, 3), precision="float32", iterations=5, resampling_steps=2),
        "nearest": BalancedClusters(diversity=-1, precision="float32", iterations=5, resampling_steps=0),
        "random": RandomPruning(),
        "semdedup": NearDuplicates(clusters=4, precision="float32", iterations=5),
        "k-center": FarthestPoint(),
        "density": DensityFlattening(references=16),
    }.items()
]

every_curator = pytest.mark.parametrize("curator", CURATORS)


def _vectors(n: int = 80, d: int = 6, seed: int = 0) -> NDArray[np.float32]:
    """A few clusters of different sizes, exact in half precision."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((5, d))
    own = centres[generator.choice(5, n, p=[0.5, 0.25, 0.15, 0.07, 0.03])]
    return (own + 0.3 * generator.standard_normal((n, d))).astype(np.float16).astype(np.float32)


def _contents(vectors: NDArray[np.float32], selection: Selection) -> list[list[float]]:
    return sorted((vectors[selection.indices] + 0.0).tolist())


# --------------------------------------------------------------------------------- what all promise


@every_curator
@given(n=st.integers(1, 60), keep=st.integers(1, 70), seed=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_keeps_as_many_as_told(curator: Curator, n: int, keep: int, seed: int) -> None:
    selection = curator.select(_vectors(n), keep, seed)
    assert len(selection) == len(set(selection.indices.tolist())) == min(keep, n)
    assert np.all(np.diff(selection.indices) > 0)
    assert selection.leaves.shape == (n,)
    np.testing.assert_array_equal(
        np.bincount(selection.leaves[selection.indices], minlength=len(selection.quotas)), selection.quotas
    )
    assert selection.indices.dtype == selection.leaves.dtype == selection.quotas.dtype == np.int64


@every_curator
@given(order=st.permutations(range(50)), keep=st.integers(1, 50))
@settings(max_examples=15, deadline=None)
def test_permuting_the_archive_chooses_the_same_rows(curator: Curator, order: list[int], keep: int) -> None:
    vectors = _vectors(50)
    vectors[40:] = vectors[:10]  # copies
    vectors[30] = 0
    permuted = vectors[np.array(order)]
    assert _contents(permuted, curator.select(permuted, keep, 1)) == _contents(
        vectors, curator.select(vectors, keep, 1)
    )


@every_curator
@given(order=st.permutations(range(50)), keep=st.integers(1, 50))
@settings(max_examples=15, deadline=None)
def test_permuting_named_rows_chooses_the_same_names(curator: Curator, order: list[int], keep: int) -> None:
    vectors, names = _vectors(50), np.random.default_rng(0).permutation(200)[:50]
    vectors[[3, 17]] = np.nan
    place = np.array(order)
    expected = names[curator.select(vectors, keep, 1, numbers=names).indices]
    found = names[place][curator.select(vectors[place], keep, 1, numbers=names[place]).indices]
    assert sorted(found.tolist()) == sorted(expected.tolist())


@every_curator
def test_names_withstand_rounding(curator: Curator) -> None:
    vectors, names = _vectors(), np.arange(80)
    rounded = np.nextafter(vectors, np.float32(np.inf))
    expected = curator.select(vectors, 20, 1, numbers=names).indices
    np.testing.assert_array_equal(curator.select(rounded, 20, 1, numbers=names).indices, expected)


@every_curator
def test_names_must_be_as_many_as_rows(curator: Curator) -> None:
    with pytest.raises(CurationError, match="79 numbers for 80 vectors"):
        curator.select(_vectors(), 20, 1, numbers=np.arange(79))


@every_curator
def test_a_larger_pool_holds_the_smaller(curator: Curator) -> None:
    vectors = _vectors()
    chosen: set[int] = set()
    for keep in (1, 2, 5, 20, 41, 79, 80):
        now = set(curator.select(vectors, keep, 2).indices.tolist())
        assert chosen <= now
        chosen = now


@every_curator
def test_the_seed_decides(curator: Curator) -> None:
    vectors = _vectors()
    first, again, other = (curator.select(vectors, 20, seed).indices.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


@every_curator
def test_rows_that_are_not_finite_are_listed_and_never_chosen(curator: Curator) -> None:
    clean = _vectors(30)
    vectors = np.insert(clean.astype(np.float64), [0, 7, 7, 30], 1.0, axis=0)
    bad = [0, 8, 9, 33]
    vectors[0, 2], vectors[8, 0], vectors[9] = np.nan, np.inf, np.nan
    vectors[33, 5] = 1e300  # more than float32 holds
    for keep in (10, 30, 34):
        selection = curator.select(vectors, keep, 0)
        assert selection.rejected.tolist() == bad
        assert np.flatnonzero(selection.leaves < 0).tolist() == bad
        # They leave no trace: without them the same rows are chosen.
        good = np.setdiff1d(np.arange(34), bad)
        np.testing.assert_array_equal(selection.indices, good[curator.select(clean, keep, 0).indices])


@every_curator
@pytest.mark.parametrize(
    "vectors",
    [
        pytest.param(np.ones((1, 3), dtype=np.float32), id="one row"),
        pytest.param(np.zeros((7, 3), dtype=np.float32), id="zeros"),
        pytest.param(np.full((7, 3), 2.5, dtype=np.float32), id="copies"),
        pytest.param(np.repeat(np.eye(3, dtype=np.float32), [5, 1, 1], axis=0), id="fewer distinct than clusters"),
        pytest.param(np.array([[1.0], [-1.0], [0.0], [2.0], [-3.0]]), id="one dimension"),
        pytest.param(1e30 * _vectors(9), id="large"),
        pytest.param(1e-44 * _vectors(9), id="tiny"),
    ],
)
def test_degenerate_archives_have_an_answer(curator: Curator, vectors: NDArray[Any]) -> None:
    for keep in (1, 3, 100):
        selection = curator.select(vectors, keep, 0)
        assert len(selection) == min(keep, len(vectors))
        assert len(selection.rejected) == 0


@every_curator
@pytest.mark.parametrize("kind", [np.float16, np.float64, "mapped", "column-major"])
def test_the_form_of_the_numbers_does_not_matter(curator: Curator, kind: Any, tmp_path: Path) -> None:
    vectors = _vectors()
    if kind == "mapped":
        np.save(tmp_path / "vectors.npy", vectors)
        other = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    else:
        other = np.asfortranarray(vectors) if kind == "column-major" else vectors.astype(kind)
    expected = curator.select(vectors, 25, 0).indices
    np.testing.assert_array_equal(curator.select(other, 25, 0).indices, expected)


@every_curator
def test_the_size_of_chunks_does_not_matter(curator: Curator, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = _vectors()
    vectors[[3, 50]] = np.nan
    expected = curator.select(vectors, 25, 0).indices
    monkeypatch.setattr(keys_module, "_BYTES_AT_ONCE", 4 * 6 * 7)
    np.testing.assert_array_equal(curator.select(vectors, 25, 0).indices, expected)


@every_curator
def test_leaves_the_vectors_alone(curator: Curator) -> None:
    vectors = _vectors()
    vectors.flags.writeable = False
    before = vectors.copy()
    curator.select(vectors, 25, 0)
    np.testing.assert_array_equal(vectors, before)


@every_curator
def test_says_what_was_done(curator: Any) -> None:
    vectors = _vectors()
    vectors[3] = np.nan
    facts = json.loads(json.dumps(dict(curator.select(vectors, 25, 7).provenance), allow_nan=False))
    assert {"n": 80, "kept": 25, "rejected": 1, "seed": 7}.items() <= facts.items()
    assert all(seconds >= 0 for seconds in facts["seconds"].values())
    assert TypeAdapter(CuratorSpec).validate_python(facts["curator"]) == curator


@every_curator
@pytest.mark.parametrize(
    ("vectors", "keep", "seed", "message"),
    [
        (np.ones((4, 2)), 0, 0, "keep = 0"),
        (np.ones((4, 2)), -3, 0, "keep = -3"),
        (np.ones((4, 2)), 0.3, 0, r"keep = 0\.3: it counts rows, not a share"),
        (np.ones((4, 2)), 1, -1, "seed = -1"),
        (np.ones(4), 1, 0, r"shape \(4,\)"),
        (np.ones((4, 2), dtype=np.int64), 1, 0, "int64"),
        (np.ones((0, 2)), 1, 0, r"shape \(0, 2\)"),
        (np.ones((4, 0)), 1, 0, r"shape \(4, 0\)"),
        ([[1.0, 2.0]], 1, 0, "list"),
        (np.full((4, 2), np.nan), 1, 0, "None of the 4 rows is finite"),
    ],
)
def test_wrong_use_is_an_error(curator: Curator, vectors: Any, keep: Any, seed: int, message: str) -> None:
    with pytest.raises(CurationError, match=message):
        curator.select(vectors, keep, seed)


def test_small_archives_are_curated_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    for param in CURATORS:
        param.values[0].select(_vectors(), 20, 0)  # type: ignore[union-attr]
    assert capfd.readouterr() == ("", "")


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
