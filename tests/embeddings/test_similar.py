"""Neighbours of a sample or a file, as a file that goes on and as pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from PIL import Image

from terrasieve.archive.selection import read_selection
from terrasieve.embeddings import EmbeddingTable, EmbedSettings, EncoderInput, embed, read_embeddings
from terrasieve.embeddings.chosen import write_chosen
from terrasieve.embeddings.query import find_query
from terrasieve.embeddings.similar import draw_similar, rows_in, similar_table, write_similar
from terrasieve.embeddings.vectors import open_vectors
from terrasieve.errors import ArchiveError, ConfigError, CurationError, SampleError
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard, load_encoder, save_encoder
from terrasieve.views.render import Normaliser


@pytest.fixture
def archive(make_archive: Callable[..., Any]) -> Any:
    return make_archive(12, unplaced=[3])


@pytest.fixture
def run(tmp_path: Path, encoder: Encoder, card: EncoderCard) -> Path:
    save_encoder(tmp_path / "run" / "encoder", encoder, card)
    return tmp_path / "run"


@pytest.fixture
def table(archive: Any, run: Path, normaliser: Normaliser) -> EmbeddingTable:
    encoder, card = load_encoder(run)
    settings = EmbedSettings(precision="32", batch_size=4)
    inputs = [EncoderInput.parse("s2:B03"), EncoderInput.parse("s2:B02")]
    return embed(encoder, card, archive, inputs, normaliser, settings)


def write_tiff(path: Path, pixels: np.ndarray) -> Path:
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype
    ) as written:
        written.write(pixels)
    return path


def test_the_file_is_selection_and_embeddings_at_once(table: EmbeddingTable, archive: Any, tmp_path: Path) -> None:
    query = find_query(table, "tile-7", None, "cpu")
    assert query == 7
    found = table.nearest(query, 5)
    out = write_similar(tmp_path / "s.parquet", table, found, "tile-7")
    unit = table.joined / np.linalg.norm(table.joined, axis=1, keepdims=True)
    expected = [row for row in np.argsort(-unit @ unit[7], kind="stable") if row != 7][:5]
    written = pq.read_table(out)
    assert written["id"].to_pylist() == [f"tile-{row}" for row in expected]
    assert written["rank"].to_pylist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(written["similarity"].to_numpy(), (unit @ unit[7])[expected], atol=1e-5)
    assert read_selection(out, archive).tolist() == sorted(expected)
    np.testing.assert_array_equal(read_embeddings(out).vectors, table.vectors[expected])
    vectors = open_vectors(out, tmp_path)
    np.testing.assert_allclose(vectors.vectors, table.joined[expected], rtol=1e-6)
    assert vectors.ids is not None
    assert "tile-7" in similar_table(found, "tile-7").title

    # What was chosen from it again has the columns once, and its own positions.
    again = write_chosen(tmp_path / "t.parquet", read_embeddings(out), np.array([4, 2]), {})
    assert pq.read_table(again)["index"].to_pylist() == [4, 2]
    with pytest.raises(CurationError, match="No sample is chosen"):
        write_chosen(tmp_path / "u.parquet", table, np.array([], dtype=np.int64), {})


@pytest.mark.parametrize("bands", [(0, 1, 2), (1, 2)], ids=["whole sensor", "what is shown"])
def test_a_file_is_embedded_as_the_samples_were(
    bands: tuple[int, ...], table: EmbeddingTable, archive: Any, run: Path, tmp_path: Path
) -> None:
    path = write_tiff(tmp_path / "query.tif", archive.pixels[4][list(bands)])
    query = find_query(table, str(path), run, "cpu")
    # Batches of another length add up in another order.
    np.testing.assert_allclose(query, table.joined[4], rtol=1e-4, atol=1e-6)
    best = table.nearest(query, 1).iloc[0]
    assert best["id"] == "tile-4"
    assert best["similarity"] == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_searched_for_is_refused(table: EmbeddingTable, run: Path, archive: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'tile-77' is no sample of the embeddings, and no file.*'tile-7'"):
        find_query(table, "tile-77", None, "cpu")
    path = write_tiff(tmp_path / "query.tif", archive.pixels[4])
    with pytest.raises(ConfigError, match="--encoder RUN"):
        find_query(table, str(path), None, "cpu")
    model = {**table.provenance["emb:model"], "weights_sha256": "1" * 64}
    with pytest.raises(ConfigError, match="is not the encoder that made the embeddings"):
        find_query(replace(table, provenance={**table.provenance, "emb:model": model}), str(path), run, "cpu")
    with pytest.raises(ConfigError, match="batch norms of these vectors"):
        find_query(replace(table, provenance={**table.provenance, "batch_norms": "measured"}), str(path), run, "cpu")
    with pytest.raises(SampleError, match="1 bands"):
        find_query(table, str(write_tiff(tmp_path / "grey.tif", archive.pixels[4][:1])), run, "cpu")


def test_the_contact_sheet_shows_the_query_first(table: EmbeddingTable, archive: Any, tmp_path: Path) -> None:
    found = table.nearest(2, 3)
    picture = draw_similar(archive, table, 2, found)
    titles = [axes.get_title(loc="left") for axes in picture.figure.axes]
    assert titles == ["tile-2", *found["id"]]
    assert Image.open(picture.save(tmp_path / "sheet.png")).size[0] > 100
    with pytest.raises(ArchiveError, match=r"does not hold 1 of 2 samples.*'absent'"):
        rows_in(archive, ["tile-1", "absent"])
