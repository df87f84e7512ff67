"""The codecs by which Zarr arrays may be encoded: a foreign store's metadata is checked before any of it is decoded.

A codec is looked up by the name that the metadata says, and some of those that are installed with zarr run code that
lies in the chunks, such as numcodecs' ``pickle``. Those here do no more than arithmetic on bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.byte_limits import check_array_bytes
from terrasieve.schema import MOST_LEVELS, NestingError, parse_json

FORMAT_2 = frozenset(
    {
        *("blosc", "zstd", "zlib", "gzip", "lz4", "bz2", "lzma"),
        *("shuffle", "delta", "fixedscaleoffset", "vlen-utf8"),
        *("crc32", "crc32c", "adler32", "fletcher32"),
    }
)
"""Filters and compressors that an array of format 2 may name."""
FORMAT_3 = frozenset({"bytes", "transpose", "vlen-utf8", "blosc", "zstd", "gzip", "crc32c", "sharding_indexed"})
"""Codecs that an array of format 3 may name."""
METADATA = frozenset({".zarray", ".zgroup", ".zmetadata", "zarr.json"})
"""Names of the files that say how arrays are encoded."""
_LARGEST = 2**27
"""Bytes of one metadata file; the digests of a store's chunks take some hundred bytes a gigabyte."""


def parse_metadata(text: str | bytes, what: object) -> Mapping[str, Any]:
    """What a JSON file of a store says, as long as it is an object of no more than 64 levels.

    Args:
        text: Content of the file.
        what: The file, as errors name it.

    Raises:
        SampleError: It is no JSON, no object, or nested without end.
    """
    try:
        found = parse_json(text)
    except NestingError as error:
        raise FlawError(
            Problem.UNREADABLE, f"{what} has more than {MOST_LEVELS} levels of nesting; do not trust the store."
        ) from error
    except ValueError as error:
        raise FlawError(
            Problem.UNREADABLE, f"{what} is not valid JSON: {error}. Fetch or pack the store again."
        ) from error
    if not isinstance(found, dict):
        raise FlawError(Problem.UNREADABLE, f"{what} holds no JSON object. Fetch or pack the store again.")
    return found


def check_codecs(metadata: Mapping[str, Any], what: object) -> None:
    """Refuse metadata that names a codec which is not allowed, in whatever place.

    Args:
        metadata: Content of a metadata file, of an array or a group of either format; that of several in one, which is
            called consolidated, too.
        what: The file, as the error names it.

    Raises:
        SampleError: A codec is none of those allowed.
    """
    for codec, allowed in _codecs(metadata):
        name = codec.get("id", codec.get("name")) if isinstance(codec, Mapping) else codec
        if not isinstance(name, str) or name not in allowed:
            raise FlawError(
                Problem.UNREADABLE,
                f"{what} names the codec {name!r}, which is not read because it may run code or is unknown. Write the "
                f"store with one of {', '.join(sorted(allowed))}, and do not trust it if it comes from elsewhere.",
            )


def check_zip(path: Path) -> None:
    """Refuse a zipped store if any metadata file within, at any depth, names a codec that is not allowed.

    Args:
        path: The zip file.

    Raises:
        SampleError: It does, a metadata file is no JSON object or larger than 128 MiB, or any file is larger than a
            read may be.
        OSError: The file cannot be read.
        zipfile.BadZipFile: It is no zip file, or is damaged.
    """
    with zipfile.ZipFile(path) as opened:
        # Entries, not names: of two with one name both are looked at.
        for entry in opened.infolist():
            # A chunk is unzipped whole; what it claims, it cannot exceed.
            check_array_bytes(f"{path}/{entry.filename}", (entry.file_size,), 1)
            if entry.filename.rpartition("/")[2] in METADATA:
                what = f"{path}/{entry.filename}"
                if entry.file_size > _LARGEST:
                    raise FlawError(
                        Problem.UNREADABLE, f"{what} claims {entry.file_size:,} bytes; do not trust the store."
                    )
                check_codecs(parse_metadata(opened.read(entry), what), what)


def _codecs(metadata: object) -> Iterator[tuple[Any, frozenset[str]]]:
    """Every codec that the metadata of an array, a group or all within a group names, with those allowed there."""
    if not isinstance(metadata, Mapping):
        return
    if metadata.get("compressor") is not None:
        yield metadata["compressor"], FORMAT_2
    yield from ((one, FORMAT_2) for one in _listed(metadata.get("filters")))
    for one in (*_listed(metadata.get("codecs")), *_listed(metadata.get("index_codecs"))):
        yield one, FORMAT_3
        if isinstance(one, Mapping):
            yield from _codecs(one.get("configuration"))  # a shard's own codecs
    # No transformer of whole stores is known that is harmless, and none that anybody writes.
    yield from ((one, frozenset()) for one in _listed(metadata.get("storage_transformers")))
    # Consolidated: "metadata" of format 2, or of format 3 one level deeper, has the metadata of others by name.
    yield from _codecs(metadata.get("consolidated_metadata"))
    within = metadata.get("metadata")
    for one in within.values() if isinstance(within, Mapping) else ():
        yield from _codecs(one)


def _listed(value: Any) -> Iterable[Any]:
    """The members of a list; what should be a list and is none counts as a member, so that it is refused."""
    return value if isinstance(value, list) else [] if value is None else [value]
