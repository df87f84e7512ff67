"""What every model of a segmentation comparison shares: labels, folds, probes and how pixels are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.limits import missing
from terrasieve.console import track
from terrasieve.embeddings.stream import EmbedSettings
from terrasieve.errors import ArchiveError, BandError, SampleError
from terrasieve.models.dense import OUTPUT_STRIDE
from terrasieve.probes.results import describe_source
from terrasieve.probes.segmentation.folds import Folds
from terrasieve.probes.segmentation.map_probe import SegmentationProbe
from terrasieve.probes.segmentation.patch import PatchLinear
from terrasieve.probes.segmentation.pixel_metrics import IGNORE, describe_bootstrap
from terrasieve.sensors import Band, Sensor, find_sensor


@dataclass(frozen=True)
class SegmentationTask:
    """What every model of one comparison shares.

    Attributes:
        archive: The archive that pixels and label maps are read from.
        labels: The label maps, with the classes that can be learnt.
        folds: Only images with a pixel that counts.
        probes: What is fitted on the maps of each model.
        settings: Size, batch size and precision, of which ``auto`` is float32 on the CPU.
        stride: Stride of a ResNet's maps in pixels of the image.
        seed: Seed of the floor's weights and of everything drawn.
        data: Archive, classes, folds and normalisation, in one line.
    """

    archive: Archive
    labels: LabelMaps
    folds: Folds
    probes: tuple[SegmentationProbe, ...]
    settings: EmbedSettings
    stride: int
    seed: int
    data: str


def prepare_segmentation(
    archive: Archive,
    label_sensor: str,
    folds: Folds,
    probes: Sequence[SegmentationProbe] | None = None,
    ignore: Sequence[int] = (),
    names: Mapping[int, str] | None = None,
    settings: EmbedSettings | None = None,
    stride: int = OUTPUT_STRIDE,
    seed: int = 0,
) -> SegmentationTask:
    """Read the labels and keep what can be learnt and scored; every model of a comparison shares it.

    Args:
        archive: Has a sensor of kind ``map``.
        label_sensor: That sensor, by key, name or kind.
        folds: What is fitted on and scored, from :func:`terrasieve.probes.segmentation.folds.make_folds`.
        probes: What to fit; :class:`PatchLinear` when None.
        ignore: Values of the label map that do not count.
        names: Name of each value of the label map.
        settings: Size, batch size and precision.
        stride: Stride of a ResNet's maps in pixels of the image.
        seed: Seed of everything drawn.

    Raises:
        ArchiveError: There are fewer than two classes.
        BandError: The label sensor does not exist or is no map.
        SampleError: A label map cannot be read.
    """
    settings = settings or EmbedSettings()
    labels = learnable(read_labels(archive, label_sensor, folds.used, ignore, names), folds)
    folds = _labelled_only(folds, labels, len(archive))
    chosen = tuple(probes or (PatchLinear(seed=seed),))
    data = _describe(archive, labels, folds, settings, stride)
    return SegmentationTask(archive, labels, folds, chosen, settings, stride, seed, data)


def _labelled_only(folds: Folds, labels: LabelMaps, samples: int) -> Folds:
    """Without the images that hold no pixel that counts, and without the folds that then test nothing."""
    kept = np.zeros(samples, dtype=bool)
    kept[labels.indices] = (labels.codes != IGNORE).any(axis=(1, 2))
    parts = tuple(fold.restricted(kept) for fold in folds.parts)
    return Folds(tuple(fold for fold in parts if len(fold.test)), folds.groups, folds.unit, folds.origin)


def _describe(archive: Archive, labels: LabelMaps, folds: Folds, settings: EmbedSettings, stride: int) -> str:
    size = f"resized to {settings.size} px" if settings.size else "native size"
    tested = np.concatenate([fold.test for fold in folds.parts])
    trained = ", ".join(str(len(fold.train)) for fold in folds.parts)
    units = len(np.unique(folds.groups[tested]))
    return (
        f"{describe_source(archive.source)}, {labels.sensor} of {len(labels.classes)} classes "
        f"({', '.join(labels.classes)}; left out: {', '.join(labels.left_out) or 'none'}), {size}, ResNet maps at "
        f"stride {stride}, {folds.origin}, fitted on {trained} and tested on {len(tested)} images in all, pixels "
        f"standardised per band on each fold's train images, batch norms of runs and random init measured there "
        f"per input; {describe_bootstrap(units, folds.unit)}"
    )


# ---------------------------------------------------------------------- labels
# One class for every pixel of an image, read from a sensor that is a map.


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
