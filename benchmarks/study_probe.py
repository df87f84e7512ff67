"""What the study measures of an encoder: kNN and linear accuracy on EuroSAT, class by class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from study_settings import Settings
from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import measure
from terrasieve.embeddings.inputs import EncoderInput, join
from terrasieve.embeddings.stream import (
    EmbedSettings,
    RawBatch,
    device_of,
    embed_batch,
    inference_copy,
    prepare_batch,
    read_batches,
)
from terrasieve.models.calibration import calibrated
from terrasieve.probes.knn import KnnProbe
from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.splits import make_splits
from terrasieve.views.render import Normaliser

BANDS = ("s2:B04", "s2:B03", "s2:B02")
"""What an encoder of one band is shown, one after the other; the vectors are joined."""
C_VALUES = (0.001, 0.01, 0.1)
"""Penalties of the linear probe: fewer and coarser than by default, as it is fitted in every measurement."""
CALIBRATION_BATCHES = 4
"""Batches of the labelled images, of 256 each, whose pixels give the statistics of batch normalisation."""


class StudyProbe:
    """Measures an encoder while it trains, on patches in their own size; pixels are read once and stay in memory.

    The probes learn from as many labelled images of each class of the train split. The linear probe chooses C on a
    tenth of them, so that no image that is scored is touched by it. The statistics of batch normalisation are measured
    anew on the labelled images' pixels: what a pool did to an encoder's weights is compared, not what it did to its
    running means.

    Args:
        archive: The labelled archive.
        groups: Names of the classes that are averaged over, by the name of their mean.
        settings: Of the study.
        record: A file with one JSON line per measurement.
    """

    def __init__(self, archive: Archive, groups: Mapping[str, Sequence[str]], settings: Settings, record: Path) -> None:
        splits = make_splits(archive.table())
        scored = {"val": [splits.val], "test": [splits.test], "both": [splits.val, splits.test]}[settings.split]
        drawn = draw_evenly(splits.labels, splits.train, settings.labels)
        # In an order without classes, so that the first batches can stand for all.
        train = np.random.default_rng(0).permutation(drawn)
        test = np.concatenate([draw_evenly(splits.labels, part, settings.scored) for part in scored])
        self._labels = (splits.labels[train], splits.labels[test])
        self._classes, self._groups = splits.classes, groups
        self._inputs = tuple(EncoderInput.parse(name).resolve(archive.sensors) for name in BANDS)
        self._normaliser = Normaliser(archive.sensors, measure(archive, indices=train))
        self._settings = EmbedSettings(precision=settings.precision)
        self._batches = [list(read_batches(archive, self._inputs, part, self._settings)) for part in (train, test)]
        self._record = record

    def __call__(self, encoder: nn.Module) -> Mapping[str, float]:
        """Measure, write the record, and give the run's log the kNN accuracy, averaged over all but the head."""
        frozen = [inference_copy(calibrated(encoder, self._pixels(encoder)), self._settings.precision)] * len(BANDS)
        train, scored = (np.concatenate([self._embed(frozen, batch) for batch in batches]) for batches in self._batches)
        measured = {
            name: score(probe.fit(train, self._labels[0]).predict(scored), self._labels[1], self._classes, self._groups)
            for name, probe in (("knn", KnnProbe()), ("linear", LogisticProbe(C_VALUES)))
        }
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(measured) + "\n")
        return {"knn_accuracy": measured["knn"]["macro"]}

    def _pixels(self, encoder: nn.Module) -> Iterator[Tensor]:
        """Labelled images, all bands together, on the encoder's device."""
        for batch in self._batches[0][:CALIBRATION_BATCHES]:
            yield torch.cat(prepare_batch(batch, self._inputs, self._normaliser, None, device_of(encoder)))

    def _embed(self, frozen: Sequence[nn.Module], batch: RawBatch) -> NDArray[np.float32]:
        return join(embed_batch(frozen, batch, self._inputs, self._normaliser, self._settings))


def draw_evenly(labels: NDArray[np.int64], indices: NDArray[np.int64], count: int | None) -> NDArray[np.int64]:
    """At most so many samples of each class, drawn alike in every run.

    Args:
        labels: Class codes of the whole archive, shape ``(n,)``.
        indices: Archive indices to draw from.
        count: Samples of a class; None takes all.

    Returns:
        Archive indices, ascending.
    """
    drawn = np.random.default_rng(0).permutation(indices)
    return np.sort(np.concatenate([drawn[labels[drawn] == code][:count] for code in np.unique(labels[indices])]))


def score(
    predicted: NDArray[np.int64],
    truth: NDArray[np.int64],
    classes: Sequence[str],
    groups: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Accuracy of each class, under ``classes``, and its plain mean over each group of classes.

    Args:
        predicted: Class codes, shape ``(n,)``.
        truth: The true ones; every class occurs.
        classes: Names of the classes by code.
        groups: Names of classes, by the name of their mean.
    """
    accuracy = {name: float(np.mean(predicted[truth == code] == code)) for code, name in enumerate(classes)}
    means = {group: round(float(np.mean([accuracy[name] for name in names])), 4) for group, names in groups.items()}
    return {**means, "classes": {name: round(value, 4) for name, value in accuracy.items()}}


def read_measurements(record: Path) -> list[dict[str, dict[str, Any]]]:
    """The measurements in order; one that a resumed run made again counts once."""
    lines = record.read_text(encoding="utf-8").splitlines()
    kept = [line for i, line in enumerate(lines) if i == 0 or line != lines[i - 1]]
    return [json.loads(line) for line in kept]
