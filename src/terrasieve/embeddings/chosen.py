"""Some rows of a table of vectors as a file that goes on: trained on, curated, explored, searched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from terrasieve import __version__
from terrasieve.archive.footprints import write_geoparquet
from terrasieve.embeddings.table import EmbeddingTable
from terrasieve.errors import CurationError


def write_chosen(
    path: Path,
    table: EmbeddingTable,
    rows: NDArray[np.int64],
    how: Mapping[str, Any],
    columns: Mapping[str, ArrayLike] | None = None,
) -> Path:
    """Write samples with their vectors as GeoParquet, in the order given.

    It is a selection and a file of embeddings at once: ``pretrain --subset`` takes it by its ids, ``curate`` by its
    vectors, and :func:`terrasieve.embeddings.read_embeddings` reads it.

    Args:
        path: The file; replaced at once when all is written.
        table: The vectors that were chosen from.
        rows: Rows of the table, each once, shape ``(k,)``.
        how: JSON-able; says how they were chosen.
        columns: More columns by name, ``k`` values each, to stand behind ``id``, ``index`` and ``group``.

    Returns:
        ``path``.

    Raises:
        CurationError: No row is given.
        WriteError: The system refused it; a file that was there is untouched.
    """
    if not len(rows):
        raise CurationError(f"No sample is chosen, so {path} would name none. Choose one or more.")
    flat = table.vectors[rows].reshape(len(rows), -1)
    known = table.columns.take(pa.array(rows))
    made: dict[str, Any] = {
        "id": pa.array(table.ids[rows].tolist(), pa.string()),
        "index": rows,
        "group": np.zeros(len(rows), dtype=np.int64),
        **(columns or {}),
    }
    # Of a file that was itself chosen from another, such columns are there already, and speak of that one.
    made |= {name: known[name] for name in known.column_names if name not in made}
    made["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    facts = {"n": len(table), **how, "terrasieve": __version__}
    write_geoparquet(pa.table(made), path, {"emb": dict(table.provenance), "selection": facts})
    return path
