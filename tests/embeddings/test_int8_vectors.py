"""Vectors of 8 bits are float32 again when they are read, half a step off at most."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from terrasieve.console import console
from terrasieve.embeddings import EmbedSettings, EncoderInput, read_embeddings, write_embeddings
from terrasieve.embeddings.embedding_file import embedding_collection, write_table
from terrasieve.embeddings.quantising import MISSING, Int8Scales
from terrasieve.embeddings.vectors import open_vectors
from terrasieve.errors import ArchiveError, CurationError
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.views.render import Normaliser

INPUTS = [EncoderInput.parse("s2:B03"), EncoderInput.parse("s2:B02")]
MakeArchive = Callable[..., Any]
Rows = hnp.arrays(np.float32, (7, 3), elements=st.floats(-1e6, 1e6, width=32))


@given(Rows)
@example(np.full((7, 3), 4.504e-42, np.float32))
def test_a_number_is_at_most_half_a_step_off(rows: np.ndarray) -> None:
    scales = Int8Scales.measured([rows[:3], rows[3:]])
    codes = scales.encode(rows)
    assert codes.min() >= -127
    found = scales.decode(codes)
    assert found.dtype == np.float32
    assert (np.abs(found - rows) <= scales.scales * (0.5 + 1e-3)).all()


def test_what_is_missing_stays_missing() -> None:
    rows = np.array([[1, 2], [np.nan, np.nan], [-4, 0]], np.float32)
    scales = Int8Scales.measured([rows])
    codes = scales.encode(rows)
    assert (codes[1] == MISSING).all()
    assert np.array_equal(np.isnan(scales.decode(codes)), np.isnan(rows))
    there = rows[[0, 2]]
    wanted = np.linalg.norm(scales.decode(scales.encode(there)) - there) / np.linalg.norm(there)
    assert scales.error([rows[:1], rows[1:]]) == pytest.approx(wanted, rel=1e-5)


def test_scales_are_written_as_text_and_read_back_to_the_bit() -> None:
    scales = Int8Scales(np.random.default_rng(0).random(50).astype(np.float32) + 1e-9)
    facts = json.loads(json.dumps(scales.facts(0.01)))
    assert np.array_equal(Int8Scales.parse(facts, 50).scales, scales.scales)
    for wrong in ([0.0], [-1.0], [float("nan")], [1.0, 1.0]):
        with pytest.raises(ValueError, match="1 positive numbers"):
            Int8Scales.parse({"scales": wrong}, 1)


@pytest.fixture
def write(
    tmp_path: Path, make_archive: MakeArchive, normaliser: Normaliser, encoder: Encoder, card: EncoderCard
) -> Callable[..., Path]:
    archive = make_archive(40)

    def call(name: str, **more: Any) -> Path:
        settings = EmbedSettings(precision="32", batch_size=4)
        return write_embeddings(
            tmp_path / name, encoder, card, archive, INPUTS, normaliser, settings, rows_per_part=8, **more
        )

    return call


def test_a_quantised_file_reads_as_float_and_is_less_than_half_as_long(write: Callable[..., Path]) -> None:
    whole, small = write("whole.parquet"), write("small.parquet", quantise="int8")
    assert _vector_bytes(small) < 0.5 * _vector_bytes(whole)
    vectors = pq.read_schema(small).field("embedding").type
    assert (str(vectors.value_type), vectors.list_size) == ("int8", 1024)
    wanted, found = read_embeddings(whole), read_embeddings(small)
    assert found.ids.tolist() == wanted.ids.tolist()
    assert found.vectors.dtype == np.float32
    scales = Int8Scales.parse(found.provenance["quantization"], 1024)
    flat = wanted.vectors.reshape(40, -1)
    np.testing.assert_array_equal(found.vectors.reshape(40, -1), scales.decode(scales.encode(flat)))
    error = np.linalg.norm(found.vectors - wanted.vectors) / np.linalg.norm(wanted.vectors)
    assert found.provenance["quantization"]["relative_error"] == pytest.approx(error, rel=1e-4)
    assert error < 0.01
    assert embedding_collection(small)["data_type"] == "int8"
    assert embedding_collection(small)["emb:dimensions"] == 1024


def _vector_bytes(path: Path) -> int:
    facts = pq.ParquetFile(path).metadata
    groups = [facts.row_group(group) for group in range(facts.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(facts.num_columns)]
    return sum(one.total_compressed_size for one in columns if one.path_in_schema.startswith("embedding"))


def test_neighbours_are_nearly_those_of_float(write: Callable[..., Path]) -> None:
    wanted, found = read_embeddings(write("whole.parquet")), read_embeddings(write("small.parquet", quantise="int8"))
    same = [len({*wanted.nearest(row, 5)["id"]} & {*found.nearest(row, 5)["id"]}) / 5 for row in range(len(wanted))]
    assert np.mean(same) > 0.9
    np.testing.assert_allclose(found.nearest(0, 5)["similarity"], wanted.nearest(0, 5)["similarity"], atol=1e-3, rtol=0)


def test_curation_reads_the_same_vectors(write: Callable[..., Path], tmp_path: Path) -> None:
    small = write("small.parquet", quantise="int8")
    found = open_vectors(small, tmp_path)
    np.testing.assert_allclose(found.vectors, read_embeddings(small).joined, rtol=1e-6)


def test_a_table_that_was_quantised_is_written_as_float(write: Callable[..., Path], tmp_path: Path) -> None:
    table = read_embeddings(write("small.parquet", quantise="int8"))
    again = read_embeddings(write_table(tmp_path / "again.parquet", table))
    assert "quantization" not in again.provenance
    place = {name: row for row, name in enumerate(again.ids.tolist())}
    np.testing.assert_array_equal(again.vectors[[place[name] for name in table.ids.tolist()]], table.vectors)


def test_the_error_is_said(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    before, console.quiet = console.quiet, False
    try:
        write("small.parquet", quantise="int8")
    finally:
        console.quiet = before
    assert "of their length away from float32 (root mean square)" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("damage", [{}, {"scales": [1.0]}, {"scales": [0.0] * 1024}])
def test_scales_that_are_damaged_are_named(damage: dict[str, Any], write: Callable[..., Path], tmp_path: Path) -> None:
    path = write("small.parquet", quantise="int8")
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"emb"])
    facts["quantization"] = damage
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"emb": json.dumps(facts)}), path)
    with pytest.raises(ArchiveError, match=r"small\.parquet has damaged metadata"):
        read_embeddings(path)
    with pytest.raises(CurationError, match=r"small\.parquet has"):
        open_vectors(path, tmp_path)
