"""Sites are held out whole, label maps lose what does not count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terrasieve.errors import ArchiveError, BandError, ConfigError, SampleError
from terrasieve.probes.segmentation.folds import hold_out, make_folds
from terrasieve.probes.segmentation.pixel_metrics import IGNORE
from terrasieve.probes.segmentation.task import learnable, read_labels

MakeMapped = Callable[..., Any]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=80).filter(lambda sites: len(set(sites)) > 1), st.integers(0, 9)
)
def test_every_image_is_tested_once_by_a_probe_that_never_saw_its_site(sites: list[int], seed: int) -> None:
    groups = np.array([f"site {site}" for site in sites])
    folds = hold_out(groups, "sites held out", seed)
    tested = np.concatenate([fold.test for fold in folds.parts])
    assert sorted(tested.tolist()) == list(range(len(groups)))
    for fold in folds.parts:
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert len(fold.train) + len(fold.test) == len(groups)
    names = set(groups)
    assert len(folds.parts) == (len(names) if len(names) <= 10 else 5)


def test_folds_of_an_archive_group_by_the_file_of_the_labels(make_mapped: MakeMapped) -> None:
    folds = make_folds(make_mapped(sites=3).table(), "cover")
    assert [fold.test.tolist() for fold in folds.parts] == [[0, 1], [2, 3], [4, 5]]
    assert folds.unit == "groups"
    assert "asset:cover held out one at a time (3 groups)" in folds.origin
    named = make_folds(make_mapped(sites=3).table(), "cover", group="asset")
    assert [fold.test.tolist() for fold in named.parts] == [[0, 1], [2, 3], [4, 5]]


def test_a_published_split_is_used_unless_a_group_is_named(make_mapped: MakeMapped) -> None:
    archive = make_mapped(sites=3)
    archive.columns["split"] = ["train", "test", "val", None, "train", "test"]
    (fold,) = make_folds(archive.table(), "cover").parts
    assert (fold.train.tolist(), fold.test.tolist()) == ([0, 4], [1, 5])
    assert make_folds(archive.table(), "cover").unit == "images"
    assert len(make_folds(archive.table(), "cover", group="asset:cover").parts) == 3
    archive.columns["split"] = ["train", None, None, None, "train", None]
    with pytest.raises(ArchiveError, match="no 'test' images"):
        make_folds(archive.table(), "cover")


def test_groups_that_cannot_be_held_out_are_refused() -> None:
    table = pa.table({"id": ["a", "b"], "place": ["x", None], "same": ["x", "x"]})
    with pytest.raises(ConfigError, match="Did you mean 'place'"):
        make_folds(table, "cover", "plce")
    with pytest.raises(ArchiveError, match="empty for 1 of 2"):
        make_folds(table, "cover", "place")
    with pytest.raises(ArchiveError, match="'x'"):
        make_folds(table, "cover", "same")


def test_labels_are_numbered_from_zero_and_named(make_mapped: MakeMapped) -> None:
    archive = make_mapped()
    archive.cover[:, 3, 3] = 0
    labels = read_labels(archive, "map", np.array([1, 5]), ignore=[0], names={0: "none", 2: "trees"})
    assert labels.classes == ("1", "trees", "4")
    assert labels.left_out == ("none (ignored)",)
    assert (labels.codes[:, 3, 3] == IGNORE).all()
    values = np.array([1, 2, 4])
    counted = labels.codes != IGNORE
    assert counted.sum() == 2 * (32 * 32 - 1)
    assert np.array_equal(values[labels.codes[counted]], archive.cover[[1, 5]][counted])
    assert np.array_equal(labels.of(np.array([5])), labels.codes[1:])


def test_nodata_and_nan_never_count(make_mapped: MakeMapped) -> None:
    archive = make_mapped()
    archive.sensors = {**archive.sensors, "cover": archive.sensors["cover"].model_copy(update={"nodata": 4})}
    archive.cover = archive.cover.astype(np.float32)
    archive.cover[:, :2] = np.nan
    labels = read_labels(archive, "cover", np.arange(8))
    assert labels.classes == ("1", "2")
    assert np.array_equal(labels.codes == IGNORE, np.isnan(archive.cover) | (archive.cover == 4))


def test_classes_of_a_single_site_are_left_out_with_sites_held_out(make_mapped: MakeMapped) -> None:
    archive = make_mapped(sites=3)
    archive.cover[archive.sites == 1, :5, :5] = 3
    archive.cover[archive.sites != 2] = np.where(
        archive.cover[archive.sites != 2] == 1, 2, archive.cover[archive.sites != 2]
    )
    folds = make_folds(archive.table(), "cover")
    read = read_labels(archive, "cover", folds.used)
    labels = learnable(read, folds)
    assert read.classes == ("1", "2", "3", "4")
    assert labels.classes == ("2", "4")
    assert [name.split()[0] for name in labels.left_out] == ["1", "3"]
    assert np.array_equal(labels.codes == IGNORE, np.isin(archive.cover, [1, 3]))
    assert np.array_equal(labels.codes == 1, archive.cover == 4)


def test_what_is_no_label_map_is_refused(make_mapped: MakeMapped) -> None:
    archive = make_mapped()
    with pytest.raises(BandError, match=r"'s2' is no map of classes.*cover"):
        read_labels(archive, "s2", np.arange(2))
    with pytest.raises(BandError, match="no sensor 'covr'"):
        read_labels(archive, "covr", np.arange(2))
    with pytest.raises(ArchiveError, match="1 class"):
        read_labels(archive, "cover", np.arange(2), ignore=[1, 2])
    archive.cover = [archive.cover[0], archive.cover[1][:16]]
    with pytest.raises(SampleError, match="differ in size"):
        read_labels(archive, "cover", np.arange(2))
