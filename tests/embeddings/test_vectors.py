"""Vectors of any model from a file, mapped rather than loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from terrasieve.embeddings import vectors as module
from terrasieve.embeddings.vectors import open_vectors
from terrasieve.errors import CurationError

ROWS = np.random.default_rng(0).normal(size=(20_000, 6)).astype(np.float32)


def _parquet(path: Path, kind: Any = None, column: str = "embedding", metadata: Any = None, **columns: Any) -> Path:
    kind = kind or pa.list_(pa.float32())
    table = pa.table({column: pa.array(list(ROWS.astype(np.float64)), kind), **columns})
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=3000)
    return path


def test_numpy_files_are_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS.astype(np.float16))
    found = open_vectors(tmp_path / "rows.npy", tmp_path)
    assert isinstance(found.vectors, np.memmap)
    assert (found.ids, found.labels) == (None, None)
    np.testing.assert_array_equal(found.vectors, ROWS.astype(np.float16))


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float32(), 6)])
@pytest.mark.parametrize(("column", "name"), [("embedding", "id"), ("embedding", "unique_id"), ("embeddings", "id")])
def test_parquet_of_any_model_is_unrolled_in_batches(kind: Any, column: str, name: str, tmp_path: Path) -> None:
    ids = [f"s{i}" for i in range(len(ROWS))]
    found = open_vectors(_parquet(tmp_path / "rows.parquet", kind, column, **{name: ids}), tmp_path)
    assert isinstance(found.vectors, np.memmap)
    np.testing.assert_array_equal(found.vectors, ROWS)
    assert found.ids is not None
    assert found.ids.tolist() == ids


def test_vectors_of_several_inputs_weigh_alike(tmp_path: Path) -> None:
    metadata = {"emb": json.dumps({"inputs": ["s2:B03", "s1:VV"]})}
    found = open_vectors(_parquet(tmp_path / "rows.parquet", metadata=metadata), tmp_path)
    np.testing.assert_allclose(np.linalg.norm(found.vectors.reshape(-1, 2, 3), axis=2), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", [pa.list_(pa.float16()), pa.list_(pa.float16(), 6)])
def test_half_precision_is_unrolled_as_it_is(kind: Any, tmp_path: Path) -> None:
    halves = ROWS.astype(np.float16)
    for metadata, stored in ((None, np.float16), ({"emb": json.dumps({"inputs": ["s2:B03", "s1:VV"]})}, np.float32)):
        column = pa.array(list(halves), kind)
        table = pa.table({"embedding": column}).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "rows.parquet", row_group_size=3000)
        found = open_vectors(tmp_path / "rows.parquet", tmp_path).vectors
        assert (found.dtype, found.shape) == (stored, ROWS.shape)
        assert isinstance(found, np.memmap)
        if metadata is None:
            np.testing.assert_array_equal(found, halves)
        else:
            parts = halves.astype(np.float32).reshape(-1, 2, 3)
            expected = parts / np.linalg.norm(parts, axis=2, keepdims=True)
            np.testing.assert_allclose(found.reshape(-1, 2, 3), expected, rtol=1e-5)


def test_labels_are_read_where_every_sample_has_one(tmp_path: Path) -> None:
    labels = ["a", "b"] * 10_000
    found = open_vectors(_parquet(tmp_path / "rows.parquet", label=labels), tmp_path)
    assert found.labels is not None
    assert found.labels.tolist() == labels
    found = open_vectors(_parquet(tmp_path / "rows.parquet", label=[None, *labels[1:]]), tmp_path)
    assert found.labels is None


def test_memory_stays_that_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    table = module._table

    def note(path: Path, column: pa.Array, row: int) -> Any:
        nonlocal largest
        largest = max(largest, len(column))
        return table(path, column, row)

    monkeypatch.setattr(module, "_table", note)
    open_vectors(_parquet(tmp_path / "rows.parquet"), tmp_path)
    assert 0 < largest < len(ROWS)


def test_vectors_of_several_lengths_and_missing_ones_are_named_by_row(tmp_path: Path) -> None:
    for rows in ([[1.0, 2.0], [3.0]], [[1.0, 2.0], None], [[1.0, 2.0], []]):
        path = tmp_path / "rows.parquet"
        pq.write_table(pa.table({"embedding": pa.array(rows, pa.list_(pa.float32()))}), path)
        with pytest.raises(CurationError, match=r"rows\.parquet: from row 0 on, vectors are missing or of several"):
            open_vectors(path, tmp_path)


@pytest.mark.parametrize("rows", [np.arange(3.0), np.arange(6).reshape(3, 2), np.zeros((0, 3))])
def test_an_array_that_is_no_table_of_floats_is_refused(rows: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(CurationError, match=r"vectors are floats of shape \(n, d\)"):
        open_vectors(tmp_path / "rows.npy", tmp_path)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"geometry": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(CurationError, match=r"has no vectors.*It has geometry"):
        open_vectors(tmp_path / "other.parquet", tmp_path)
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(CurationError, match="cannot be read as vectors"):
        open_vectors(tmp_path / "text.parquet", tmp_path)
    with pytest.raises(CurationError, match="cannot be read as vectors"):
        open_vectors(tmp_path / "absent.parquet", tmp_path)
    np.save(tmp_path / "objects.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(CurationError, match="cannot be read as a numpy array"):
        open_vectors(tmp_path / "objects.npy", tmp_path)
