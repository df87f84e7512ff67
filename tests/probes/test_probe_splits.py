"""Splits are those published; what is missing is drawn, seeded and per class."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import shapely

from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.probes.splits import make_splits


def table(labels: list[str | None], split: list[str | None] | None = None, column: str = "split") -> pa.Table:
    columns = {"label": pa.array(labels, pa.string())}
    if split is not None:
        columns[column] = pa.array(split, pa.string())
    return pa.table(columns)


def test_published_split_is_used_as_it_is() -> None:
    splits = make_splits(table(["b", "a", "b", None, "a"], ["train", "val", "test", "train", None]))
    assert (splits.train.tolist(), splits.val.tolist(), splits.test.tolist()) == ([0], [1], [2])
    assert splits.classes == ("a", "b")
    assert splits.labels.tolist() == [1, 0, 1, -1, 0]
    assert splits.origin == "published (split)"


@pytest.mark.parametrize("split", [None, [None] * 200])
def test_no_published_split_is_drawn_stratified(split: list[str | None] | None) -> None:
    labels: list[str | None] = ["a"] * 100 + ["b"] * 60 + ["c"] * 40
    splits = make_splits(table(labels, split), seed=1)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [140, 30, 30]
    assert np.bincount(splits.labels[splits.test]).tolist() == [15, 9, 6]
    assert np.array_equal(np.sort(np.concatenate([splits.train, splits.val, splits.test])), np.arange(200))
    assert np.array_equal(make_splits(table(labels, split), seed=1).test, splits.test)
    assert not np.array_equal(make_splits(table(labels, split), seed=2).test, splits.test)
    assert "seed 1" in splits.origin


def test_missing_validation_is_carved_from_train_only() -> None:
    splits = make_splits(table(["a", "b"] * 100, ["train"] * 150 + ["test"] * 50))
    assert splits.test.tolist() == list(range(150, 200))
    assert len(splits.val) == 16  # 10 % of 75, rounded, of each of two classes
    assert set(splits.val) | set(splits.train) == set(range(150))
    assert "validation 10% of train" in splits.origin


def test_another_column_can_be_named() -> None:
    both = table(["a", "b"], ["train", "test"]).append_column("split_spatial", pa.array(["test", "train"]))
    assert make_splits(both, column="split_spatial").test.tolist() == [0]
    with pytest.raises(ConfigError, match="Did you mean 'split_spatial'"):
        make_splits(both, column="split_spatail")


def test_unlabelled_archives_and_incomplete_splits_are_refused() -> None:
    with pytest.raises(ArchiveError, match="needs a labelled archive"):
        make_splits(table([None, None]))
    with pytest.raises(ArchiveError, match="no labelled 'test'"):
        make_splits(table(["a", "b"], ["train", "val"]))


def placed(places: list[float], **columns: list[str]) -> pa.Table:
    """Samples of a tenth of a degree along the equator."""
    shapes = [shapely.to_wkb(shapely.box(place, 0, place + 0.1, 0.1)) for place in places]
    return pa.table({"geometry": pa.array(shapes, pa.binary()), **columns})


def test_a_group_is_in_one_part_of_a_split() -> None:
    sites = [f"site {i % 20}" for i in range(400)]
    both = table(["a", "b"] * 200, ["train", "test"] * 200).append_column("site", pa.array(sites))
    splits = make_splits(both, seed=3, group="site")
    parts = [{sites[i] for i in part} for part in (splits.train, splits.val, splits.test)]
    assert [len(one) for one in parts] == [14, 3, 3]
    assert len(set.union(*parts)) == 20
    assert splits.origin == "20 groups of site held together, 70:15:15, drawn with seed 3"
    assert np.array_equal(make_splits(both, seed=3, group="site").test, splits.test)
    with pytest.raises(ConfigError, match=r"no column 'sites' to group by.*Did you mean 'site'"):
        make_splits(both, group="sites")
    with pytest.raises(ArchiveError, match="2 groups of label are too few"):
        make_splits(both, group="label")


def test_the_file_is_a_group_too() -> None:
    both = table(["a", "b"] * 50).append_column("asset:s2", pa.array([f"{i // 10}.tif" for i in range(100)]))
    splits = make_splits(both, group="asset")
    assert not {i // 10 for i in splits.test} & {i // 10 for i in splits.train}


def test_squares_of_ground_leave_nothing_that_overlaps() -> None:
    overlapping = placed([0.05 * i for i in range(400)], label=["a", "b"] * 200)
    by_chance, by_square = make_splits(overlapping), make_splits(overlapping, block_km=100)
    assert by_chance.overlapping > 0.9
    assert by_square.overlapping == 0
    used = sum(len(part) for part in (by_square.train, by_square.val, by_square.test))
    assert 350 < used < 400
    assert f"{400 - used} that reach over an edge left out" in by_square.origin
    with pytest.raises(ConfigError, match="Both the groups of 'label' and squares of 5 km"):
        make_splits(overlapping, group="label", block_km=5)
    with pytest.raises(ArchiveError, match="do not say where they lie"):
        make_splits(table(["a", "b"]), block_km=5)


def test_apart_is_not_overlapping() -> None:
    assert make_splits(placed([0.1 * i for i in range(100)], label=["a", "b"] * 50)).overlapping == 0
