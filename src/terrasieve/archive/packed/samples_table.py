"""The table of a packed store's samples: the one that was packed, or none."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.core.buffer import default_buffer_prototype

from terrasieve.archive.packed.integrity import digest_bytes, digest_file, refuse_link
from terrasieve.archive.packed.store import CATALOGUE, Manifest
from terrasieve.archive.packed.store_place import open_place
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.files.local_paths import local_path


def checked_catalogue(root: str | Path, manifest: Manifest) -> Path | bytes:
    """The file of the samples' table, or the content of one that is far away, when it is the one that was packed.

    Args:
        root: Folder of the store, or a URL that fsspec understands.
        manifest: What the store says about itself, among others of the table.

    Raises:
        ArchiveError: It is another, of another length, or cannot be read.
    """
    try:
        if isinstance(root, Path):
            refuse_link(root / CATALOGUE, root)
        content = root / CATALOGUE if isinstance(root, Path) else _remote_catalogue(root)
        rows = pq.read_metadata(local_path(content) if isinstance(content, Path) else io.BytesIO(content)).num_rows
        found = digest_file(content) if isinstance(content, Path) else digest_bytes(content)
    except (OSError, pa.ArrowInvalid, SampleError) as error:
        raise ArchiveError(f"{root}/{CATALOGUE} cannot be read: {error}. Pack the archive again.") from error
    # Rows that are lost or exchanged give pixels the labels and places of others.
    if rows != manifest.samples or manifest.catalogue not in (None, found):
        raise ArchiveError(
            f"{root}/{CATALOGUE} is not the table that was packed: it has {rows:,} rows for {manifest.samples:,} "
            "samples, or other values. Fetch or pack the store again."
        )
    return content


def _remote_catalogue(root: str) -> bytes:
    found = zarr.core.sync.sync(open_place(root).get(CATALOGUE, default_buffer_prototype()))
    if found is None:
        raise FileNotFoundError(CATALOGUE)
    return found.to_bytes()
