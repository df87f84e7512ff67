"""The packed store: a Zarr v3 group with one array ``(sample, band, y, x)`` for each sensor."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from pydantic import field_validator
from zarr.abc.store import Store
from zarr.codecs import BytesCodec, Endian
from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata import ArrayV3Metadata

from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.names import names_from_arrow
from terrasieve.archive.packed.chunk_cache import ChunkCache
from terrasieve.archive.packed.far_chunks import CachedChunks, RangedChunks
from terrasieve.archive.packed.integrity import refuse_link
from terrasieve.archive.packed.mapped import MappedChunks
from terrasieve.archive.packed.samples_table import checked_catalogue
from terrasieve.archive.packed.store import GROUP, Manifest, chunk_path, parse_manifest, zarrs_config
from terrasieve.archive.packed.store_place import open_place
from terrasieve.archive.protocol import BaseArchive, Reader, Window
from terrasieve.archive.quality.suspicion import Suspicion
from terrasieve.archive.readers.byte_limits import check_array_bytes
from terrasieve.archive.readers.parquet import read_column, read_table
from terrasieve.archive.readers.zarr_codecs import check_codecs, parse_metadata
from terrasieve.console import console
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.files.object_store import ObjectFolder, is_address
from terrasieve.sensors import Sensor

_DAMAGED = (OSError, ValueError, TypeError, LookupError, AttributeError)
"""What zarr may raise where the metadata of a group or an array are not what it expects."""


class PackedSpec(ArchiveSpec):
    """A packed store.

    Attributes:
        root: Folder of the store, an address ``s3://BUCKET/NAME``, or another URL that fsspec understands.
    """

    layout: Literal["packed"] = "packed"
    root: Path | str

    @field_validator("root", mode="before")
    @classmethod
    def _path_or_url(cls, root: Path | str) -> Path | str:
        return str(root) if "://" in str(root) else Path(root)

    def anchored(self, folder: Path) -> Self:
        """See ``ArchiveSpec.anchored``; a URL is relative to nothing."""
        return self if isinstance(self.root, str) else super().anchored(folder)

    def open(self) -> PackedArchive:
        """The archive; see :class:`PackedArchive`."""
        return PackedArchive(self.root)


class PackedArchive(BaseArchive):
    """Samples of a packed store.

    A local store without compression is memory-mapped, chunk file by chunk file as they are first needed, so
    that a read touches only the bands and the window asked for. Any other local store is read through zarr-python
    with the zarrs codec pipeline. Of a store at an address chunks are kept in a cache, or, without one, the bands of
    a sample are fetched when they are read. ``read`` returns a copy, which the caller may change and which outlives
    the store. A pickled archive is its root and its cache only.

    Args:
        root: Folder of the store, an address ``s3://BUCKET/NAME``, or another URL that fsspec understands.
        cache: Where the chunks of a store that is far away are kept; of a local one it is not used.

    Attributes:
        root: The same, as an absolute path or a URL.
        manifest: What the store says about itself.

    Raises:
        ArchiveError: It is not a packed store, packing was not finished, or its parts do not fit together: codecs that
            may run code, arrays of another length than stated, a table of samples that is not the one packed.
        RemoteError: The address cannot be reached.
    """

    def __init__(self, root: str | Path, cache: ChunkCache | None = None) -> None:
        self.root = str(root) if "://" in str(root) else Path(root).resolve()
        self.spec = PackedSpec(root=self.root)
        self._cache = cache if isinstance(self.root, str) else None
        group, attributes = _open_group(self.root)
        self.manifest = parse_manifest(attributes, self.root)
        self.statistics = self.manifest.statistics
        self.suspicions = tuple(Suspicion.parse(one) for one in self.manifest.suspicions)
        arrays = {key: _array(group, key, self.root) for key in self.manifest.sensors}
        for key, array in arrays.items():
            _check_shape(array, key, self.manifest, self.root)
        if isinstance(self.root, Path):
            checked_catalogue(self.root, self.manifest)  # one that is far away is checked when it is asked for
        self._sizes = {key: (array.shape[2], array.shape[3]) for key, array in arrays.items()}
        self._sources = {
            key: _source(array, key, self.root, self.manifest.chunks[key], self._cache) for key, array in arrays.items()
        }
        if self._cache is not None:
            _say_what_does_not_fit(self._cache, sum(array.nbytes for array in arrays.values()), self.root)
        self._views: dict[tuple[str, tuple[str, ...] | None], Reader] = {}

    def __reduce__(self) -> tuple[type[PackedArchive], tuple[str | Path, ChunkCache | None]]:
        return type(self), (self.root, self._cache)

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The sensors by key."""
        return self.manifest.sensors

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """Names of the samples, as in the archive that was packed, as strings of variable width."""
        return names_from_arrow(read_column(checked_catalogue(self.root, self.manifest), "id"), len(self))

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance; ``packed_from`` is that of the archive that was packed."""
        return {
            "layout": "packed",
            "root": str(self.root),
            "sensors": {key: sensor.name for key, sensor in self.sensors.items()},
            "simulated": self.manifest.simulated,
            "fingerprint": self.manifest.fingerprint,
            "packed_from": dict(self.manifest.source),
        }

    @property
    def mapped(self) -> bool:
        """See ``Archive.mapped``: a store without compression is, a cached one, and one at an address."""
        return is_address(self.root) or all(isinstance(source, MappedChunks) for source in self._sources.values())

    def __len__(self) -> int:
        return self.manifest.samples

    def table(self) -> pa.Table:
        """See ``Archive.table``; the assets are the files that were packed."""
        return read_table(checked_catalogue(self.root, self.manifest)).drop_columns(["bbox"])

    def chunk(self, sensor: str, number: int) -> NDArray[Any]:
        """All pixels of a chunk file, without what pads the last one.

        Args:
            sensor: A key of ``sensors``.
            number: 0 to one less than the chunks that the manifest has digests of.

        Returns:
            Array of shape ``(samples, bands, height, width)``, not to be changed.

        Raises:
            SampleError: The chunk cannot be read.
        """
        return self._sources[sensor].chunk(number)

    def view(
        self, index: int, sensor: str, bands: Sequence[str] | None = None, window: Window | None = None
    ) -> NDArray[Any]:
        """See ``Archive.view``."""
        chosen = None if bands is None else tuple(bands)
        source = self._sources.get(sensor)
        if not isinstance(source, MappedChunks):
            return self.read(index, sensor, chosen, window)
        cut = self._views.get((sensor, chosen))
        if cut is None:
            cut = self._views[sensor, chosen] = source.reader(self._resolve(sensor, chosen), copied=False)
        return cut(index, window)

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return self._sizes[sensor]

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        return self._sources[sensor].reader(positions)(index, window)

    def _reader(self, sensor: str, positions: tuple[int, ...]) -> Reader:
        source = self._sources[sensor]
        return source.reader(positions) if isinstance(source, MappedChunks) else super()._reader(sensor, positions)


class _ZarrArray:
    """An array that zarr decodes; opened anew in each process, as threads do not survive a fork."""

    def __init__(self, root: str | Path, key: str) -> None:
        self._root = root
        self._key = key
        self._process = -1
        self._opened: zarr.Array[ArrayV3Metadata] | None = None
        self._own: set[Path] = set()

    def reader(self, positions: Sequence[int]) -> Reader:
        """A function that reads these bands of a sample."""
        runs = list(_runs(positions))

        def read(index: int, window: Window | None) -> NDArray[Any]:
            rows = columns = slice(None)
            if window is not None:
                top, left, height, width = window
                rows, columns = slice(top, top + height), slice(left, left + width)
            return np.concatenate([self._decode(index, run, rows, columns) for run in runs])

        return read

    def chunk(self, number: int) -> NDArray[Any]:
        """See ``PackedArchive.chunk``."""
        samples = _file_shape(self._array())[0]
        return self._decode(slice(number * samples, (number + 1) * samples), *(slice(None),) * 3)

    def _decode(self, samples: int | slice, bands: slice, rows: slice, columns: slice) -> NDArray[Any]:
        array = self._array()
        try:
            self._refuse_links(array, (samples, bands, rows, columns))
            return np.asarray(array[samples, bands, rows, columns])
        except (OSError, ValueError, RuntimeError) as error:
            where = f"{self._root}, sensor {self._key!r}, sample {samples}"
            raise SampleError(f"{where} cannot be decoded: {error}. Fetch or pack the store again.") from error

    def _refuse_links(self, array: zarr.Array[ArrayV3Metadata], part: tuple[int | slice, ...]) -> None:
        """Look at the files that a part is decoded from, each once."""
        if not isinstance(self._root, Path):
            return
        spans = []
        for chosen, length, step in zip(part, array.shape, _file_shape(array), strict=True):
            first, last, _ = (slice(chosen, chosen + 1) if isinstance(chosen, int) else chosen).indices(length)
            spans.append(range(first // step, -(-last // step)))
        for place in itertools.product(*spans):
            path = self._root / self._key / array.metadata.encode_chunk_key(place)
            if path not in self._own:
                refuse_link(path, self._root)
                self._own.add(path)

    def _array(self) -> zarr.Array[ArrayV3Metadata]:
        if self._opened is None or self._process != os.getpid():
            # The compiled pipeline would hold Python's lock while it waits for the net.
            with zarr.config.set({} if is_address(self._root) else zarrs_config()):
                self._opened = _array(_open_group(self._root)[0], self._key, self._root)
            self._process = os.getpid()
        return self._opened


def _open_group(root: str | Path) -> tuple[zarr.Group, Mapping[str, Any]]:
    """The group of a store and its attributes; nothing is parsed by zarr that was not checked before."""
    try:
        store = open_place(root)
        attributes = _checked(store, GROUP, root).get("attributes")
        # The arrays' own metadata, which is checked when they are opened, not the copy of it in that of the group.
        group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
    except _DAMAGED as error:
        raise ArchiveError(f"{root} is not a packed store: {error}. Make one with terrasieve pack.") from error
    return group, attributes if isinstance(attributes, Mapping) else {}


def _checked(store: Store, name: str, root: str | Path) -> Mapping[str, Any]:
    """Metadata that names no codec which might run code.

    Raises:
        ArchiveError: It does, or is damaged or absent.
    """
    found = zarr.core.sync.sync(store.get(name, default_buffer_prototype()))
    if found is None:
        raise ArchiveError(f"{root} is not a packed store: it has no {name}. Make one with terrasieve pack.")
    try:
        metadata = parse_metadata(found.to_bytes(), f"{root}/{name}")
        check_codecs(metadata, f"{root}/{name}")
    except SampleError as error:
        raise ArchiveError(str(error)) from error
    return metadata


def _array(group: zarr.Group, key: str, root: str | Path) -> zarr.Array[ArrayV3Metadata]:
    try:
        _checked(group.store, f"{key}/{GROUP}", root)
        array = group.get(key)
    except _DAMAGED as error:
        raise ArchiveError(f"{root}/{key}/{GROUP} is damaged: {error}. Fetch or pack the store again.") from error
    if not isinstance(array, zarr.Array):
        raise ArchiveError(f"{root} declares a sensor {key!r} but has no array of that name; pack the archive again.")
    return array


def _check_shape(array: zarr.Array[ArrayV3Metadata], key: str, manifest: Manifest, root: str | Path) -> None:
    bands = len(manifest.sensors[key].bands)
    if array.ndim != 4 or array.shape[:2] != (manifest.samples, bands):
        raise ArchiveError(
            f"{root} states {manifest.samples:,} samples of {bands} bands, its array {key!r} is of shape "
            f"{array.shape}. Fetch or pack the store again."
        )
    try:
        # What one sample takes, and what is decoded at once: a chunk, or the shard of it when the store is verified.
        for shape in (array.shape[1:], array.chunks, _file_shape(array)):
            check_array_bytes(f"{root}, array {key!r},", shape, array.dtype.itemsize)
    except SampleError as error:
        raise ArchiveError(str(error)) from error


def _file_shape(array: zarr.Array[ArrayV3Metadata]) -> tuple[int, ...]:
    """Samples, bands, rows and columns that one file holds: a chunk, or a shard of them."""
    return array.shards or array.chunks


def _source(
    array: zarr.Array[ArrayV3Metadata], key: str, root: str | Path, digests: Sequence[str], cache: ChunkCache | None
) -> MappedChunks | RangedChunks | _ZarrArray:
    """Mapped where the chunks are plain little-endian files of whole samples or cached, else decoded by zarr."""
    codecs = array.metadata.codecs if isinstance(array.metadata, ArrayV3Metadata) else ()
    # Plain: the bytes of the file are the pixels, with neither compression nor shards around them.
    plain = len(codecs) == 1 and isinstance(codecs[0], BytesCodec) and codecs[0].endian != Endian.big
    whole = array.chunks[1:] == array.shape[1:]
    described = key, _file_shape(array), array.dtype.newbyteorder("<"), array.shape[0]
    if isinstance(root, Path):
        return MappedChunks(root, *described) if plain and whole else _ZarrArray(root, key)
    far = RangedChunks(root, *described) if plain and whole and is_address(root) else _ZarrArray(root, key)
    if cache is not None and _file_shape(array)[1:] == array.shape[1:]:
        shards = is_address(root) and array.shards is not None
        fetch = partial(_fetch_shard, array, key, ObjectFolder(root)) if shards else far.chunk
        return CachedChunks(root, *described, digests, cache, fetch)
    return far


def _fetch_shard(array: zarr.Array[ArrayV3Metadata], key: str, folder: ObjectFolder, number: int) -> NDArray[Any]:
    """The pixels of a shard, fetched in one request and decoded in compiled code, which needs a local file."""
    name = chunk_path(key, number)
    described = array.metadata.to_buffer_dict(default_buffer_prototype())[GROUP].to_bytes()
    group = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}).encode()
    with TemporaryDirectory(prefix="terrasieve-") as made:
        local = Path(made).resolve()
        for part, content in ((GROUP, group), (f"{key}/{GROUP}", described), (name, folder.read(name))):
            # A shard of nothing but zeros is left out.
            if content is not None:
                (local / part).parent.mkdir(parents=True, exist_ok=True)
                (local / part).write_bytes(content)
        return _ZarrArray(local, key).chunk(number)


def _say_what_does_not_fit(cache: ChunkCache, needed: int, root: str | Path) -> None:
    if needed > cache.size:
        console.print(
            f"{cache.folder} may hold {cache.size / 1e9:,.2f} GB, and the pixels of {root} are {needed / 1e9:,.2f} GB: "
            "in each pass chunks are fetched anew. Allow more with --cache-size, or leave --cache out, so that samples "
            "are fetched one by one.",
            highlight=False,
        )


def _runs(positions: Sequence[int]) -> Iterator[slice]:
    """Slices of neighbouring ascending positions, which zarr reads in one go."""
    start = previous = positions[0]
    for position in positions[1:]:
        if position != previous + 1:
            yield slice(start, previous + 1)
            start = position
        previous = position
    yield slice(start, previous + 1)
