"""The usual comparison in one call: an encoder, its own backbone untrained, and the pixels themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import measure
from terrasieve.console import progress_bar
from terrasieve.device import Precision
from terrasieve.embeddings.inputs import EncoderInput, bands_by_sensor
from terrasieve.embeddings.stream import EmbedSettings, device_of, prepare_batch, read_batches
from terrasieve.errors import ConfigError, nearest
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.probes.groups import warn_of_overlap
from terrasieve.probes.models import Candidate, Showing, check_names, showing, untrained
from terrasieve.probes.results import PER_PIXEL, InputRow, ProbeRow, data_set_of, default_inputs, distinct_members
from terrasieve.probes.segmentation.deeplab import DeepLabProbe
from terrasieve.probes.segmentation.folds import Fold, make_folds
from terrasieve.probes.segmentation.map_probe import (
    FeatureMaps,
    LabelledImages,
    PixelValues,
    SegmentationProbe,
    feature_maps,
)
from terrasieve.probes.segmentation.patch import PatchLinear
from terrasieve.probes.segmentation.pixel_metrics import pixel_confusion, score_units
from terrasieve.probes.segmentation.task import SegmentationTask, prepare_segmentation
from terrasieve.sensors import find_sensor
from terrasieve.views.render import Normaliser

# -------------------------------------------------------------------- evaluate
# Compare frozen encoders with their floors on label maps, with whole sites held out.


@dataclass(frozen=True)
class _Cell:
    """One model, shown one input, under one probe: one row of the result."""

    candidate: Candidate
    shown: Showing
    maps: FeatureMaps
    probe: SegmentationProbe
    precision: Precision


def evaluate_segmentation(
    candidates: Sequence[Candidate], inputs: Sequence[EncoderInput], task: SegmentationTask
) -> list[ProbeRow]:
    """Probe several models on the same folds.

    Pixels are standardised by statistics of each fold's train images, the same for every model.

    Args:
        candidates: Encoders, and :class:`PixelValues` as the floor; the first is the one in question.
        inputs: What each is shown, a line each.
        task: Labels, folds and probes, from :func:`prepare_segmentation`.

    Returns:
        Ordered by model, input and probe.

    Raises:
        BandError: An input does not exist or does not fit a candidate.
        ConfigError: Two candidates have the same name, or one gives no feature maps.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    check_names(candidates)
    cells = _cells(candidates, inputs, task)
    groups = np.unique(task.folds.groups)
    classes = len(task.labels.classes)
    # Of each cell, a confusion matrix for each group.
    tallies = np.zeros((len(cells), len(groups), classes, classes), dtype=np.int64)
    rows = list(dict.fromkeys(cell.shown.row for cell in cells))
    normalisers = [_normaliser(task, fold, rows) for fold in task.folds.parts]
    with progress_bar() as bar:
        bar.add_task("segment", total=len(cells) * len(task.folds.parts), note="")
        for number, (fold, normaliser) in enumerate(zip(task.folds.parts, normalisers, strict=True)):
            for row in rows:
                images = _read(task, fold, row, normaliser)
                for cell, tally in zip(cells, tallies, strict=True):
                    if cell.shown.row == row:
                        _measure(cell, tally, task, number, images, bar)
    return [_probe_row(cell, tally, task) for cell, tally in zip(cells, tallies, strict=True)]


def _cells(candidates: Sequence[Candidate], inputs: Sequence[EncoderInput], task: SegmentationTask) -> list[_Cell]:
    wanted = tuple(dict.fromkeys(one.resolve(task.archive.sensors) for one in inputs))
    cells = []
    for candidate in candidates:
        device = device_of(candidate.model)
        # Dilated convolutions have no fast bfloat16 kernel on the CPU: measured seven times slower than float32.
        is_slow = task.settings.precision == "auto" and device.type == "cpu"
        precision: Precision = "32" if is_slow else task.settings.on(device).precision
        shown = [showing(candidate, one, task.archive.sensors) for one in wanted]
        # One frozen copy of the model, and another where it stands behind a copying of the band.
        models = {type(one.model): one.model for one in shown}
        built = {kind: feature_maps(model, task.stride, precision) for kind, model in models.items()}
        cells += [
            _Cell(candidate, one, built[type(one.model)], probe, precision)
            for one in shown
            for probe in task.probes
            if probe.on_pixels or not isinstance(candidate.model, PixelValues)
        ]
    return cells


def _normaliser(task: SegmentationTask, fold: Fold, rows: Sequence[InputRow]) -> Normaliser:
    needed = list(bands_by_sensor(distinct_members(rows)))
    return Normaliser(task.archive.sensors, measure(task.archive, sensors=needed, indices=fold.train))


def _read(task: SegmentationTask, fold: Fold, row: InputRow, normaliser: Normaliser) -> tuple[Tensor, Tensor]:
    """Standardised train and test images of a fold, each ``(n, parts, channels, height, width)``."""
    parts = []
    for indices in (fold.train, fold.test):
        batches = read_batches(task.archive, row.members, indices, task.settings)
        shown = [
            torch.stack(prepare_batch(batch, row.members, normaliser, task.settings.size, torch.device("cpu")), dim=1)
            for batch in batches
        ]
        parts.append(torch.cat(shown))
    return parts[0], parts[1]


