from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from small_archives.labelled import LABELS, Labelled
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Window
from terrasieve.errors import ArchiveError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from longtail import LongTailArchive, LongTailSpec, class_sizes, near_copy
from study_settings import Settings

SMALL = LongTailSpec(samples=100, most=16, fewest=2, head=2)


@pytest.fixture(scope="module")
def labelled() -> Labelled:
    return Labelled()


@pytest.fixture
def archive(labelled: Labelled) -> LongTailArchive:
    return LongTailArchive(labelled, SMALL)


def is_copy(archive: LongTailArchive) -> NDArray[np.bool_]:
    return np.array([value is not None for value in archive.table()["copy_of"].to_pylist()])


# ------------------------------------------------------------------------ counts


@given(most=st.integers(10, 1000), ratio=st.integers(1, 100), classes=st.integers(2, 20))
def test_class_sizes_fall_geometrically_between_their_ends(most: int, ratio: int, classes: int) -> None:
    fewest = max(1, most // ratio)
    sizes = class_sizes(LongTailSpec(most=most, fewest=fewest), classes)
    assert (sizes[0], sizes[-1], len(sizes)) == (most, fewest, classes)
    steps = sizes[:-1] / sizes[1:]
    common = (most / fewest) ** (1 / (classes - 1))
    # Each size is rounded by at most a half.
    assert np.all(np.abs(sizes[:-1] - common * sizes[1:]) <= 0.5 + 0.5 * common + 1e-9), steps


def test_originals_follow_the_sizes_and_only_the_head_is_copied(archive: LongTailArchive) -> None:
    counts = archive.counts()
    assert tuple(counts) == archive.classes
    assert [originals for originals, _ in counts.values()] == class_sizes(SMALL, 4).tolist()
    assert sum(samples for _, samples in counts.values()) == len(archive) == 100
    head, tail = list(counts.values())[:2], list(counts.values())[2:]
    assert all(samples > 2 * originals for originals, samples in head)
    assert all(samples == originals for originals, samples in tail)


@pytest.mark.parametrize("redundancy", [0.0, 1.0, 2.0])
def test_copies_are_in_proportion_to_a_power_of_the_frequency(labelled: Labelled, redundancy: float) -> None:
    spec = LongTailSpec(samples=20_000, most=16, fewest=2, head=3, redundancy=redundancy)
    originals, samples = np.array(list(LongTailArchive(labelled, spec).counts().values()))[:3].T
    share = originals**redundancy / (originals**redundancy).sum()
    assert np.allclose(samples - originals, 20_000 * share, rtol=0.1)


def test_the_table_tells_originals_from_copies_and_shows_the_train_split_only(
    archive: LongTailArchive, labelled: Labelled
) -> None:
    rows = archive.table().to_pylist()
    assert {row["split"] for row in rows} == {"train"}
    assert [row["id"] for row in rows] == archive.ids.tolist()
    assert len({row["id"] for row in rows}) == len(rows)
    by_id = {row["id"]: row for row in rows}
    train = {name for name, split in zip(labelled.ids, labelled.splits, strict=True) if split == "train"}
    for row in rows:
        original = by_id[row["copy_of"] or row["id"]]
        assert original["copy_of"] is None
        assert original["id"] in train
        assert original["label"] == row["label"] == labelled.labels[int(original["id"].removeprefix("patch-"))]


def test_no_image_is_taken_twice(archive: LongTailArchive) -> None:
    originals = archive.copies.source[~is_copy(archive)]
    assert len(set(originals.tolist())) == len(originals) == class_sizes(SMALL, 4).sum()


# ------------------------------------------------------------------------ pixels


def test_an_original_is_as_it_was(archive: LongTailArchive, labelled: Labelled) -> None:
    for index in np.flatnonzero(~is_copy(archive)):
        assert np.array_equal(archive.read(int(index), "s2"), labelled.pixels[archive.copies.source[index]])


def test_a_copy_without_noise_is_its_original_moved_and_flipped(labelled: Labelled) -> None:
    archive = LongTailArchive(labelled, SMALL.model_copy(update={"noise": 0.0, "shift": 3}))
    moved = 0
    for index in np.flatnonzero(is_copy(archive)):
        of = archive.copies.original[index]
        whole = archive.read(int(of), "s2")
        copy = archive.read(int(index), "s2")
        for axis in (0, 1):
            if archive.copies.flip[index, axis]:
                copy = np.flip(copy, axis + 1)
        # What is moved past one border is cut off, what comes in at the other is a reflection.
        down, right = archive.copies.shift[index]
        kept = copy[:, max(down, 0) : 8 + min(down, 0), max(right, 0) : 8 + min(right, 0)]
        source = whole[:, max(-down, 0) : 8 + min(-down, 0), max(-right, 0) : 8 + min(-right, 0)]
        assert np.array_equal(kept, source)
        moved += bool(down or right)
    assert moved > 50


def test_what_comes_in_at_the_border_is_a_reflection() -> None:
    pixels = np.arange(4, dtype=np.uint8).reshape(1, 1, 4).repeat(4, axis=1) * 10
    shifted = near_copy(pixels, np.array([0, 2]), np.array([False, False]), 0.0, np.random.default_rng(0))
    assert shifted[0, 0].tolist() == [20, 10, 0, 10]


def test_noise_has_its_spread_and_is_clipped_rather_than_wrapped() -> None:
    grey = np.full((3, 64, 64), 128, dtype=np.uint8)
    still, unflipped = np.array([0, 0]), np.array([False, False])
    noisy = near_copy(grey, still, unflipped, 3.0, np.random.default_rng(0)).astype(int) - 128
    assert noisy.std() == pytest.approx(3.0, rel=0.05)
    assert abs(noisy.mean()) < 0.1
    for extreme in (0, 255):
        far = near_copy(np.full_like(grey, extreme), still, unflipped, 3.0, np.random.default_rng(0)).astype(int)
        assert np.abs(far - extreme).max() < 20


def test_bands_and_window_are_those_asked_for(archive: LongTailArchive) -> None:
    index = int(np.flatnonzero(is_copy(archive))[0])
    whole = archive.read(index, "s2")
    part = archive.read(index, "s2", ("B02", "B04"), Window(1, 2, 3, 4))
    assert np.array_equal(part, whole[[2, 0], 1:4, 2:6])


# --------------------------------------------------------------- determinism, errors


def test_the_same_seed_gives_the_same_archive_and_another_seed_another(labelled: Labelled) -> None:
    first, again = LongTailArchive(labelled, SMALL), LongTailArchive(labelled, SMALL)
    other = LongTailArchive(labelled, SMALL.model_copy(update={"seed": 1}))
    assert first.table().equals(again.table())
    assert first.source["fingerprint"] == again.source["fingerprint"] != other.source["fingerprint"]
    assert not first.table()["id"].equals(other.table()["id"])
    backwards = [again.read(i, "s2") for i in reversed(range(100))][::-1]
    assert all(np.array_equal(first.read(i, "s2"), backwards[i]) for i in range(100))


def test_it_packs_into_a_store_that_keeps_labels_and_originals(archive: LongTailArchive, tmp_path: Path) -> None:
    pack(archive, tmp_path / "store.zarr")
    packed = PackedArchive(tmp_path / "store.zarr")
    for column in ("id", "label", "split", "copy_of"):
        assert packed.table()[column].to_pylist() == archive.table()[column].to_pylist()
    assert all(np.array_equal(packed.read(i, "s2"), archive.read(i, "s2")) for i in range(100))


@pytest.mark.parametrize("name", LABELS)
def test_a_named_class_comes_first_and_the_others_stay_in_their_order(labelled: Labelled, name: str) -> None:
    drawn = LongTailArchive(labelled, SMALL).classes
    named = LongTailArchive(labelled, SMALL.model_copy(update={"first": name})).classes
    assert named == (name, *(one for one in drawn if one != name))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"most": 21, "samples": 200}, "lower most"),
        ({"samples": 20}, "raise samples"),
        ({"first": "z"}, "No class is called 'z'; first is one of a, b, c, d"),
    ],
)
def test_what_cannot_be_made_is_an_error(labelled: Labelled, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ArchiveError, match=said):
        LongTailArchive(labelled, SMALL.model_copy(update=change))


@pytest.mark.slow
def test_the_real_one_has_the_tail_that_the_study_speaks_of(data_dir: Path) -> None:
    root = data_dir / "eurosat_rgb_full"
    if not root.is_dir():
        pytest.skip("no EuroSAT of 26,000 images beside the other data")
    archive = LongTailArchive(open_archive(root), Settings().archive)
    originals, samples = zip(*archive.counts().values(), strict=True)
    assert archive.classes[0] == "SeaLake"
    assert (originals[0], originals[1], originals[-1], sum(originals)) == (600, 465, 60, 2452)
    assert (sum(samples), sum(samples[5:])) == (30_000, 533)
    assert samples[1:] == originals[1:]
    assert 0.93 < samples[0] / len(archive) < 0.94
    # Else a pool could hold every image once, and there would be nothing to choose.
    assert Settings().keep * len(archive) < sum(originals)
