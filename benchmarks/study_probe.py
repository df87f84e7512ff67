"""What the study measures of an encoder: kNN and linear accuracy on balanced EuroSAT, head and tail classes apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import measure
from terrasieve.embeddings.inputs import EncoderInput, join
from terrasieve.embeddings.stream import EmbedSettings, embed_batch, inference_copy, read_batches
from terrasieve.probes.knn import KnnProbe
from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.splits import make_splits
from terrasieve.views.render import Normaliser

Split = Literal["val", "test"]

BANDS = ("s2:B04", "s2:B03", "s2:B02")
"""What an encoder of one band is shown, one after the other; the vectors are joined."""
THINNING = 2
"""The probes learn from every second sample of the train split, since they are fitted in every measurement."""
C_VALUES = (0.001, 0.01, 0.1)
"""Penalties of the linear probe: fewer and coarser than by default, as it is fitted in every measurement."""


class StudyProbe:
    """Measures an encoder while it trains, on patches in their own size; pixels are read once and stay in memory.

    The probes learn from half of the balanced train split of the labelled archive. The linear probe chooses C on a
    tenth of that, so that neither the validation nor the test split is touched by it.

    Args:
        archive: The labelled archive.
        tail: Names of the rare classes of the archive that is trained on; the others are its head.
        split: What is scored.
        record: A file with one JSON line per measurement.
    """

    def __init__(self, archive: Archive, tail: Sequence[str], split: Split, record: Path) -> None:
        splits = make_splits(archive.table())
        parts = (splits.train[::THINNING], splits.val if split == "val" else splits.test)
        self._labels = tuple(splits.labels[part] for part in parts)
        self._tail = np.isin(splits.classes, tail)
        self._inputs = tuple(EncoderInput.parse(name).resolve(archive.sensors) for name in BANDS)
        self._normaliser = Normaliser(archive.sensors, measure(archive, indices=splits.train))
        self._settings = EmbedSettings(precision="32")
        self._batches = [list(read_batches(archive, self._inputs, part, self._settings)) for part in parts]
        self._record = record

    def __call__(self, encoder: nn.Module) -> Mapping[str, float]:
        """Measure, write the record, and give the run's log the kNN accuracy over all classes."""
        frozen = inference_copy(encoder, self._settings.precision)
        train, scored = (np.concatenate([self._embed(frozen, batch) for batch in batches]) for batches in self._batches)
        measured = {
            name: self._score(probe.fit(train, self._labels[0]).predict(scored))
            for name, probe in (("knn", KnnProbe()), ("linear", LogisticProbe(C_VALUES)))
        }
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(measured) + "\n")
        return {"knn_accuracy": measured["knn"]["all"]}

    def _embed(self, frozen: nn.Module, batch: Any) -> NDArray[np.float32]:
        return join(embed_batch(frozen, batch, self._inputs, self._normaliser, self._settings))

    def _score(self, predicted: NDArray[np.int64]) -> dict[str, float]:
        """Accuracy over all classes, those of the head and those of the tail."""
        truth = self._labels[1]
        right, rare = predicted == truth, self._tail[truth]
        parts = {"all": right, "head": right[~rare], "tail": right[rare]}
        return {name: round(float(part.mean()), 4) for name, part in parts.items()}


def read_measurements(record: Path) -> list[dict[str, dict[str, float]]]:
    """The measurements in order; one that a resumed run made again counts once."""
    lines = record.read_text(encoding="utf-8").splitlines()
    kept = [line for i, line in enumerate(lines) if i == 0 or line != lines[i - 1]]
    return [json.loads(line) for line in kept]
