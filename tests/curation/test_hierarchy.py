"""A tree of clusters: consistent, spread over concepts rather than over density, and safe to load."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from terrasieve.curation.hierarchy import HierarchicalKMeans
from terrasieve.errors import CurationError

pytestmark = pytest.mark.usefixtures("either_processor")


def long_tail(count: int = 6000, classes: int = 20, seed: int = 0) -> Any:
    """Unit vectors of classes whose frequencies fall as rank^-1.5, and their classes."""
    generator = np.random.default_rng(seed)
    frequency = np.arange(1, classes + 1) ** -1.5
    labels = generator.choice(classes, count, p=frequency / frequency.sum())
    rows = generator.normal(size=(classes, 64))[labels] + 0.8 * generator.normal(size=(count, 64))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def entropy(labels: Any, classes: int = 20) -> float:
    shares = np.bincount(labels, minlength=classes) / len(labels)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / np.log(classes))


ROWS, LABELS = long_tail()


@pytest.mark.slow
def test_every_cluster_has_its_parent_among_the_nearest_directions() -> None:
    tree = HierarchicalKMeans((100, 20, 4)).fit(ROWS)
    assert [len(centroids) for centroids in tree.centroids_] == [100, 20, 4]
    assert [len(parents) for parents in tree.parents_] == [100, 20]
    for below, above, parents in zip(tree.centroids_, tree.centroids_[1:], tree.parents_, strict=False):
        directions = torch.nn.functional.normalize(below, dim=1)
        np.testing.assert_array_equal(torch.cdist(directions, above).argmin(dim=1).numpy(), parents)
        assert len(np.unique(parents)) == len(above)


def test_rows_are_assigned_to_the_nearest_leaf() -> None:
    tree = HierarchicalKMeans((50, 5)).fit(ROWS)
    found = tree.assign(ROWS)
    np.testing.assert_array_equal(found.labels, torch.cdist(torch.from_numpy(ROWS), tree.centroids_[0]).argmin(dim=1))


@pytest.mark.parametrize("seed", range(3))
def test_the_coarse_level_finds_the_concepts_however_rare(seed: int) -> None:
    rows, labels = long_tail(seed=seed)
    tree = HierarchicalKMeans((200, 20), seed=seed).fit(rows)
    top = tree.parents_[0][tree.assign(rows).labels]
    majority = [np.bincount(labels[top == cluster], minlength=20).argmax() for cluster in np.unique(top)]
    assert len(set(majority)) >= 19
    pure = np.mean([labels[i] == majority[list(np.unique(top)).index(top[i])] for i in range(0, len(rows), 7)])
    assert pure > 0.97


def test_resampling_spreads_centroids_over_concepts_rather_than_density() -> None:
    def concepts(steps: int) -> float:
        tree = HierarchicalKMeans((300, 20), resampling_steps=steps).fit(ROWS)
        leaves = tree.assign(ROWS).labels
        owners = [np.bincount(LABELS[leaves == leaf], minlength=20).argmax() for leaf in np.unique(leaves)]
        return entropy(np.array(owners))

    assert concepts(4) > concepts(0) + 0.02


def test_the_order_of_the_rows_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(ROWS))
    straight = HierarchicalKMeans((40, 8), fit_samples=3000).fit(ROWS)
    turned = HierarchicalKMeans((40, 8), fit_samples=3000).fit(ROWS[order])
    assert torch.equal(turned.centroids_[0], straight.centroids_[0])
    np.testing.assert_array_equal(turned.parents_[0], straight.parents_[0])


def test_it_is_fitted_to_a_random_subset_where_that_is_asked_for() -> None:
    seen: list[int] = []

    tree = HierarchicalKMeans((30, 6), fit_samples=500, resampling_steps=0)
    model = tree._model

    def note(level: int, clusters: int) -> Any:
        made = model(level, clusters)
        fit = made.fit
        made.fit = lambda vectors, keys=None: (seen.append(len(vectors)), fit(vectors, keys=keys))[1]  # type: ignore[method-assign]
        return made

    tree._model = note  # type: ignore[method-assign]
    tree.fit(ROWS)
    assert seen == [500, 30]
    assert tree.assign(ROWS).labels.shape == (6000,)


def test_more_clusters_than_rows_and_copies_give_a_smaller_tree() -> None:
    rows = np.repeat(np.eye(5, dtype=np.float32), 3, axis=0)
    tree = HierarchicalKMeans((40, 8)).fit(rows)
    assert [len(centroids) for centroids in tree.centroids_] == [5, 5]
    assert tree.assign(rows).distances.max() == 0
    one = HierarchicalKMeans((4, 2)).fit(rows[:1])
    assert one.parents_[0].tolist() == [0]


@pytest.mark.parametrize("levels", [(), (5, 5), (5, 9), (4, 0)])
def test_levels_that_do_not_fall_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(CurationError, match="falling numbers"):
        HierarchicalKMeans(levels).fit(ROWS)


# ----------------------------------------------------------------------------- on disk


def test_a_saved_tree_comes_back_and_describes_itself(tmp_path: Path) -> None:
    tree = HierarchicalKMeans((40, 8, 2), seed=3).fit(ROWS)
    tree.save(tmp_path / "tree.safetensors")
    again = HierarchicalKMeans.load(tmp_path / "tree.safetensors")
    assert (again.levels, again.seed) == ((40, 8, 2), 3)
    np.testing.assert_array_equal(again.assign(ROWS).labels, tree.assign(ROWS).labels)
    for ours, theirs in zip(again.parents_, tree.parents_, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    lines = again.describe().splitlines()
    assert lines[0] == "level 1: 40 clusters"
    assert lines[1].startswith("level 2: 8 clusters, each of ")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tree.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CurationError, match="no tree that this release wrote"):
        HierarchicalKMeans.load(path)
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(CurationError, match="no tree"):
        HierarchicalKMeans.load(path)
    facts = {"version": 99, "levels": [2], "seed": 0, "resampling_steps": 0}
    save_file({"centroids.0": torch.zeros(2, 3)}, path, {"tree": json.dumps(facts)})
    with pytest.raises(CurationError, match="version 99"):
        HierarchicalKMeans.load(path)
    with pytest.raises(CurationError, match="no tree"):
        HierarchicalKMeans.load(tmp_path / "absent.safetensors")
