"""The packed store: a Zarr v3 group with one array ``(sample, band, y, x)`` for each sensor."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from pydantic import field_validator
from zarr.codecs import BytesCodec, Endian
from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata import ArrayV3Metadata

from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.packed.store import CATALOGUE, parse_manifest, zarrs_config
from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.archive.quality.suspicion import Suspicion
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.local_paths import local_path
from terrasieve.sensors import Sensor

Reader = Callable[[int, Window | None], NDArray[Any]]


class PackedSpec(ArchiveSpec):
    """A packed store.

    Attributes:
        root: Folder of the store, or a URL that fsspec understands.
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
    that a read touches only the bands and the window asked for. Any other store is read through zarr-python
    with the zarrs codec pipeline. ``read`` returns a copy, which the caller may change and which outlives the
    store. A pickled archive is its root only.

    Args:
        root: Folder of the store, or a URL that fsspec understands.

    Attributes:
        root: The same, as an absolute path or a URL.
        manifest: What the store says about itself.

    Raises:
        ArchiveError: It is not a packed store, or packing was not finished.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root) if "://" in str(root) else Path(root).resolve()
        self.spec = PackedSpec(root=self.root)
        group = _open_group(self.root)
        self.manifest = parse_manifest(group.attrs, self.root)
        self.statistics = self.manifest.statistics
        self.suspicions = tuple(Suspicion.parse(one) for one in self.manifest.suspicions)
        arrays = {key: _array(group, key, self.root) for key in self.manifest.sensors}
        self._sizes = {key: (array.shape[2], array.shape[3]) for key, array in arrays.items()}
        self._sources = {key: _source(array, key, self.root) for key, array in arrays.items()}
        self._readers: dict[tuple[str, tuple[int, ...]], Reader] = {}

    def __reduce__(self) -> tuple[type[PackedArchive], tuple[str | Path]]:
        return type(self), (self.root,)

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The sensors by key."""
        return self.manifest.sensors

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """Names of the samples, as in the archive that was packed."""
        return np.array(self.table()["id"].to_pylist(), dtype=np.str_)

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

    def __len__(self) -> int:
        return self.manifest.samples

    def table(self) -> pa.Table:
        """See ``Archive.table``; the assets are the files that were packed."""
        return _read_catalogue(self.root).drop_columns(["bbox"])

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return self._sizes[sensor]

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        reader = self._readers.get((sensor, positions))
        if reader is None:
            reader = self._readers[sensor, positions] = self._sources[sensor].reader(positions)
        return reader(index, window)


class _MappedChunks:
    """The chunk files of an uncompressed array, each mapped when it is first needed."""

    def __init__(self, folder: Path, chunk: tuple[int, ...], dtype: np.dtype[Any], samples: int) -> None:
        self._folder = folder
        self._chunk = chunk
        self._dtype = dtype
        self.samples = chunk[0]
        self.chunks: list[NDArray[Any] | None] = [None] * -(-samples // chunk[0])

    def reader(self, positions: Sequence[int]) -> Reader:
        """A function that reads these bands of a sample."""
        return _MappedBands(self, positions)

    def map(self, number: int) -> NDArray[Any]:
        """The pixels of one chunk, shape ``(samples, bands, height, width)``."""
        path = self._folder / "c" / str(number) / "0" / "0" / "0"
        expected = int(np.prod(self._chunk)) * self._dtype.itemsize
        try:
            found = path.stat().st_size
            if found != expected:
                raise SampleError(f"{path} has {found} bytes, its array needs {expected}. Pack the archive again.")
            mapped = np.memmap(path, self._dtype, "r", shape=self._chunk)
        except OSError as error:
            raise SampleError(f"{path} cannot be mapped: {error}. Pack the archive again.") from error
        # The base class: slicing np.memmap itself takes twice as long, for an attribute nobody asks for.
        chunk = self.chunks[number] = mapped.view(np.ndarray)
        return chunk


class _MappedBands:
    """Reads some bands from mapped chunks. Called once a view, so it does nothing that can be done before."""

    __slots__ = ("_bands", "_chunks", "_per_chunk", "_source")

    def __init__(self, source: _MappedChunks, positions: Sequence[int]) -> None:
        self._source = source
        self._chunks = source.chunks
        self._per_chunk = source.samples
        self._bands = _as_slice(positions)

    def __call__(self, index: int, window: Window | None) -> NDArray[Any]:
        number, row = divmod(index, self._per_chunk)
        chunk = self._chunks[number]
        # Two threads may map one chunk at once, which costs a moment and harms nothing: both maps show the file.
        if chunk is None:
            chunk = self._source.map(number)
        if window is None:
            return chunk[row, self._bands].copy()
        top, left, height, width = window
        return chunk[row, self._bands, top : top + height, left : left + width].copy()


class _ZarrArray:
    """An array that zarr decodes; opened anew in each process, as threads do not survive a fork."""

    def __init__(self, root: str | Path, key: str) -> None:
        self._root = root
        self._key = key
        self._process = -1
        self._opened: zarr.Array[ArrayV3Metadata] | None = None

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

    def _decode(self, index: int, bands: slice, rows: slice, columns: slice) -> NDArray[Any]:
        try:
            return np.asarray(self._array()[index, bands, rows, columns])
        except (OSError, ValueError, RuntimeError) as error:
            where = f"{self._root}, sensor {self._key!r}, sample {index}"
            raise SampleError(f"{where} cannot be decoded: {error}. Fetch or pack the store again.") from error

    def _array(self) -> zarr.Array[ArrayV3Metadata]:
        if self._opened is None or self._process != os.getpid():
            with zarr.config.set(zarrs_config()):
                self._opened = _array(_open_group(self._root), self._key, self._root)
            self._process = os.getpid()
        return self._opened


def _open_group(root: str | Path) -> zarr.Group:
    try:
        return zarr.open_group(root, mode="r", zarr_format=3)
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{root} is not a packed store: {error}. Make one with terrasieve pack.") from error


def _array(group: zarr.Group, key: str, root: str | Path) -> zarr.Array[ArrayV3Metadata]:
    array = group.get(key)
    if not isinstance(array, zarr.Array):
        raise ArchiveError(f"{root} declares a sensor {key!r} but has no array of that name; pack the archive again.")
    return array


def _source(array: zarr.Array[ArrayV3Metadata], key: str, root: str | Path) -> _MappedChunks | _ZarrArray:
    """Mapped where the chunks are plain little-endian files of whole samples, decoded by zarr elsewhere."""
    codecs = array.metadata.codecs if isinstance(array.metadata, ArrayV3Metadata) else ()
    # Plain: the bytes of the file are the pixels, with neither compression nor shards around them.
    plain = len(codecs) == 1 and isinstance(codecs[0], BytesCodec) and codecs[0].endian != Endian.big
    whole = array.chunks[1:] == array.shape[1:]
    if isinstance(root, Path) and plain and whole:
        return _MappedChunks(root / key, array.chunks, array.dtype.newbyteorder("<"), array.shape[0])
    return _ZarrArray(root, key)


def _read_catalogue(root: str | Path) -> pa.Table:
    try:
        if isinstance(root, Path):
            return pq.read_table(local_path(root / CATALOGUE))
        store_path = _open_group(root).store_path / CATALOGUE
        found = zarr.core.sync.sync(store_path.get(default_buffer_prototype()))
        if found is None:
            raise FileNotFoundError(CATALOGUE)
        return pq.read_table(io.BytesIO(found.to_bytes()))
    except (OSError, pa.ArrowInvalid) as error:
        raise ArchiveError(f"{root}/{CATALOGUE} cannot be read: {error}. Pack the archive again.") from error


def _as_slice(positions: Sequence[int]) -> slice | NDArray[np.intp]:
    """The positions as a slice where they are evenly spaced, which numpy copies fastest."""
    # One band alone is evenly spaced, too.
    steps = set(np.diff(positions).tolist()) or {1}
    step = steps.pop()
    if steps or step == 0:
        return np.array(positions, dtype=np.intp)
    # Backwards to position 0 there is no stop that a slice could name: -1 would mean the last.
    stop = positions[-1] + (1 if step > 0 else -1)
    return slice(positions[0], None if stop < 0 else stop, step)


def _runs(positions: Sequence[int]) -> Iterator[slice]:
    """Slices of neighbouring ascending positions, which zarr reads in one go."""
    start = previous = positions[0]
    for position in positions[1:]:
        if position != previous + 1:
            yield slice(start, previous + 1)
            start = position
        previous = position
    yield slice(start, previous + 1)
