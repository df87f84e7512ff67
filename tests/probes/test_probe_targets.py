"""A target is read by the type of its column, and splits are stratified by it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.probes.splits import make_splits
from terrasieve.probes.targets import read_target


def test_text_is_a_class_a_list_several_labels_and_a_float_a_number() -> None:
    table = pa.table(
        {
            "label": pa.array(["b", None, "a"]),
            "labels": pa.array([["sea", "ice"], None, ["sea"]]),
            "swh": pa.array([1.5, None, float("nan")]),
        }
    )
    classes, labels, number = (read_target(table, name) for name in ("label", "labels", "swh"))
    assert (classes.task, classes.classes, classes.values.tolist()) == ("classification", ("a", "b"), [1, -1, 0])
    assert (labels.task, labels.classes) == ("multilabel", ("ice", "sea"))
    assert labels.values.tolist() == [[True, True], [False, False], [False, True]]
    assert (number.task, number.classes, number.known.tolist()) == ("regression", (), [True, False, False])
    assert [one.known.tolist() for one in (classes, labels)] == [[True, False, True]] * 2


def test_what_is_blank_or_nan_names_no_class() -> None:
    table = pa.table(
        {
            "label": ["b ", "", "NaN", " a", "b", None],
            "labels": [["sea", ""], [""], [], [None, " ice"], ["nan"], None],
            "empty": [" ", "nan", "", None, "<NA>", "NaT"],
        }
    )
    classes, labels = read_target(table), read_target(table, "labels")
    assert (classes.classes, classes.values.tolist()) == (("a", "b"), [1, -1, -1, 0, 1, -1])
    assert classes.known.tolist() == [True, False, False, True, True, False]
    assert (labels.classes, labels.known.tolist()) == (("ice", "sea"), [True, False, True, True, False, False])
    with pytest.raises(ArchiveError, match="None of the archive's 6 samples has a empty"):
        read_target(table, "empty")


def test_what_cannot_be_predicted_is_refused() -> None:
    table = pa.table({"label": pa.array(["a"]), "orbit": pa.array([7]), "wind": pa.array([float("nan")])})
    with pytest.raises(ConfigError, match=r"'labell'.*Did you mean 'label'"):
        read_target(table, "labell")
    with pytest.raises(ConfigError, match="holds int64: write classes as text"):
        read_target(table, "orbit")
    with pytest.raises(ArchiveError, match="None of the archive's 1 samples has a wind"):
        read_target(table, "wind")


def test_a_drawn_split_of_numbers_covers_their_range_in_every_part() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=400)
    splits = make_splits(pa.table({"swh": values}), seed=1, target="swh")
    parts = (splits.train, splits.val, splits.test)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(400))
    edges = np.quantile(values, [0.1, 0.9])
    for part in parts:
        outside = (values[part] < edges[0]) | (values[part] > edges[1])
        assert outside.mean() == pytest.approx(0.2, abs=0.03)


def test_a_drawn_split_of_labels_leaves_the_rarest_in_every_part() -> None:
    labels = [["common", "rare"] if i % 20 == 0 else ["common"] for i in range(400)]
    splits = make_splits(pa.table({"labels": labels}), seed=0, target="labels")
    rare = splits.labels[:, splits.classes.index("rare")]
    assert [int(rare[part].sum()) for part in (splits.train, splits.val, splits.test)] == [14, 3, 3]
