from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrasieve.archive.patches.land_cover import CLASS_OF_IGBP, CLASSES_10, IGBP, MajorityLabels, majority
from terrasieve.archive.readers.patch_reader import StackReader
from terrasieve.sensors import SENSORS


@pytest.mark.parametrize(
    ("numbers", "simple"),
    [
        (range(1, 6), "Forest"),
        ((6, 7), "Shrubland"),
        ((8, 9), "Savanna"),
        ((10,), "Grassland"),
        ((11,), "Wetlands"),
        ((12, 14), "Croplands"),
        ((13,), "Urban/Built-up"),
        ((15,), "Snow/Ice"),
        ((16,), "Barren"),
        ((17,), "Water"),
    ],
)
def test_igbp_classes_are_simplified_as_published(numbers: Sequence[int], simple: str) -> None:
    assert {CLASSES_10[CLASS_OF_IGBP[number] - 1] for number in numbers} == {simple}


def test_every_igbp_class_has_a_simplified_one() -> None:
    assert list(CLASS_OF_IGBP) == list(range(1, 18))
    assert set(IGBP.values()) == set(CLASSES_10)
    assert len(CLASSES_10) == 10


@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=60))
def test_the_majority_is_that_of_a_count(values: list[int]) -> None:
    votes = Counter(CLASS_OF_IGBP[value] for value in values if value in CLASS_OF_IGBP)
    most = [one for one, count in votes.items() if count == max(votes.values())]
    assert majority(np.array(values, dtype=np.uint16), CLASS_OF_IGBP) == (min(most) if most else None)


def test_classes_are_joined_before_they_are_counted() -> None:
    assert majority(np.array([13, 13, 12, 14, 14]), CLASS_OF_IGBP) == CLASSES_10.index("Croplands") + 1


def test_what_is_no_class_does_not_vote() -> None:
    assert majority(np.array([0, 0, 255, np.nan, 17.0]), CLASS_OF_IGBP) == 10
    assert majority(np.array([0, 18, 255]), CLASS_OF_IGBP) is None


def test_labels_are_read_from_the_maps_and_survive_pickling(tmp_path: Path, write_tif: Any) -> None:
    reader = StackReader(tmp_path, SENSORS["land-cover"])
    for name, value in (("a", 4), ("b", 0)):
        write_tif(tmp_path / f"{name}.tif", np.full((1, 16, 16), value, np.uint8))
    (tmp_path / "c.tif").write_bytes(b"II*\0")
    labels = MajorityLabels(reader, ["a.tif", "b.tif", "c.tif", "absent.tif"], {4: 4})
    assert labels() == ["Grassland", None, None, None]
    assert pickle.loads(pickle.dumps(labels))() == labels()
