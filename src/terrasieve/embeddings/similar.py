"""The samples that are most alike to one: as a file, as a table to print, and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.names import positions_of
from terrasieve.archive.overview import draw_samples
from terrasieve.archive.protocol import Archive
from terrasieve.embeddings.chosen import write_chosen
from terrasieve.embeddings.table import EmbeddingTable
from terrasieve.errors import ArchiveError
from terrasieve.pictures import Picture
from terrasieve.tables import MISSING, Cell, Table, row_of


def write_similar(path: Path, table: EmbeddingTable, found: pd.DataFrame, asked: str) -> Path:
    """Write neighbours with their vectors, the most alike first; see :func:`write_chosen`.

    Args:
        path: The Parquet file.
        table: The vectors that were searched.
        found: Of :meth:`EmbeddingTable.nearest` for one query.
        asked: What was searched for, for the provenance.

    Raises:
        CurationError: Nothing was found.
        WriteError: The system refused it.
    """
    columns = {"rank": found["rank"].to_numpy(), "similarity": found["similarity"].to_numpy(dtype=np.float32)}
    return write_chosen(path, table, found["row"].to_numpy(dtype=np.int64), {"similar_to": asked}, columns)


def similar_table(found: pd.DataFrame, asked: str) -> Table:
    """The neighbours to print: rank, id, cosine and, where known, label and time."""
    known = [name for name in ("label", "time") if name in found.columns and found[name].notna().any()]
    rows = [
        row_of(str(one["rank"]), str(one["id"]), f"{one['similarity']:.3f}", *(_text(one[name]) for name in known))
        for one in found.to_dict("records")
    ]
    return Table(
        f"Most alike to {asked}", ("rank", "sample", "cosine", *known), tuple(rows), align="rlr" + "l" * len(known)
    )


def draw_similar(archive: Archive, table: EmbeddingTable, query: object, found: pd.DataFrame) -> Picture:
    """The sample that was asked for, where it is one of the table, and its neighbours, in panels.

    Args:
        archive: The archive that the vectors were made of; samples are found by their id.
        table: The vectors that were searched.
        query: A row of the table, or the vector of something else, which is not drawn.
        found: Of :meth:`EmbeddingTable.nearest` for that query.

    Raises:
        ArchiveError: The archive does not hold one of the samples.
        SampleError: A sample cannot be read.
    """
    first = [query] if isinstance(query, int) else []
    return Picture(
        draw_samples(archive, rows_in(archive, table.ids[[*first, *found["row"]]]).tolist()),
        f"{len(found)} samples that are alike",
    )


def rows_in(archive: Archive, ids: NDArray[np.str_] | Sequence[str]) -> NDArray[np.int64]:
    """Where samples stand in an archive.

    Args:
        archive: Looked through by name.
        ids: Names of samples, ``(n,)``.

    Raises:
        ArchiveError: It does not hold one of them.
    """
    names = pa.chunked_array([pa.array(list(map(str, ids)), pa.string())])
    positions = positions_of(names, archive.ids)
    if len(unknown := np.flatnonzero(positions < 0)):
        raise ArchiveError(
            f"The archive does not hold {len(unknown):,} of {len(positions):,} samples of the embeddings, the first "
            f"{names[int(unknown[0])].as_py()!r}. Give --data the archive that was embedded."
        )
    return positions


def _text(value: Any) -> str | Cell:
    if pd.isna(value):
        return MISSING
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)
