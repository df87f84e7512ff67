"""Archives of ready-cut patches: a listing of what there is, and for each sensor a reader of its files.

A layout on disk is then a scan that fills a :class:`Listing`, and a choice of readers; everything else is said here,
also where a split comes from: drawn with a fixed seed where none is published, or read from lists of names.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.folders import NotTaken, count_data, kind_of
from terrasieve.archive.footprints import corners, outlines_in_systems
from terrasieve.archive.patches.labels import class_names
from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.archive.quality.limits import Rejection
from terrasieve.archive.readers.geotiff import Header
from terrasieve.archive.readers.patch_reader import PatchReader
from terrasieve.draws import shuffled_members
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.processes.parallel import map_threads
from terrasieve.schema import Spec
from terrasieve.sensors import Sensor
from terrasieve.streams import Stream, generator

_TYPES: Mapping[str, pa.DataType] = {
    "label": pa.string(),
    "split": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
}

Column: TypeAlias = Sequence[Any] | pa.Array
"""One value a sample."""


@dataclass(frozen=True)
class Listing:
    """What a scan of a layout found.

    Attributes:
        ids: A stable, unique name of each sample.
        addresses: By key of the sensor, where the pixels of each sample are, as its reader understands it.
        columns: What is known of the samples: ``label``, ``split`` and ``time`` where they are published, and whatever
            else the layout says; one value a sample. What takes pixels to know is a function of no argument, which is
            called when the table is asked for; it has to be picklable.
        rejected: What was left out, and why.
        facts: JSON-able facts about the whole, for provenance.
        edges: Share of the pixels, from 0 to 1, that lie at the edges of scenes and in no sample.
    """

    ids: Sequence[str]
    addresses: Mapping[str, Sequence[str]]
    columns: Mapping[str, Column | Callable[[], Column]] = field(default_factory=dict)
    rejected: tuple[Rejection, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    edges: float = 0.0


class PatchesArchive(BaseArchive):
    """Patches with a reader for each sensor.

    Args:
        spec: How the archive is opened; has ``layout`` and ``root``.
        listing: Names and addresses of the samples, and what is known of them.
        readers: By key of the sensor; the listing has an address for each.

    Raises:
        ArchiveError: There is no sample, or two have one name.
    """

    _not_pickled = BaseArchive._not_pickled | {"_table"}

    def __init__(self, spec: Spec, listing: Listing, readers: Mapping[str, PatchReader]) -> None:
        self.spec = spec
        self.rejected = listing.rejected
        self._layout, self._root = str(spec.layout), Path(spec.root)  # type: ignore[attr-defined]  # every layout's
        self._listing = listing
        self._readers = dict(readers)
        _check(listing, f"{self._root} with the layout {self._layout}")

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The sensors by key."""
        return {key: reader.sensor for key, reader in self._readers.items()}

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """One name a sample."""
        return np.array(self._listing.ids)

    @property
    def not_taken(self) -> NotTaken:
        """Files below the root that may hold pixels, of other kinds than the samples' files."""
        firsts = ((reader, self._listing.addresses[key][0]) for key, reader in self._readers.items())
        # A product is a folder that is read, and its suffix a kind that is taken.
        taken = {kind_of(part) for reader, first in firsts for path in reader.files(first) for part in path.parts}
        found = count_data(self._root, taken) if self._root.is_dir() else NotTaken()
        return replace(found, edges=self._listing.edges)

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance; ``fingerprint`` covers each sample's name and the size of its first file in bytes."""
        return {
            "layout": self._layout,
            "root": str(self._root),
            "options": self.spec.model_dump(mode="json", exclude={"layout", "root"}),
            "sensors": {key: sensor.name for key, sensor in self.sensors.items()},
            "rejected": len(self.rejected),
            **self._listing.facts,
            "simulated": False,
            "fingerprint": self._fingerprint,
        }

    def __len__(self) -> int:
        return len(self._listing.ids)

    def files(self, indices: NDArray[np.int64]) -> Iterable[str]:
        """The files of all sensors of the samples; of a scene or store that many are cut from, once for each."""
        for key, reader in self._readers.items():
            addresses = self._listing.addresses[key]
            for index in indices.tolist():
                yield from map(os.fspath, reader.files(addresses[index]))

    def column(self, name: str) -> Column:
        """What the layout publishes of each sample under a name, without looking where the samples lie.

        Raises:
            KeyError: It publishes no such thing.
        """
        found = self._listing.columns[name]
        return found() if callable(found) else found

    def stated_offsets(self, key: str) -> list[float]:
        """The offset that the file of each sample states for a sensor; 0 where it states none, or cannot be read.

        Args:
            key: A key of ``sensors``.
        """
        reader, addresses = self._readers[key], self._listing.addresses[key]
        headers = map_threads(partial(_header_if_readable, reader), addresses, f"Headers of {self._root.name}")
        return [header.offset if header is not None else 0.0 for header in headers]

    def table(self) -> pa.Table:
        """See ``Archive.table``; with every column that the layout publishes."""
        return self._table

    @cached_property
    def _table(self) -> pa.Table:
        key, reader = next(iter(self._readers.items()))
        addresses, title = self._listing.addresses[key], f"Headers of {self._root.name}"
        # An unreadable file says nothing here; whoever reads its pixels is told why.
        headers = map_threads(partial(_header_if_readable, reader), addresses, title)
        placed = [one if one is not None and one.crs else None for one in headers]
        known = {name: found() if callable(found) else found for name, found in self._listing.columns.items()}
        columns = {
            "id": pa.array(list(self._listing.ids), pa.string()),
            "geometry": pa.array(_outlines(placed), pa.binary()),
        }
        for name, kind in _TYPES.items():
            found = known.get(name)
            columns[name] = pa.nulls(len(self), kind) if found is None else pa.array(found, kind)
        columns["label"] = class_names(columns["label"])
        columns["crs"] = pa.array([one.crs if one else None for one in placed], pa.string())
        transforms = [list(one.transform) if one else None for one in placed]
        columns["transform"] = pa.array(transforms, pa.list_(pa.float64()))
        for key, reader in self._readers.items():
            addresses = self._listing.addresses[key]
            firsts = (next(iter(reader.files(one)), None) for one in addresses)  # none of what is in memory
            columns[f"asset:{key}"] = pa.array([None if one is None else str(one) for one in firsts], pa.string())
        columns |= {name: pa.array(found) for name, found in known.items() if name not in _TYPES}
        return pa.table(columns)

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return self._readers[sensor].shape(self._listing.addresses[sensor][index])

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        return self._readers[sensor].read(self._listing.addresses[sensor][index], positions, window)

    def _place(self) -> str:
        return str(self._root)  # ``source`` would look at every file for its fingerprint

    def _name(self, index: int, sensor: str) -> str:
        return f"sample {index} in {self._readers[sensor].files(self._listing.addresses[sensor][index])[0]}"

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self._layout.encode())
        for position, name in enumerate(self._listing.ids):
            digest.update(name.encode())
            for key, reader in self._readers.items():
                digest.update(b" %d" % _size(reader.files(self._listing.addresses[key][position])[0]))
        return digest.hexdigest()


