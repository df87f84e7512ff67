"""An archive whose Sentinel-2 samples are all without the offset of processing baseline 04.00."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.derived.wrapper import WrapperArchive
from terrasieve.archive.layout import ArchiveSpec, parse_spec
from terrasieve.archive.protocol import Archive, Window, source_place
from terrasieve.archive.quality import offset
from terrasieve.archive.quality.checks import PixelSummary
from terrasieve.archive.quality.offset import OFFSET, OffsetVerdict
from terrasieve.console import track
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.processes.parallel import map_processes

COLUMN = "offset_removed"
"""Column of the table: keys of the sensors from whose pixels of a sample the offset was subtracted."""


class HarmonisedSpec(ArchiveSpec):
    """An archive, and that the offset is to be subtracted from the samples that carry it.

    Attributes:
        archive: How the archive is opened, as it is written in YAML.
    """

    layout: Literal["harmonised"] = "harmonised"
    archive: Mapping[str, Any]

    def open(self) -> HarmonisedArchive:
        """The archive, harmonised anew: every sample of Sentinel-2 is read."""
        return harmonise(self.whole().open())

    def open_listed(self, rows: pa.Table) -> HarmonisedArchive:
        """The archive, less the offset where the catalogue says so."""
        return harmonise_as_listed(self.whole().open(), rows)

    def anchored(self, folder: Path) -> HarmonisedSpec:
        """The same with the relative paths of the archive within taken from a folder."""
        return HarmonisedSpec(archive=self.whole().anchored(folder).model_dump(mode="json"))

    def whole(self) -> ArchiveSpec:
        """The archive from which the offset is to be subtracted.

        Raises:
            ConfigError: ``archive`` does not describe one.
        """
        return parse_spec(self.archive, "archive")


class HarmonisedArchive(WrapperArchive):
    """The samples of an archive, less the offset of +1000 where they carry it.

    Missing pixels stay missing; what would fall below the lowest reflectance is clipped
    (:func:`terrasieve.archive.quality.offset.remove`). ``source`` says of how many samples it was subtracted, and
    the column ``offset_removed`` of the table from which of each.

    Args:
        archive: As it is on disk, with the offset where samples carry it.
        carriers: For each sensor that may carry the offset, which samples do, shape ``(n,)``.
        unsure: How many samples of each sensor are too bright to tell; they are left as they are.

    Raises:
        ArchiveError: It was harmonised before.
    """

    def __init__(
        self, archive: Archive, carriers: Mapping[str, NDArray[np.bool_]], unsure: Mapping[str, int] | None = None
    ) -> None:
        # Twice would take 2,000 from samples that carry 1,000.
        if COLUMN in archive.source or COLUMN in archive.source.get("packed_from", {}):
            raise ArchiveError(f"{source_place(archive.source)} is harmonised already; leave out --harmonise.")
        super().__init__(archive)
        self.carriers = dict(carriers)
        self.unsure = dict(unsure or {})
        self._lifted = {
            key: np.array([name in offset.offset_bands(archive.sensors[key]) for name in archive.sensors[key].names])
            for key in self.carriers
        }

    @cached_property
    def spec(self) -> HarmonisedSpec:
        """That of the archive within, and that the offset is to be subtracted; see ``Archive.spec``."""
        return HarmonisedSpec(archive=self.archive.spec.model_dump(mode="json"))

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance of the archive, with what was subtracted from how many samples of each sensor."""
        digest = hashlib.sha256(str(self.archive.source.get("fingerprint")).encode())
        for key, carry in sorted(self.carriers.items()):
            digest.update(key.encode() + np.packbits(carry).tobytes())
        done = {"value": OFFSET, "samples": {key: int(carry.sum()) for key, carry in self.carriers.items()}}
        return {**self.archive.source, COLUMN: done, "fingerprint": digest.hexdigest()}

    def table(self) -> pa.Table:
        """The archive's table with the column ``offset_removed``: a list of sensor keys."""
        columns = [np.where(carry, key, "") for key, carry in self.carriers.items()]
        removed = [[key for key in row if key] for row in zip(*columns, strict=True)] or [[]] * len(self)
        # What the products state was true of the pixels as they were.
        table = self.archive.table()
        table = table.drop_columns([name for name in (offset.STATED,) if name in table.column_names])
        return table.append_column(COLUMN, pa.array(removed, pa.list_(pa.string())))

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        pixels = super()._read(index, sensor, positions, window)
        if sensor not in self.carriers or not self.carriers[sensor][index]:
            return pixels
        return offset.remove(pixels, self._lifted[sensor][list(positions)], self.sensors[sensor].nodata)

    def summary(self) -> str:
        """What was done, in one line."""
        parts = []
        for key, carry in self.carriers.items():
            unsure = self.unsure.get(key, 0)
            left = f", {unsure:,} too bright to tell and left as they are" if unsure else ""
            parts.append(f"{int(carry.sum()):,} of {len(self):,} samples of {key}{left}")
        return f"The offset of {OFFSET:,} was subtracted from {'; '.join(parts) or 'nothing: no sensor can carry it'}."


