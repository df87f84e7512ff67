"""Archives in a notebook: samples by position, parts, a look at them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from small_archives.labelled import LABELS, Labelled
from terrasieve.archive.browsing import Sample
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.errors import ArchiveError, SampleError


@pytest.fixture
def archive() -> Labelled:
    """160 labelled patches of three bands."""
    return Labelled()


def test_a_sample_is_a_mapping_from_sensor_to_all_of_its_pixels(archive: Labelled) -> None:
    sample = archive[3]
    assert dict(sample).keys() == {"s2"}
    assert np.array_equal(sample["s2"], archive.pixels[3])
    assert sample.id == "patch-3"
    assert sample.columns["label"] == LABELS[3]
    with pytest.raises(KeyError, match="s1"):
        sample["s1"]


def test_positions_count_from_the_end_and_stop_there(archive: Labelled) -> None:
    assert archive[-1].id == archive[len(archive) - 1].id == "patch-159"
    for outside in (160, -161):
        with pytest.raises(IndexError, match="160 samples"):
            archive[outside]


def test_iteration_gives_every_sample_once_in_order(archive: Labelled) -> None:
    assert [sample.id for sample in archive] == archive.ids.tolist()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (slice(2, 8, 3), [2, 5]),
        ([5, -1, 5], [5, 159, 5]),
        (np.arange(160) % 80 == 7, [7, 87]),
        (np.array([], dtype=np.int64), []),
        (slice(None, None, -80), [159, 79]),
    ],
)
def test_a_part_is_an_archive_of_these_samples(archive: Labelled, wanted: Any, found: list[int]) -> None:
    part = archive[wanted]
    assert part.ids.tolist() == [f"patch-{index}" for index in found]
    assert part.table()["label"].to_pylist() == [archive.labels[index] for index in found]
    for index, position in enumerate(found):
        assert np.array_equal(part.read(index, "s2"), archive.pixels[position])


def test_a_part_of_a_part_counts_in_the_part(archive: Labelled) -> None:
    assert archive[10:20][np.arange(10) > 7].ids.tolist() == ["patch-18", "patch-19"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [([True, False], "160 samples"), ("patch-3", "archive.ids == id"), ([0.5], "no position"), (None, "no position")],
)
def test_what_is_no_position_says_what_is(archive: Labelled, wanted: Any, said: str) -> None:
    with pytest.raises(ArchiveError, match=re.escape(said)):
        archive[wanted]


def test_a_true_is_a_mask_and_not_the_first_sample(archive: Labelled) -> None:
    with pytest.raises(ArchiveError, match="mask"):
        archive[True]


def test_reprs_say_what_is_there(archive: Labelled) -> None:
    assert repr(archive) == "<Archive memory (simulated): 160 samples; s2 (B04, B03, B02 of s2-rgb8)>"
    assert repr(archive[3]) == "<Sample 'patch-3': s2 3x8x8>"


def test_a_notebook_shows_a_picture_of_each_sensor() -> None:
    archive = open_archive("simulated:0:8")
    shown = archive._repr_html_()
    assert shown.count("<img") == 6 * len(archive.sensors)
    assert archive[0]._repr_html_().count("<img") == len(archive.sensors)


def test_what_cannot_be_read_does_not_break_the_display(archive: Labelled, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise SampleError("patch-0 is <cut> off")

    monkeypatch.setattr(archive, "_read", broken)
    assert "patch-0 is &lt;cut&gt; off" in archive._repr_html_()


def test_drawings_are_pictures_that_can_be_saved(archive: Archive, tmp_path: Any) -> None:
    for drawn in (archive.plot(), archive.plot(3), archive.plot([3, -1]), archive[3].plot()):
        assert drawn._repr_png_().startswith(b"\x89PNG")
    with Image.open(archive.plot(0).save(tmp_path / "one.png", dpi=50)) as saved:
        assert saved.format == "PNG"
    assert (tmp_path / "one.svg").exists() is False
    archive.plot(0).save(tmp_path / "one.svg")
    assert "<svg" in (tmp_path / "one.svg").read_text()
    with pytest.raises(ArchiveError, match="no sample to draw"):
        archive[:0].plot()


def test_torch_gets_float_pixels_ids_and_codes_of_classes(archive: Labelled) -> None:
    data = archive.as_torch(bands=("B02",))
    assert len(data) == 160
    assert data.classes == LABELS
    item = data[6]
    assert item["image"].shape == (1, 8, 8)
    assert item["image"].dtype.is_floating_point
    assert np.array_equal(item["image"][0].numpy(), archive.pixels[6, 2])
    assert (item["id"], data.classes[item["label"]]) == ("patch-6", archive.labels[6])


def test_samples_can_be_compared_by_what_they_are(archive: Labelled) -> None:
    assert isinstance(archive[0], Sample)
    assert len(archive[0]) == 1
