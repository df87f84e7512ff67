"""Embed an archive: samples in, vectors with their provenance out."""

from __future__ import annotations

from terrasieve.embeddings.embedding_file import write_embeddings
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import EmbedSettings, embed_batches, normaliser_for
from terrasieve.embeddings.table import EmbeddingTable, embed, read_embeddings

__all__ = [
    "EmbedSettings",
    "EmbeddingTable",
    "EncoderInput",
    "embed",
    "embed_batches",
    "normaliser_for",
    "read_embeddings",
    "write_embeddings",
]
