"""The embedding of an archive in memory, and its provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import terrasieve
from terrasieve.archive.protocol import Archive
from terrasieve.embeddings.inputs import EncoderInput, resolve_inputs
from terrasieve.embeddings.stream import EmbedSettings, device_of, embed_vectors
from terrasieve.errors import ArchiveError
from terrasieve.local_paths import local_path
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.schema import parse_json
from terrasieve.views.render import Normaliser

COLUMNS = ("geometry", "time", "label", "split")
"""What is carried over from the archive's table, beside the id."""


@dataclass(frozen=True)
class EmbeddingTable:
    """Vectors of samples with what is known of each.

    Attributes:
        ids: Name of each sample, shape ``(n,)``.
        vectors: Float32, shape ``(n, inputs, features)``.
        inputs: What each group of vectors was made from.
        columns: ``geometry`` (WKB polygon in longitude and latitude), ``time``, and ``label`` and ``split``
            where the archive has any; n rows.
        provenance: The file metadata ``emb``; see :func:`provenance`.
    """

    ids: NDArray[np.str_]
    vectors: NDArray[np.float32]
    inputs: tuple[EncoderInput, ...]
    columns: pa.Table
    provenance: Mapping[str, Any]


def embed(
    encoder: Encoder,
    card: EncoderCard,
    archive: Archive,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: EmbedSettings | None = None,
    indices: NDArray[np.int64] | None = None,
) -> EmbeddingTable:
    """Embed samples into memory.

    Args:
        encoder: Runs on the device that it is on.
        card: What the encoder was trained with, which goes into the provenance.
        archive: Archive that the samples are read from.
        inputs: What the encoder is shown, each with as many bands as it has channels.
        normaliser: Standardises each band by its statistics before the encoder sees it.
        settings: Size, batch size and precision; the defaults when None.
        indices: Samples to embed, in this order; all when None.

    Raises:
        BandError: An input does not exist in the archive or does not fit the encoder.
        ConfigError: No input is given.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    settings = (settings or EmbedSettings()).on(device_of(encoder))
    resolved = resolve_inputs(inputs, archive.sensors, encoder.channels)
    order = np.arange(len(archive)) if indices is None else indices
    vectors = embed_vectors(encoder, archive, resolved, normaliser, settings, order, "embed")
    facts = provenance(card, archive, resolved, normaliser, settings)
    return with_columns(vectors, archive, resolved, order, facts)


def with_columns(
    vectors: NDArray[np.float32],
    archive: Archive,
    inputs: Sequence[EncoderInput],
    indices: NDArray[np.int64],
    facts: Mapping[str, Any],
) -> EmbeddingTable:
    """A table of vectors that are there already.

    Args:
        vectors: Of the samples in the order of ``indices``, shape ``(n, inputs, features)``.
        archive: Archive that the samples were read from.
        inputs: What the vectors were made from, resolved against the archive.
        indices: Indices of the samples in the archive, shape ``(n,)``.
        facts: What made the vectors, from :func:`provenance`; their length is added.
    """
    columns = sample_columns(archive.table()).take(pa.array(indices)).drop_columns(["id"])
    described = {**facts, "emb:dimensions": vectors.shape[1] * vectors.shape[2]}
    return EmbeddingTable(archive.ids[indices], vectors, tuple(inputs), columns, described)


def read_embeddings(path: str | Path) -> EmbeddingTable:
    """Read a file of :func:`terrasieve.embeddings.write_embeddings` into memory.

    Args:
        path: Path of the GeoParquet file.

    Raises:
        ArchiveError: The file does not exist, is damaged or holds no embeddings.
    """
    try:
        table = pq.read_table(local_path(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise ArchiveError(f"{path} cannot be read as Parquet: {error}. Write it with `terrasieve embed`.") from error
    metadata = table.schema.metadata or {}
    if b"emb" not in metadata or "embedding" not in table.column_names:
        raise ArchiveError(f"{path} has no embeddings with metadata 'emb'. Write it with `terrasieve embed`.")
    try:
        facts = parse_json(metadata[b"emb"])
        inputs = tuple(EncoderInput.parse(text) for text in facts["inputs"])
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ArchiveError(f"{path} has damaged metadata: {error!r}. Write it with `terrasieve embed`.") from error
    # The vectors of several inputs stand side by side in one list, those of the first input first.
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    ids = np.array(table["id"].to_pylist(), dtype=np.str_)
    columns = table.drop_columns(["id", "embedding", "bbox"]).replace_schema_metadata(None)
    return EmbeddingTable(ids, flat.reshape(len(table), len(inputs), -1), inputs, columns, facts)


def sample_columns(table: pa.Table) -> pa.Table:
    """``id`` and :data:`COLUMNS` of an archive's table; ``label`` and ``split`` only where any is known."""
    optional = {"label", "split"}
    kept = [
        name
        for name in ("id", *COLUMNS)
        if name in table.column_names and not (name in optional and table[name].null_count == len(table))
    ]
    return table.select(kept)


def provenance(
    card: EncoderCard,
    archive: Archive,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: EmbedSettings,
) -> dict[str, Any]:
    """What made an embedding, as the JSON object of the file metadata key ``emb``.

    The keys ``emb:type``, ``emb:model`` and ``emb:source-data`` are those of the STAC Embedding
    extension; ``emb:dimensions`` is added once the vectors are known.
    """
    # Of the card the most telling fields go in; the hash of all of it tells it from any other.
    card_json = card.model_dump_json()
    return {
        "emb:type": "chip",
        "emb:model": {
            "card_sha256": hashlib.sha256(card_json.encode()).hexdigest(),
            **card.model_dump(mode="json", include={"weights_sha256", "method", "recipe", "backbone", "provenance"}),
        },
        "emb:source-data": dict(archive.source),
        "inputs": [str(one) for one in inputs],
        "settings": settings.model_dump(mode="json"),
        "normalisation": _statistics_used(inputs, normaliser),
        "terrasieve": terrasieve.__version__,
    }


def _statistics_used(inputs: Sequence[EncoderInput], normaliser: Normaliser) -> dict[str, list[dict[str, Any]]]:
    used: dict[str, list[dict[str, Any]]] = {}
    wanted = {(one.sensor, band) for one in inputs for band in one.bands}
    for sensor, statistics in normaliser.statistics.items():
        rows = [one.model_dump(mode="json") for one in statistics if (sensor, one.band) in wanted]
        if rows:
            used[sensor] = rows
    return used
