"""A file that names some samples of an archive, and how they were chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from terrasieve.archive.names import names_to_arrow, positions_of
from terrasieve.archive.protocol import Archive
from terrasieve.archive.readers.parquet import read_table
from terrasieve.distinct import distinct
from terrasieve.errors import CurationError
from terrasieve.files.writing import write_whole
from terrasieve.schema import parse_json


def write_selection(
    path: Path,
    indices: NDArray[np.int64],
    ids: NDArray[np.str_] | None,
    groups: NDArray[np.int64],
    provenance: Mapping[str, Any],
) -> Path:
    """Write a selection as Parquet: ``index``, ``id`` where known, and ``group``; its provenance as file metadata.

    Args:
        path: The file; replaced at once when all is written.
        indices: Positions of the samples in what they were chosen from, ``(k,)``.
        ids: Their names, ``(k,)``; None where they have none.
        groups: The cluster that each was drawn from, ``(k,)``.
        provenance: JSON-able; ``n`` is the number of samples that were chosen from.

    Raises:
        WriteError: The system refused it; a file that was there is untouched.
    """
    columns: dict[str, Any] = {"index": indices, "group": groups}
    if ids is not None:
        columns["id"] = names_to_arrow(ids)
    table = pa.table(columns).replace_schema_metadata({"selection": json.dumps(dict(provenance))})
    with write_whole(path) as partial:
        pq.write_table(table, partial, compression="zstd")
    return path


def read_selection(path: Path, archive: Archive) -> NDArray[np.int64]:
    """Positions in an archive of the samples that a selection names, ascending.

    Samples are found by name. A selection from vectors without names is taken by position, and must be of as many
    samples as the archive holds.

    Raises:
        CurationError: The file is no selection, or names samples that the archive does not hold.
    """
    table, facts = _read(path)
    if "id" in table.column_names:
        return _by_name(path, table["id"], archive)
    if facts.get("n") != len(archive):
        raise CurationError(
            f"{path} was chosen from {facts.get('n')} vectors without names, but the archive holds {len(archive)} "
            "samples. Select from the GeoParquet that `terrasieve embed` writes of this archive: it has names."
        )
    return np.sort(table["index"].to_numpy())


def _read(path: Path) -> tuple[pa.Table, Mapping[str, Any]]:
    try:
        table = read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise CurationError(
            f"{path} cannot be read as a selection: {error}. Write it with `terrasieve curate`."
        ) from error
    metadata = table.schema.metadata or {}
    if b"selection" not in metadata or "index" not in table.column_names or not len(table):
        raise CurationError(f"{path} names no samples. Write it with `terrasieve curate`.")
    try:
        facts = parse_json(metadata[b"selection"])
    except ValueError as error:
        raise CurationError(f"{path} has damaged metadata: {error}. Write it with `terrasieve curate`.") from error
    return table, facts if isinstance(facts, dict) else {}


def _by_name(path: Path, names: pa.ChunkedArray, archive: Archive) -> NDArray[np.int64]:
    positions = positions_of(names, archive.ids)
    unknown = np.flatnonzero(positions < 0)
    if len(unknown):
        raise CurationError(
            f"{path} names {len(unknown):,} of {len(names):,} samples that the archive does not hold, the first "
            f"{names[int(unknown[0])].as_py()!r}. Give the archive that the vectors were made from."
        )
    return distinct(positions)
