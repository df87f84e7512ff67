"""Names between numpy and Arrow, and where they stand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrasieve.archive import names as module
from terrasieve.archive.names import name_blocks, names_from_arrow, names_to_arrow, positions_of

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30), max_size=20)


@given(TEXTS, TEXTS)
def test_there_and_back(first: list[str], second: list[str]) -> None:
    whole = [*first, *second]
    names = names_from_arrow([pa.array(first, pa.string()), pa.array(second, pa.string())], len(whole))
    assert names.tolist() == whole
    assert names_to_arrow(names).to_pylist() == whole
    assert names_to_arrow(np.array(whole, dtype=np.str_)).to_pylist() == whole


def test_they_are_python_strings_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 2)
    assert list(name_blocks(np.array(["a", "b", "c"]))) == [["a", "b"], ["c"]]
    assert names_to_arrow(np.array(["a", "b", "c"])).num_chunks == 2


def test_where_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 2)
    asked = pa.chunked_array([["c", "x", None], ["a"]])
    assert positions_of(asked, np.array(["a", "b", "c"])).tolist() == [2, -1, -1, 0]
    assert positions_of(asked.slice(0, 0), np.array(["a"])).tolist() == []
    assert positions_of(pa.chunked_array([[7, 8]]), np.array(["8", "9"])).tolist() == [-1, 0]
