"""Vectors of any model, from a file, without holding them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from terrasieve.console import track
from terrasieve.embeddings.inputs import join
from terrasieve.embeddings.quantising import QUANTISED, Int8Scales
from terrasieve.errors import CurationError
from terrasieve.files.local_paths import local_path
from terrasieve.schema import parse_json

VECTORS = ("embedding", "embeddings")
"""Columns that hold vectors: ours, Major TOM's and Earth Index's; Clay's."""
NAMES = ("id", "unique_id")
"""Columns that hold names of samples: ours and Earth Index's; Major TOM's."""
_UNROLLED = "vectors.npy"
"""Name of the vectors of a Parquet file in the scratch folder."""


@dataclass(frozen=True)
class VectorFile:
    """The vectors of a file.

    Attributes:
        vectors: Floats of shape ``(n, d)``, mapped from a file.
        ids: Names of the samples, shape ``(n,)``; None where the file has none.
        labels: Classes of the samples, shape ``(n,)``, for diagnostics only; None where the file has none or not all.
    """

    vectors: NDArray[Any]
    ids: NDArray[np.str_] | None = None
    labels: NDArray[np.str_] | None = None


def open_vectors(path: Path, scratch: Path, unrolled: bool = False) -> VectorFile:
    """Map the vectors of a ``.npy`` file, or of a Parquet file, which is unrolled into a scratch file once.

    Half precision stays half precision: rows are converted as they are used, and the scratch file is half as large.
    Vectors of several inputs, which `terrasieve embed` writes side by side, are scaled to unit length one by one.

    Args:
        path: A ``.npy`` file of floats ``(n, d)``, or a Parquet file with a column of :data:`VECTORS`.
        scratch: A folder for the unrolled vectors; the caller removes it when done with them.
        unrolled: Whether they lie there already, from a call before.

    Raises:
        CurationError: The file cannot be read, or holds no table of vectors of one length.
    """
    if path.suffix == ".npy":
        return VectorFile(_mapped(path))
    try:
        with pq.ParquetFile(local_path(path)) as file:
            return _unrolled(path, file, scratch, unrolled)
    except (OSError, pa.ArrowInvalid) as error:
        raise CurationError(
            f"{path} cannot be read as vectors: {error}. Give a .npy file, or Parquet as `terrasieve embed` writes it."
        ) from error


def map_unrolled(path: Path, scratch: Path) -> NDArray[Any]:
    """The vectors alone of a file that :func:`open_vectors` has unrolled before.

    Raises:
        CurationError: They are not there any more.
    """
    return _mapped(path if path.suffix == ".npy" else scratch / _UNROLLED)


def _mapped(path: Path) -> NDArray[Any]:
    try:
        vectors: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CurationError(f"{path} cannot be read as a numpy array: {error}.") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.size:
        raise CurationError(
            f"{path} holds {vectors.dtype} of shape {vectors.shape}; vectors are floats of shape (n, d)."
        )
    return vectors


def _unrolled(path: Path, file: pq.ParquetFile, scratch: Path, before: bool) -> VectorFile:
    names = file.schema_arrow.names
    column = next((name for name in VECTORS if name in names), None)
    if column is None or not file.metadata.num_rows:
        raise CurationError(
            f"{path} has no vectors: no column is called {' or '.join(VECTORS)}, or no row is there. It has "
            f"{', '.join(names)}."
        )
    name = next((name for name in NAMES if name in names), None)
    vectors = map_unrolled(path, scratch) if before else _unroll(path, file, column, scratch)
    return VectorFile(vectors, _texts(file, name), _texts(file, "label" if "label" in names else None))


def _unroll(path: Path, file: pq.ParquetFile, column: str, scratch: Path) -> NDArray[Any]:
    metadata = file.schema_arrow.metadata or {}
    parts = _parts(path, metadata[b"emb"]) if b"emb" in metadata else 1
    vectors: NDArray[Any] | None = None
    done = 0
    for batch in _batches(file, column):
        block = _table(path, batch[column], done)
        if block.dtype == np.int8:
            block = _scales(path, metadata, block.shape[1]).decode(block)
        if parts > 1:
            # Lengths of parts are not to be added up in half precision.
            block = join(block.astype(np.float32).reshape(len(block), parts, -1))
        if vectors is None:
            shape = (file.metadata.num_rows, block.shape[1])
            vectors = np.lib.format.open_memmap(scratch / _UNROLLED, mode="w+", dtype=block.dtype, shape=shape)
        if block.shape[1] != vectors.shape[1]:
            raise CurationError(
                f"{path}: row {done} has a vector of {block.shape[1]}, the first has {vectors.shape[1]}."
            )
        vectors[done : done + len(block)] = block
        done += len(block)
    assert vectors is not None
    return vectors


def _parts(path: Path, metadata: bytes) -> int:
    """Number of inputs whose vectors stand side by side."""
    try:
        return len(parse_json(metadata)["inputs"])
    except (ValueError, TypeError, LookupError) as error:
        raise CurationError(f"{path} has damaged metadata: {error!r}. Write it with `terrasieve embed`.") from error


def _scales(path: Path, metadata: Mapping[bytes, bytes], dimensions: int) -> Int8Scales:
    """What a step of each number of 8 bits is worth."""
    try:
        return Int8Scales.parse(parse_json(metadata[b"emb"])[QUANTISED], dimensions)
    except (ValueError, TypeError, LookupError) as error:
        raise CurationError(
            f"{path} has vectors of 8 bits and does not say what a step is worth: {error!r}. Write it with "
            "`terrasieve embed --quantise int8`."
        ) from error


def _texts(file: pq.ParquetFile, column: str | None) -> NDArray[np.str_] | None:
    values = file.read([column])[column] if column else None
    return None if values is None or values.null_count else np.array(values.to_pylist(), dtype=np.str_)


def _batches(file: pq.ParquetFile, column: str) -> Iterator[pa.RecordBatch]:
    size = 8192
    batches = file.iter_batches(batch_size=size, columns=[column])
    return track(batches, "read vectors (batches)", total=-(-file.metadata.num_rows // size))


def _table(path: Path, column: pa.Array, row: int) -> NDArray[Any]:
    """The vectors of a batch of rows, which are lists of one length, in single or half precision, or of 8 bits."""
    lengths = pc.unique(pc.fill_null(pc.list_value_length(column), 0)).to_pylist()
    if len(lengths) != 1 or 0 in lengths:
        raise CurationError(
            f"{path}: from row {row} on, vectors are missing or of several lengths: {sorted(lengths)[:5]}. Embed again."
        )
    # flatten, unlike .values, leaves out rows before a slice's beginning.
    flat = column.flatten().to_numpy(zero_copy_only=False)
    stored = flat.dtype if flat.dtype in (np.float16, np.int8) else np.float32
    return np.asarray(flat, dtype=stored).reshape(len(column), -1)
