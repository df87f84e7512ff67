"""Arrays as an archive: pixels that are in memory already, or mapped into it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.errors import ArchiveError, BandError
from terrasieve.sensors import Band, Sensor

_COLUMNS: Mapping[str, pa.DataType] = {
    "geometry": pa.binary(),
    "time": pa.timestamp("us", "UTC"),
    "label": pa.string(),
    "split": pa.string(),
    "crs": pa.string(),
    "transform": pa.list_(pa.float64()),
}
"""Columns that every archive's table has beside the ids, and their types; see ``Archive.table``."""


class ArrayArchive(BaseArchive):
    """Samples of one sensor or several, each sensor an array.

    Args:
        pixels: By sensor key, ``(n, bands, height, width)`` in the unit of the sensor's bands. They are not copied: a
            memory map stays on the disk.
        sensors: What the pixels are, by the same keys.
        ids: Names of the samples, ``(n,)``, each once; their positions when None.
        columns: What else is known of each sample, such as ``label`` or ``time``: lists of ``n`` values.

    Raises:
        ArchiveError: An array has no four dimensions or holds no numbers, or the numbers of samples differ.
        BandError: An array has another number of bands than its sensor.
    """

    def __init__(
        self,
        pixels: Mapping[str, NDArray[Any]],
        sensors: Mapping[str, Sensor],
        ids: Sequence[str] | NDArray[np.str_] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self._sensors = {key: sensors[key] for key in pixels}
        self._pixels = {key: _checked(key, array, sensors[key]) for key, array in pixels.items()}
        counts = {key: len(array) for key, array in self._pixels.items()}
        if len(set(counts.values())) != 1:
            found = ", ".join(f"{count} of {key}" for key, count in counts.items())
            raise ArchiveError(f"A sample has pixels of every sensor, but the arrays hold {found or 'nothing'}.")
        count = next(iter(counts.values()))
        self._ids = np.arange(count).astype(np.str_) if ids is None else np.asarray(ids, dtype=np.str_)
        if self._ids.shape != (count,) or len(set(self._ids.tolist())) != count:
            raise ArchiveError(f"ids names each of the {count} samples once; it holds {len(self._ids)} names.")
        self._columns = dict(columns or {})
        if self._columns:
            _ = self._table  # values that do not fit are told now, and not in the middle of a run

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The sensors by key."""
        return self._sensors

    @property
    def ids(self) -> NDArray[np.str_]:
        """Names of the samples."""
        return self._ids

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance; ``fingerprint`` is of all pixels, which are read once for it."""
        return {"layout": "arrays", "root": None, "simulated": False, "fingerprint": self._fingerprint}

    def table(self) -> pa.Table:
        """Ids, and the columns that were given."""
        return self._table

    @cached_property
    def _table(self) -> pa.Table:
        return plain_table(self._ids, self._sensors, self._columns)

    @cached_property
    def _fingerprint(self) -> str:
        found = hashlib.sha256()
        for key, array in self._pixels.items():
            found.update(f"{key} {self._sensors[key].name} {array.dtype} {array.shape}".encode())
            for sample in array:
                found.update(np.ascontiguousarray(sample).data)
        return found.hexdigest()

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        height, width = self._pixels[sensor].shape[2:]
        return height, width

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        sample = self._pixels[sensor][index]
        top, left, height, width = window or (0, 0, *sample.shape[1:])
        return np.stack([sample[position, top : top + height, left : left + width] for position in positions])


def plain_table(ids: NDArray[np.str_], sensors: Mapping[str, Sensor], columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """The table of an archive without files, as ``Archive.table`` describes it: what nobody says is null.

    Args:
        ids: Names of the samples, ``(n,)``.
        sensors: The archive's sensors by key.
        columns: What is known of each sample: lists of ``n`` values by the name of the column.

    Raises:
        ArchiveError: A column has another length, or values that its name does not allow.
    """
    made: dict[str, pa.Array] = {"id": pa.array(ids.tolist(), pa.string())}
    for name, kind in _COLUMNS.items():
        made[name] = pa.nulls(len(ids), kind) if name not in columns else _column(name, columns[name], kind)
    made |= {f"asset:{key}": pa.nulls(len(ids), pa.string()) for key in sensors}
    made |= {name: _column(name, values, None) for name, values in columns.items() if name not in _COLUMNS}
    for name, values in made.items():
        if len(values) != len(ids):
            raise ArchiveError(f"Column {name!r} has {len(values)} values, but there are {len(ids)} samples.")
    return pa.table(made)


def unnamed_sensor(pixels: NDArray[Any]) -> Sensor:
    """A sensor for pixels of which nobody says what they are: bands ``1``, ``2`` and so on, of no unit.

    Args:
        pixels: ``(n, bands, height, width)``; integers may take every value of their type.

    Raises:
        ArchiveError: The array has not four dimensions, or holds no numbers.
    """
    _check_form("image", pixels)
    whole = np.iinfo(pixels.dtype) if pixels.dtype.kind in "ui" else None
    limits = (float(whole.min), float(whole.max)) if whole else (-1e30, 1e30)
    names = [str(number) for number in range(1, pixels.shape[1] + 1)]
    bands = tuple(Band(name=name, gsd=1, unit="dn", valid_range=limits) for name in names)
    return Sensor(name="unnamed", kind="optical", bands=bands)


def _check_form(key: str, array: NDArray[Any]) -> None:
    if array.ndim != 4 or array.dtype.kind not in "uif":
        raise ArchiveError(
            f"Pixels of {key!r} are numbers of shape (samples, bands, height, width), not {array.dtype} of shape "
            f"{array.shape}. One sample is array[None]; bands last become bands second by array.transpose(0, 3, 1, 2)."
        )


def _checked(key: str, array: NDArray[Any], sensor: Sensor) -> NDArray[Any]:
    _check_form(key, array)
    if array.shape[1] != len(sensor.bands):
        raise BandError(
            f"Pixels of {key!r} have {array.shape[1]} bands (the second axis of shape {array.shape}), but "
            f"{sensor.name} has {len(sensor.bands)}: {', '.join(sensor.names)}. Name the sensor that they are of, "
            "or give its bands in that order."
        )
    return array


def _column(name: str, values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    try:
        found = pa.array(values) if kind is None else pa.array(list(values), kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError) as error:
        raise ArchiveError(f"Column {name!r} cannot hold what it was given: {error}.") from error
    return found