def _check(listing: Listing, what: str) -> None:
    if not listing.ids:
        first = f" All {len(listing.rejected)} were left out: {listing.rejected[0].reason}" if listing.rejected else ""
        raise ArchiveError(f"{what} holds no sample.{first}")
    name, count = Counter(listing.ids).most_common(1)[0]
    if count > 1:
        raise ArchiveError(f"{what} holds {count} samples called {name!r}; keep one, or open a folder that has one.")


def _header_if_readable(reader: PatchReader, address: str) -> Header | None:
    try:
        return reader.header(address)
    except SampleError:
        return None


def _outlines(headers: Sequence[Header | None]) -> list[bytes | None]:
    """Outlines of what the files cover; None where nothing says where one lies."""
    found: list[bytes | None] = [None] * len(headers)
    placed = {index: header for index, header in enumerate(headers) if header is not None}
    if placed:
        boxes = np.array([(0, 0, header.height, header.width) for header in placed.values()])
        points = corners([header.transform for header in placed.values()], boxes)
        made = outlines_in_systems(points, [header.crs for header in placed.values()])
        for index, outline in zip(placed, made, strict=True):
            found[index] = outline
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        # A file that is lost changes the fingerprint, too.
        return -1


# ---------------------------------------------------------------- drawn splits

SEED = 0
"""Seed of every split that a layout draws, so that all users of a data set have the same one."""


def stratified_split(labels: Sequence[str], shares: Mapping[str, float], seed: int = SEED) -> list[str]:
    """A split in which every class has the same shares.

    Args:
        labels: The class of each sample, in an order that does not change.
        shares: Share of the samples by name of the part, in (0, 1]; they sum to 1.
        seed: The same seed draws the same split.

    Returns:
        The part of each sample.
    """
    rng = generator(Stream.ARCHIVE_SPLIT, seed)
    parts = np.empty(len(labels), dtype=object)
    array = np.asarray(labels)
    for members in shuffled_members(array, np.unique(array), rng):
        # Rounded ends, not lengths: no sample is left over or given twice.
        ends = [round(len(members) * end) for end in accumulate(shares.values())]
        for part, start, end in zip(shares, [0, *ends], ends, strict=False):
            parts[members[start:end]] = part
    return [str(part) for part in parts]


def grouped_split(groups: Sequence[str], shares: Mapping[str, float], seed: int = SEED) -> list[str]:
    """A split that keeps the samples of a group together; shares are met as nearly as whole groups allow.

    Args:
        groups: The group of each sample, such as the orbit that it was seen from.
        shares: Share of the samples by name of the part, in (0, 1]; they sum to 1.
        seed: The same seed draws the same split.

    Returns:
        The part of each sample.
    """
    names, codes, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = generator(Stream.ARCHIVE_SPLIT, seed).permutation(len(names))
    # Groups lie one after the other along the samples; each goes to the part in which its middle lies.
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    ends = np.array(list(accumulate(shares.values()))) * len(groups)
    part_of = np.empty(len(names), dtype=np.int64)
    part_of[order] = np.minimum(np.searchsorted(ends, middles), len(shares) - 1)
    parts = list(shares)
    return [parts[part] for part in part_of[codes].tolist()]


# ------------------------------------------------------------ published splits


def read_split_lists(folders: Iterable[Path], names: Mapping[str, str]) -> dict[str, str]:
    """The split by the stem of each file, from text files with a name a line.

    Args:
        folders: Where the lists are looked for; the first that has one counts.
        names: File name of the list of each split; a list may be absent.

    Raises:
        ArchiveError: A file is in two splits, or a list cannot be read.
    """
    places = list(folders)
    split_of: dict[str, str] = {}
    for split, name in names.items():
        path = next((place / name for place in places if (place / name).is_file()), None)
        for line in _lines(path) if path else ():
            stem = Path(line).stem
            if split_of.setdefault(stem, split) != split:
                raise ArchiveError(f"{path} lists {stem}, which is already in {split_of[stem]}; correct the lists.")
    return split_of


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} cannot be read as text: {error}. Fetch the file again, or remove it.") from error


def split_column(stems: Sequence[str], split_of: Mapping[str, str]) -> list[str | None]:
    """The split of each stem, None where it is not listed."""
    return [split_of.get(stem) for stem in stems]
