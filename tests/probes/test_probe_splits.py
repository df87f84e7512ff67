"""Splits are those published; what is missing is drawn, seeded and per class."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

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
