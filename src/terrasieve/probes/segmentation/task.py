"""What every model of a segmentation comparison shares: labels, folds, probes and how pixels are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from terrasieve.archive.protocol import Archive, source_name
from terrasieve.embeddings.stream import EmbedSettings
from terrasieve.models.dense import OUTPUT_STRIDE
from terrasieve.probes.metrics.segmentation import IGNORE, describe_bootstrap
from terrasieve.probes.segmentation.folds import Folds
from terrasieve.probes.segmentation.labels import LabelMaps, learnable, read_labels
from terrasieve.probes.segmentation.map_probe import SegmentationProbe
from terrasieve.probes.segmentation.patch import PatchLinear


@dataclass(frozen=True)
class SegmentationTask:
    """What every model of one comparison shares.

    Attributes:
        archive: Where pixels come from.
        labels: The label maps, with the classes that can be learnt.
        folds: Only images with a pixel that counts.
        probes: What is fitted on the maps of each model.
        settings: Size, batch size and precision, of which ``auto`` is float32 on the CPU.
        stride: Of a ResNet's maps.
        seed: Of the floor's weights.
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
        folds: From :func:`terrasieve.probes.segmentation.folds.make_folds`.
        probes: What to fit; :class:`PatchLinear` when None.
        ignore: Values of the label map that do not count.
        names: Name of each value of the label map.
        settings: Size, batch size and precision.
        stride: Of a ResNet's maps, in pixels.
        seed: Of everything drawn.

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
    source = archive.source
    kind = "SIMULATED data" if source.get("simulated") else "data"
    size = f"resized to {settings.size} px" if settings.size else "native size"
    tested = np.concatenate([fold.test for fold in folds.parts])
    trained = ", ".join(str(len(fold.train)) for fold in folds.parts)
    units = len(np.unique(folds.groups[tested]))
    return (
        f"{kind}: {source_name(source)}, {labels.sensor} of {len(labels.classes)} classes "
        f"({', '.join(labels.classes)}; left out: {', '.join(labels.left_out) or 'none'}), {size}, ResNet maps at "
        f"stride {stride}, {folds.origin}, fitted on {trained} and tested on {len(tested)} images in all, pixels "
        f"standardised per band on each fold's train images; {describe_bootstrap(units, folds.unit)}"
    )
