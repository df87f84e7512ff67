"""What every registered curator promises, whoever wrote it.

A curator of another distribution is tested by the same file, in an environment where it is installed. What a curator
promises beside this stands in a test of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter

from terrasieve.curation import keys as keys_module
from terrasieve.curation.curator import CURATORS, Curator, CuratorSpec, Selection
from terrasieve.errors import CurationError

SETTINGS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "balanced": [
        {"levels": (9, 3), "precision": "float32", "iterations": 5, "resampling_steps": 2},
        {"diversity": -1, "precision": "float32", "iterations": 5, "resampling_steps": 0},
    ],
    "semdedup": [{"clusters": 4, "precision": "float32", "iterations": 5}],
    "deduplicated": [
        {
            "levels": (9, 3),
            "precision": "float32",
            "iterations": 5,
            "near_duplicates": {"clusters": 4, "precision": "float32", "iterations": 5},
        },
        {"duplicates": 0.9, "near_duplicates": {"precision": "float32"}, "precision": "float32"},
    ],
    "density": [{"references": 16}],
}
"""Settings for small archives, where the defaults are for large ones; each is tested."""

CHOSEN = [
    pytest.param(curator(**settings_), id=f"{name}{i or ''}")
    for name, curator in CURATORS.items()
    for i, settings_ in enumerate(SETTINGS.get(name, [{}]))
]

every_curator = pytest.mark.parametrize("curator", CHOSEN)


def _vectors(n: int = 80, d: int = 6, seed: int = 0) -> NDArray[np.float32]:
    """A few clusters of different sizes, exact in half precision."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((5, d))
    own = centres[generator.choice(5, n, p=[0.5, 0.25, 0.15, 0.07, 0.03])]
    return (own + 0.3 * generator.standard_normal((n, d))).astype(np.float16).astype(np.float32)


def _contents(vectors: NDArray[np.float32], selection: Selection) -> list[list[float]]:
    return sorted((vectors[selection.indices] + 0.0).tolist())


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
    for param in CHOSEN:
        param.values[0].select(_vectors(), 20, 0)  # type: ignore[union-attr]
    assert capfd.readouterr() == ("", "")
