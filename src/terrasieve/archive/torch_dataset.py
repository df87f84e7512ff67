"""Between archives and the data sets of torch: either as the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from terrasieve.archive.in_memory import plain_table, unnamed_sensor
from terrasieve.archive.protocol import Archive, BaseArchive, Window
from terrasieve.errors import ArchiveError, BandError, SampleError
from terrasieve.sensors import Sensor

_IMAGE = "image"
"""Where torchgeo's samples, and ours, hold their pixels."""


class TorchSamples(Dataset[dict[str, Any]]):
    """The samples of an archive as a map-style data set.

    A sample is a dictionary: ``image``, float32 ``(bands, height, width)`` in the unit of the product; ``id``; and
    ``label``, the code of its class, where the archive has labels.

    Args:
        archive: The archive.
        sensor: Key of the sensor; the archive's first when None.
        bands: Names of its bands, in the order wanted; all when None.

    Attributes:
        classes: Names of the classes by code; empty where the archive has no labels.

    Raises:
        BandError: The sensor or a band is not in the archive.
    """

    def __init__(self, archive: Archive, sensor: str | None = None, bands: Sequence[str] | None = None) -> None:
        self.archive = archive
        self.sensor = next(iter(archive.sensors)) if sensor is None else sensor
        self.bands = None if bands is None else tuple(bands)
        if len(archive):
            archive.shape(0, self.sensor)
            archive.sensors[self.sensor].indices(self.bands or ())
        labels = archive.table()["label"].to_pylist()
        self.classes = tuple(sorted({label for label in labels if label is not None}))
        codes = {label: code for code, label in enumerate(self.classes)}
        self._codes = [codes.get(label, -1) for label in labels] if self.classes else []

    def __len__(self) -> int:
        return len(self.archive)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels = self.archive.read(index, self.sensor, self.bands)
        sample: dict[str, Any] = {
            _IMAGE: torch.from_numpy(pixels.astype(np.float32)),
            "id": str(self.archive.ids[index]),
        }
        return {**sample, "label": self._codes[index]} if self._codes else sample


class DatasetArchive(BaseArchive):
    """A map-style data set of torch's, or one of torchgeo's, as an archive; samples are read when they are asked for.

    An item may be the pixels themselves, pixels with a label as ``(pixels, label)``, or a dictionary with ``image``
    and perhaps ``label``. Labels are read from ``targets`` and ``classes`` where the data set has them, else from the
    items, all of which are loaded once for it.

    Args:
        dataset: The data set, with a length; every item is of the sensor's bands, shape ``(bands, height, width)``.
        sensor: What its pixels are; bands ``1``, ``2`` and so on, of no unit, when None.
        key: What the sensor is called in the archive; the first part of its name when None.

    Raises:
        ArchiveError: It has no length or no sample.
        BandError: Its first item has another number of bands than the sensor.
        SampleError: Its first item holds no pixels.
    """

    def __init__(self, dataset: Any, sensor: Sensor | None = None, key: str | None = None) -> None:
        if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
            raise ArchiveError(
                f"{type(dataset).__name__} has no length or no items, so that it cannot be read at random. Give a "
                "map-style data set; of torchgeo's, one that derives from NonGeoDataset."
            )
        if not len(dataset):
            raise ArchiveError(f"{type(dataset).__name__} is empty.")
        self._dataset: Any = dataset
        self._sensor = sensor or unnamed_sensor(pixels_of(dataset, 0)[None])
        self._key = key or self._sensor.key
        self._last: tuple[int, NDArray[Any]] | None = None
        _ = self._pixels(0)

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The one sensor, by the key that it was given."""
        return {self._key: self._sensor}

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """The positions in the data set, as text."""
        return np.arange(len(self)).astype(np.str_)

    @property
    def source(self) -> Mapping[str, Any]:
        """Name of the data set's class and number of its samples: nothing else is known of it."""
        return {"layout": f"torch {type(self._dataset).__name__}", "simulated": False, "samples": len(self)}

    def __len__(self) -> int:
        return len(self._dataset)

    def table(self) -> pa.Table:
        """Ids and labels; the rest is unknown."""
        return self._table

    @cached_property
    def _table(self) -> pa.Table:
        return plain_table(self.ids, self.sensors, {"label": self._labels()})

    def _labels(self) -> list[str | None]:
        found = getattr(self._dataset, "targets", None)
        if found is None:
            if _label_of(self._dataset[0]) is None:
                return [None] * len(self)
            found = [_label_of(self._dataset[index]) for index in range(len(self))]
        classes = getattr(self._dataset, "classes", None)
        codes = [label.item() if isinstance(label, (Tensor, np.generic)) else label for label in found]
        return [str(classes[code]) if classes and isinstance(code, int) else str(code) for code in codes]

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        height, width = self._pixels(index).shape[1:]
        return height, width

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        pixels = self._pixels(index)[list(positions)]
        if window is None:
            return pixels
        top, left, height, width = window
        return pixels[:, top : top + height, left : left + width].copy()

    def _pixels(self, index: int) -> NDArray[Any]:
        # Kept: the shape of a sample is asked for just before its pixels are.
        if self._last is None or self._last[0] != index:
            self._last = index, self._load(index)
        return self._last[1]

    def _load(self, index: int) -> NDArray[Any]:
        pixels = pixels_of(self._dataset, index)
        sensor = self._sensor
        if pixels.shape[0] != len(sensor.bands):
            raise BandError(
                f"Item {index} of {type(self._dataset).__name__} has {pixels.shape[0]} bands, but {sensor.name} has "
                f"{len(sensor.bands)}: {', '.join(sensor.names)}. Name the sensor and the bands that the items hold."
            )
        return pixels


def pixels_of(dataset: Any, index: int) -> NDArray[Any]:
    """Pixels of an item of a data set, ``(bands, height, width)``.

    Args:
        dataset: A map-style data set, whose items are pixels, or begin with them, or hold them as ``image``.
        index: Of the item, from 0.

    Raises:
        SampleError: The item holds none.
    """
    item = dataset[index]
    found = item.get(_IMAGE) if isinstance(item, Mapping) else item[0] if isinstance(item, (tuple, list)) else item
    pixels: NDArray[Any] = np.asarray(found) if hasattr(found, "__array__") else np.empty(0)
    if pixels.ndim != 3 or pixels.dtype.kind not in "uif":
        raise SampleError(
            f"Item {index} of {type(dataset).__name__} is {_named(item)}; pixels are numbers of shape (bands, height, "
            "width): the item itself, its first part, or `image` in it. Give the data set a transform that makes them, "
            "such as torchvision's ToImage for pictures."
        )
    return pixels


def _label_of(item: Any) -> Any:
    if isinstance(item, Mapping):
        return item.get("label")
    return item[1] if isinstance(item, (tuple, list)) and len(item) > 1 else None


def _named(item: Any) -> str:
    """What an item is, in a few words."""
    if isinstance(item, Mapping):
        return f"a dictionary of {', '.join(map(str, item))}"
    if isinstance(item, (tuple, list)):
        return f"{len(item)} parts, the first {_named(item[0])}" if len(item) else "nothing"
    shape = getattr(item, "shape", None)
    return f"{type(item).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")
