"""The different ones among whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrasieve import distinct as module
from terrasieve.distinct import distinct


@given(st.lists(st.integers(-40, 40) | st.integers(-(2**63), 2**63 - 1), max_size=60))
def test_what_is_found_is_what_numpy_finds(numbers: list[int]) -> None:
    given_ones = np.array(numbers, dtype=np.int64)
    found = distinct(given_ones)
    np.testing.assert_array_equal(found, np.unique(given_ones))
    assert found.dtype == np.int64
    assert given_ones.tolist() == numbers


def test_blocks_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 3)
    assert distinct(np.array([5, -1, 4, 5, 4, 3, -1, 0])).tolist() == [-1, 0, 3, 4, 5]
