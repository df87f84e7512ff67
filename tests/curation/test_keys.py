"""Row keys: what is random about a row belongs to its content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from terrasieve.curation import keys as module
from terrasieve.curation.keys import group_keys, number_keys, rekey, row_keys, smallest, uniform

# Few values and few columns, so that equal rows are common.
TABLES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.sampled_from([0.0, -0.0, 1.0, -2.5, 3e-39, 1e30]),
)


def _mix(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


def _key_in_whole_numbers(row: NDArray[np.float32], copies_before: int, seed: int) -> int:
    """The documented formula, in Python's unbounded integers."""
    words = np.random.Philox(key=seed).random_raw(2 * (len(row) + 1)).tolist()
    content = [int(word) for word in row.view(np.uint32)]
    halves = []
    for start in (0, len(row) + 1):
        own = words[start : start + len(row) + 1]
        halves.append((own[0] + sum(a * b for a, b in zip(content, own[1:], strict=True))) % 2**64 >> 32)
    return _mix((halves[0] << 32 | halves[1]) + 0x9E3779B97F4A7C15 * copies_before & 2**64 - 1)


@given(seed=st.integers(0, 2**40), d=st.integers(1, 9))
def test_equals_the_formula_in_whole_numbers(seed: int, d: int) -> None:
    rows = np.random.default_rng(d).standard_normal((3, d)).astype(np.float32)
    rows = np.concatenate([rows, rows[:1], rows[:1]])
    copies = [0, 0, 0, 1, 2]
    expected = [_key_in_whole_numbers(row, copy, seed) for row, copy in zip(rows, copies, strict=True)]
    assert row_keys(rows, seed).tolist() == expected


@given(rows=TABLES, seed=st.integers(0, 9), data=st.data())
def test_permuting_rows_permutes_keys(rows: NDArray[np.float32], seed: int, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    # Copies of a row may exchange their keys: each content keeps its set of keys.
    before = sorted(zip((rows + 0.0).tolist(), row_keys(rows, seed).tolist(), strict=True))
    after = sorted(zip((rows[order] + 0.0).tolist(), row_keys(rows[order], seed).tolist(), strict=True))
    assert before == after


@given(rows=TABLES, seed=st.integers(0, 9))
def test_all_keys_differ_copies_included(rows: NDArray[np.float32], seed: int) -> None:
    assert len(np.unique(row_keys(rows, seed))) == len(rows)


def test_distinct_rows_keep_their_own_key_wherever_they_stand() -> None:
    rows = np.random.default_rng(0).standard_normal((500, 7)).astype(np.float32)
    order = np.random.default_rng(1).permutation(500)
    np.testing.assert_array_equal(row_keys(rows[order], 3), row_keys(rows, 3)[order])


@pytest.mark.parametrize("kind", [np.float16, np.float64, "mapped", "column-major"])
def test_same_numbers_same_keys(kind: Any, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float16).astype(np.float32)
    if kind == "mapped":
        np.save(tmp_path / "rows.npy", rows)
        other = np.load(tmp_path / "rows.npy", mmap_mode="r")
    else:
        other = np.asfortranarray(rows) if kind == "column-major" else rows.astype(kind)
    np.testing.assert_array_equal(row_keys(other, 5), row_keys(rows, 5))


def test_minus_zero_is_zero() -> None:
    rows = np.array([[0.0, 1.0], [2.0, 0.0]], dtype=np.float32)
    np.testing.assert_array_equal(row_keys(np.where(rows == 0, np.float32(-0.0), rows), 0), row_keys(rows, 0))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    whole = row_keys(rows, 5)
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", 4 * 6 * 7)
    np.testing.assert_array_equal(row_keys(rows, 5), whole)
    assert [len(rows[part]) for part in module.chunks(50, 24)] == [7] * 7 + [1]
    assert [len(rows[part]) for part in module.chunks(3, 10**9)] == [1] * 3


def test_keys_look_random_on_rows_that_do_not() -> None:
    # Small whole numbers: nearly all bits of the content are equal.
    rows = np.stack(np.meshgrid(np.arange(100), np.arange(100)), axis=-1).reshape(-1, 2).astype(np.float32)
    keys = row_keys(rows, 0)
    bits = np.unpackbits(keys.view(np.uint8)).reshape(-1, 64)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(rows))
    neighbours = np.unpackbits((keys[1:] ^ keys[:-1]).view(np.uint8)).reshape(-1, 64)
    assert np.abs(neighbours.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(rows))
    parts = np.bincount((uniform(keys) * 20).astype(int), minlength=20)
    assert ((parts - 500) ** 2 / 500).sum() < 50  # chi-squared with 19 degrees of freedom: p of about 1e-4


def test_numbered_keys_look_random_and_go_with_their_number() -> None:
    numbers = np.arange(10_000)
    order = np.random.default_rng(0).permutation(10_000)
    keys = number_keys(numbers, 0)
    np.testing.assert_array_equal(number_keys(numbers[order], 0), keys[order])
    assert len(np.unique(keys)) == 10_000
    parts = np.bincount((uniform(keys) * 20).astype(int), minlength=20)
    assert ((parts - 500) ** 2 / 500).sum() < 50  # chi-squared with 19 degrees of freedom: p of about 1e-4
    columns = [uniform(number_keys(numbers, seed)) for seed in range(3)]
    columns.append(np.roll(columns[0], 1))
    assert np.abs(np.corrcoef(columns) - np.eye(4)).max() < 0.05


def test_seeds_and_streams_are_unrelated() -> None:
    rows = np.random.default_rng(0).standard_normal((10_000, 4)).astype(np.float32)
    columns = [row_keys(rows, 0), row_keys(rows, 1), *(rekey(row_keys(rows, 0), stream) for stream in range(3))]
    correlations = np.corrcoef([uniform(column) for column in columns]) - np.eye(len(columns))
    assert np.abs(correlations).max() < 0.05


def test_group_keys_depend_on_seed_and_stream_and_not_on_the_count() -> None:
    np.testing.assert_array_equal(group_keys(5, 1, 0), group_keys(9, 1, 0)[:5])
    assert len({tuple(group_keys(3, seed, stream)) for seed in range(3) for stream in range(3)}) == 9


def test_uniform_never_reaches_its_ends() -> None:
    ends = uniform(np.array([0, 2**64 - 1], dtype=np.uint64))
    assert 0 < ends[0] < 1e-15
    assert 1 - 1e-15 < ends[1] < 1


@given(values=hnp.arrays(np.int64, st.integers(0, 20), elements=st.integers(0, 50)), count=st.integers(0, 25))
def test_smallest_are_the_head_of_the_sorted(values: NDArray[np.int64], count: int) -> None:
    found = smallest(values, count)
    assert values[found].tolist() == sorted(values.tolist())[:count]
    assert len(set(found.tolist())) == len(found)
