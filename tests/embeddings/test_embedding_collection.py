"""An embedding file as a STAC collection: the required fields of the Embedding extension."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from terrasieve.embeddings import EmbedSettings, EncoderInput, write_embeddings
from terrasieve.embeddings.embedding_file import embedding_collection, write_collection
from terrasieve.errors import ArchiveError
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.views.render import Normaliser


@pytest.fixture
def vectors(
    tmp_path: Path, make_archive: Callable[..., Any], normaliser: Normaliser, encoder: Encoder, card: EncoderCard
) -> Path:
    settings = EmbedSettings(precision="32", batch_size=4)
    inputs = [EncoderInput.parse("s2:B03")]
    return write_embeddings(
        tmp_path / "v.parquet", encoder, card, make_archive(5), inputs, normaliser=normaliser, settings=settings
    )


def test_required_fields_are_there(vectors: Path, card: EncoderCard) -> None:
    found = embedding_collection(vectors, "CC-BY-4.0")
    dimensions = pq.read_schema(vectors).field("embedding").type.list_size
    assert {key: found[key] for key in ("type", "id", "emb:type", "data_type", "license")} == {
        "type": "Collection",
        "id": "v",
        "emb:type": "chip",
        "data_type": "float32",
        "license": "CC-BY-4.0",
    }
    assert found["emb:dimensions"] == dimensions > 0
    links = {link["rel"]: link["href"] for link in found["links"]}
    assert links == {"emb:model": f"urn:sha256:{card.weights_sha256}", "emb:source-data": "urn:terrasieve:n=5"}
    assert found["assets"]["embeddings"]["href"] == "./v.parquet"
    west, south, east, north = found["extent"]["spatial"]["bbox"][0]
    assert -60 <= west < east <= 61
    assert -60 <= south < north <= 61
    assert found["extent"]["temporal"]["interval"] == [[None, None]]


def test_it_is_written_beside_the_file(vectors: Path) -> None:
    path = write_collection(vectors)
    assert path.name == "v.parquet.collection.json"
    assert json.loads(path.read_text()) == embedding_collection(vectors)


def test_another_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "x.parquet")
    for path in (tmp_path / "x.parquet", tmp_path / "none.parquet"):
        with pytest.raises(ArchiveError, match=f"{path.name} holds no embeddings"):
            embedding_collection(path)