def harmonise(archive: Archive, workers: int = 0) -> HarmonisedArchive:
    """Read every sample of the sensors that may carry the offset, and subtract it from those that do.

    A sample that cannot be read is left as it is; reading it will say why.

    Args:
        archive: As it is on disk, with the offset where samples carry it.
        workers: Reader processes; 0 reads in this one.

    Raises:
        ArchiveError: It was harmonised before.
    """
    keys = [key for key, sensor in archive.sensors.items() if offset.may_carry(sensor)]
    table = archive.table() if keys else None
    carriers, unsure = {}, {}
    for key in keys:
        with map_processes(partial(_judge, archive, key), range(len(archive)), workers) as found:
            verdicts = np.array(list(track(found, f"Looking for the offset in {key}", total=len(archive))), np.int8)
        # What one sample leaves open, others of its file may tell.
        settled = offset.settle(verdicts, table[f"asset:{key}"], _stated(table))  # type: ignore[index]  # there are keys
        carriers[key] = settled == OffsetVerdict.CARRIES
        unsure[key] = int((settled == OffsetVerdict.UNSURE).sum())
    return HarmonisedArchive(archive, carriers, unsure)


def harmonise_as_listed(archive: Archive, rows: pa.Table) -> HarmonisedArchive:
    """Subtract the offset from the samples that a catalogue names, without looking at their pixels again.

    Args:
        archive: As it is on disk. Samples that are not listed are left as they are.
        rows: Of the catalogue: ``id`` and ``offset_removed``.
    """
    # Catalogues of former versions list samples whose stated offset is now taken away when they are read.
    table = archive.table() if any(offset.may_carry(sensor) for sensor in archive.sensors.values()) else None
    stated = _stated(table)
    free = (
        set()
        if stated is None
        else {name for name, carries in zip(archive.ids.tolist(), stated.to_pylist(), strict=True) if carries is False}
    )
    removed = {
        name: keys
        for name, keys in zip(rows["id"].to_pylist(), rows[COLUMN].to_pylist(), strict=True)
        if keys and name not in free
    }
    names = archive.ids.tolist()
    keys = [key for key, sensor in archive.sensors.items() if offset.may_carry(sensor)]
    return HarmonisedArchive(
        archive, {key: np.array([key in removed.get(name, ()) for name in names], np.bool_) for key in keys}
    )


def _stated(table: pa.Table | None) -> pa.ChunkedArray | None:
    return table[offset.STATED] if table is not None and offset.STATED in table.column_names else None


def _judge(archive: Archive, key: str, index: int) -> int:
    sensor = archive.sensors[key]
    try:
        pixels = archive.read(index, key)
    except SampleError:
        return int(OffsetVerdict.UNSURE)
    return int(offset.judge(PixelSummary(pixels, sensor)))
