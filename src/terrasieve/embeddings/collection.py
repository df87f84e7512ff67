"""An embedding file as a STAC collection of the Embedding extension.

Its required fields (https://github.com/stac-extensions/embedding): ``emb:type``, ``emb:dimensions``, ``data_type``,
``extent``, ``license``, and links ``emb:model`` and ``emb:source-data``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from terrasieve.archive.protocol import source_name
from terrasieve.archive.stac.publishing import collection_of
from terrasieve.errors import ArchiveError
from terrasieve.writing import write_text

SCHEMA = "https://stac-extensions.github.io/embedding/v1.0.0/schema.json"
ASSET = "embeddings"


def embedding_collection(path: Path, licence: str = "other") -> dict[str, Any]:
    """The collection that describes an embedding file.

    Args:
        path: The GeoParquet file, as :func:`terrasieve.embeddings.write_embeddings` writes it.
        licence: An SPDX identifier of the vectors, or ``other``.

    Raises:
        ArchiveError: The file does not exist, is damaged or holds no embeddings.
    """
    try:
        facts = json.loads((pq.read_schema(path).metadata or {})[b"emb"])
        table = pq.read_table(path, columns=["geometry", "time"])
        vectors = pq.read_schema(path).field("embedding").type
    except (OSError, KeyError, ValueError) as error:
        raise ArchiveError(f"{path} holds no embeddings: {error!r}. Write it with `terrasieve embed`.") from error
    model, source = facts["emb:model"], facts["emb:source-data"]
    described = collection_of(table, path.stem, licence)
    return {
        **described,
        "stac_extensions": [SCHEMA],
        "description": f"{len(table)} embeddings of {source_name(source)}",
        "emb:type": facts["emb:type"],
        "emb:dimensions": facts["emb:dimensions"],
        "data_type": {"float": "float32", "halffloat": "float16", "double": "float64"}[str(vectors.value_type)],
        "links": [
            # The extension wants links, and neither a model nor an archive need have an address: names stand for them.
            {
                "rel": "emb:model",
                "href": f"urn:sha256:{model['weights_sha256']}",
                "title": str(model["recipe"]),
            },
            {
                "rel": "emb:source-data",
                "href": f"urn:terrasieve:{source['fingerprint']}",
                "title": source_name(source),
            },
        ],
        "assets": {
            ASSET: {"href": f"./{path.name}", "type": "application/vnd.apache.parquet", "roles": ["data"]},
        },
    }


def write_collection(path: Path, licence: str = "other") -> Path:
    """Write the collection of an embedding file beside it, as ``<name>.collection.json``.

    Args:
        path: The GeoParquet file, as :func:`terrasieve.embeddings.write_embeddings` writes it.
        licence: An SPDX identifier of the vectors, or ``other``.

    Returns:
        The path of the collection.

    Raises:
        ArchiveError: The file does not exist, is damaged or holds no embeddings.
        WriteError: The collection cannot be written.
    """
    target = path.with_name(f"{path.name}.collection.json")
    return write_text(target, json.dumps(embedding_collection(path, licence), indent=2))
