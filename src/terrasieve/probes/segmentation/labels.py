"""Label maps: one class for every pixel of an image, read from a sensor that is a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.limits import missing
from terrasieve.console import track
from terrasieve.errors import ArchiveError, BandError, SampleError
from terrasieve.probes.metrics.segmentation import IGNORE
from terrasieve.probes.segmentation.folds import Folds
from terrasieve.sensors import Band, Sensor, find_sensor


@dataclass(frozen=True)
class LabelMaps:
    """The label maps of some samples of an archive.

    Attributes:
        sensor: Key of the sensor that they come from.
        indices: Samples of the archive, ascending, shape ``(n,)``.
        codes: Class codes, shape ``(n, height, width)``, int16; :data:`IGNORE` where a pixel does not count.
        classes: Name of each class; the code is the position.
        left_out: What does not count and why, for the protocol.
    """

    sensor: str
    indices: NDArray[np.int64]
    codes: NDArray[np.int16]
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def of(self, indices: NDArray[np.int64]) -> NDArray[np.int16]:
        """The maps of samples of the archive, shape ``(k, height, width)``."""
        return self.codes[np.searchsorted(self.indices, indices)]


def read_labels(
    archive: Archive,
    sensor: str,
    indices: NDArray[np.int64],
    ignore: Sequence[int] = (),
    names: Mapping[int, str] | None = None,
) -> LabelMaps:
    """Read label maps into memory; NaN and the sensor's nodata value never count.

    Args:
        archive: Has a sensor of kind ``map``.
        sensor: Its key, name or kind.
        indices: Samples to read, ascending.
        ignore: Further values that do not count.
        names: Name of each value; those of the archive's source, or the values themselves, when None.

    Raises:
        ArchiveError: Fewer than two classes are left.
        BandError: The sensor does not exist or is no map of classes.
        SampleError: A map cannot be read, or maps differ in size.
    """
    key, band = _label_band(archive.sensors, sensor)
    shown = track(indices.tolist(), "Reading labels", total=len(indices))
    maps = [archive.read(index, key, [band.name])[0] for index in shown]
    sizes = {one.shape for one in maps}
    if len(sizes) > 1:
        raise SampleError(f"Label maps of {key!r} differ in size, for example {sorted(sizes)[:2]}; tile them alike.")
    values = np.stack(maps)
    absent = missing(values, archive.sensors[key].nodata) | np.isin(values, list(ignore))
    kept = np.unique(values[~absent])
    codes = np.where(absent, IGNORE, np.searchsorted(kept, np.where(absent, kept[0] if kept.size else 0, values)))
    known = names if names is not None else dict(enumerate(archive.source.get("classes", ())))
    classes = tuple(known.get(int(value), str(int(value))) for value in kept)
    ignored = tuple(f"{known.get(value, value)} (ignored)" for value in ignore)
    return _checked(LabelMaps(key, np.asarray(indices), codes.astype(np.int16), classes, ignored))


def learnable(labels: LabelMaps, folds: Folds) -> LabelMaps:
    """Leave out the classes that no fold holds both in train and in test: they can be neither learnt nor measured.

    With sites held out one at a time these are the classes of a single site. Their pixels are ignored everywhere.

    Raises:
        ArchiveError: Fewer than two classes are left.
    """
    present = np.stack([(labels.codes == code).any(axis=(1, 2)) for code in range(len(labels.classes))], axis=1)
    both = np.zeros(len(labels.classes), dtype=bool)
    for fold in folds.parts:
        train, test = (present[np.searchsorted(labels.indices, part)].any(axis=0) for part in (fold.train, fold.test))
        both |= train & test
    renamed = np.append(np.where(both, np.cumsum(both) - 1, IGNORE), IGNORE)
    dropped = tuple(f"{labels.classes[code]} (never in train and test of one fold)" for code in np.flatnonzero(~both))
    kept = tuple(labels.classes[code] for code in np.flatnonzero(both))
    return _checked(
        # IGNORE is -1, so it finds the last entry.
        replace(
            labels,
            codes=renamed[labels.codes].astype(np.int16),
            classes=kept,
            left_out=(*labels.left_out, *dropped),
        )
    )


def _label_band(sensors: Mapping[str, Sensor], wanted: str) -> tuple[str, Band]:
    key = find_sensor(sensors, wanted)
    bands = [band for band in sensors[key].bands if band.unit == "class"]
    if sensors[key].kind != "map" or not bands:
        maps = ", ".join(name for name, sensor in sensors.items() if sensor.kind == "map") or "none"
        raise BandError(f"Sensor {key!r} is no map of classes, so it cannot be labels; the archive's maps: {maps}.")
    return key, bands[0]


def _checked(labels: LabelMaps) -> LabelMaps:
    if len(labels.classes) < 2:
        raise ArchiveError(
            f"The maps of {labels.sensor!r} hold {len(labels.classes)} class(es) to tell apart "
            f"({', '.join(labels.classes) or 'none'}); left out: {', '.join(labels.left_out) or 'nothing'}. "
            "Ignore fewer, or take an archive with more."
        )
    return labels