def _measure(
    cell: _Cell,
    tally: NDArray[np.int64],
    task: SegmentationTask,
    number: int,
    images: tuple[Tensor, Tensor],
    bar: Progress,
) -> None:
    """Fit one probe on a fold's train images, and add its predictions of the test images to the tally."""
    fold = task.folds.parts[number]
    what = f"fold {number + 1}/{len(task.folds.parts)} {cell.candidate.name} {cell.shown.row.name} {cell.probe.name}"

    def report(note: str) -> None:
        bar.update(bar.task_ids[0], note=f"{what}: {note}")

    train = LabelledImages(images[0], task.labels.of(fold.train), len(task.labels.classes))
    maps = cell.maps.measured(images[0], task.seed) if cell.candidate.calibrates else cell.maps
    probe = cell.probe.fit(maps, train, report)
    report("predict")
    truth = task.labels.of(fold.test)
    predicted = probe.predict(maps, images[1], (truth.shape[1], truth.shape[2]))
    places = np.searchsorted(np.unique(task.folds.groups), task.folds.groups[fold.test])
    for place, true, found in zip(places, truth, predicted, strict=True):
        tally[place] += pixel_confusion(true, found, len(task.labels.classes))
    bar.advance(bar.task_ids[0])


def _probe_row(cell: _Cell, tally: NDArray[np.int64], task: SegmentationTask) -> ProbeRow:
    score = score_units(tally)
    return ProbeRow(
        model=cell.candidate.name,
        inputs=cell.shown.row.name,
        sensor=cell.shown.row.sensor,
        bands=cell.shown.row.bands,
        probe=cell.probe.name,
        protocol=str(cell.probe.protocol.in_precision("feature maps", cell.precision)),
        data=task.data,
        metrics=score.metrics,
        ci95=score.ci95,
        chosen={},
        n_train=round(float(np.mean([len(fold.train) for fold in task.folds.parts]))),
        n_test=sum(len(fold.test) for fold in task.folds.parts),
        target=task.labels.sensor,
        task="segmentation",
        classes=task.labels.classes,
        confusion=score.confusion,
        seed=task.seed,
        note=cell.shown.note,
        is_floor=cell.candidate.is_floor,
        data_set=data_set_of(task.archive.source),
        simulated=bool(task.archive.source.get("simulated")),
    )


_PROBES = {"patch": PatchLinear, "deeplab": DeepLabProbe}


def segment(
    encoder: Encoder,
    card: EncoderCard,
    archive: Archive,
    label_sensor: str,
    inputs: Sequence[EncoderInput] | None = None,
    probes: Sequence[SegmentationProbe] | None = None,
    group: str | None = None,
    ignore: Sequence[int] = (),
    settings: EmbedSettings | None = None,
    seed: int = 0,
) -> list[ProbeRow]:
    """Probe an encoder and, always beside it, its own backbone untrained and the pixels themselves.

    Args:
        encoder: Runs on the device that it is on; left exactly as it is.
        card: The encoder's card, which names its recipe and backbone.
        archive: Has a sensor of kind ``map``.
        label_sensor: That sensor, by key, name or kind.
        inputs: What is shown, a line each; everything that the archive offers when None, as in
            :func:`terrasieve.probing.probe`.
        probes: What to fit; :class:`PatchLinear` when None.
        group: Column of the archive's table whose equal values are one site; see
            :func:`terrasieve.probes.segmentation.folds.make_folds`.
        ignore: Values of the label map that do not count.
        settings: Size, batch size and precision; the defaults when None.
        seed: Seed of the floor's weights and of everything drawn.

    Returns:
        Rows ordered by model (the encoder, then the floors), input and probe.

    Raises:
        ArchiveError: The labels or groups do not allow a comparison.
        BandError: A sensor or input does not exist, or an input does not fit the encoder.
        ConfigError: There is no such group column, or the encoder gives no feature maps.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    offered = inputs or default_inputs(archive.sensors, encoder.channels)
    key = find_sensor(archive.sensors, label_sensor)
    table = archive.table()
    folds = make_folds(table, key, group, seed)
    warn_of_overlap(folds.overlapping(table), "images", "train images", "--group COLUMN")
    task = prepare_segmentation(archive, key, folds, probes, ignore, settings=settings, seed=seed)
    return evaluate_segmentation(with_pixel_floor(encoder, card, seed), offered, task)


def with_pixel_floor(encoder: Encoder, card: EncoderCard, seed: int) -> tuple[Candidate, ...]:
    """A trained encoder, its own backbone untrained, and the pixels, whose bands are always joined."""
    return (
        Candidate(card.recipe, encoder, encoder.channels, calibrates=True),
        untrained(card.backbone, seed, device_of(encoder)),
        Candidate(PER_PIXEL, PixelValues(), 1, is_floor=True),
    )


def segmentation_probes_named(names: Sequence[str], seed: int = 0) -> tuple[SegmentationProbe, ...]:
    """Probes with their defaults by name, ``patch`` or ``deeplab``; ``patch`` where none is named.

    Raises:
        ConfigError: There is no such probe.
    """
    for name in names:
        if name.lower() not in _PROBES:
            raise ConfigError(f"There is no segmentation probe {name!r}.{nearest(name, _PROBES)}")
    return tuple(_PROBES[name](seed=seed) for name in dict.fromkeys(name.lower() for name in names or ("patch",)))
