"""A quick kNN accuracy while training runs, on a fixed subset held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import measure
from terrasieve.embeddings.inputs import EncoderInput, bands_by_sensor, join
from terrasieve.embeddings.stream import (
    EmbedSettings,
    calibrated_on,
    calibration_batch,
    embed_batch,
    inference_copies,
    read_batches,
)
from terrasieve.probes.knn import KnnProbe
from terrasieve.probes.metrics import accuracy, confusion_matrix
from terrasieve.probes.splits import make_splits
from terrasieve.streams import Stream, generator
from terrasieve.views.render import Normaliser


class OnlineKnn:
    """kNN accuracy of the current encoder; leaves its mode, its layout and every random state as they are.

    The subset is drawn once; its pixels are read once and kept. Batch normalisation is measured on the train part, for
    each input. The vectors of several inputs are joined.

    Args:
        archive: The labelled archive that the subset is drawn from.
        inputs: What the encoder is shown, each with as many bands as it has channels.
        train: Most samples of the train split that are used.
        test: Most samples of the validation split that the accuracy is measured on; the test split is
            left for the probes, because this number is looked at while choices are made.
        settings: Size, batch size and precision; the defaults when None.
        seed: Draws the subset and whatever the split lacks.

    Raises:
        ArchiveError: The archive has no labels.
        BandError: An input does not exist in the archive.
    """

    def __init__(
        self,
        archive: Archive,
        inputs: Sequence[EncoderInput],
        train: int = 1000,
        test: int = 500,
        settings: EmbedSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.inputs = tuple(one.resolve(archive.sensors) for one in inputs)
        self.settings = settings or EmbedSettings()
        splits = make_splits(archive.table(), seed)
        rng = generator(Stream.ONLINE_PROBE, seed)
        # In the order of the draw, so that batches of the train part are alike in their statistics.
        chosen = [rng.permutation(splits.train)[:train], rng.permutation(splits.val)[:test]]
        self._labels = [splits.labels[part] for part in chosen]
        statistics = measure(archive, sensors=list(bands_by_sensor(self.inputs)), indices=chosen[0])
        self._normaliser = Normaliser(archive.sensors, statistics)
        equal = self.settings.model_copy(update={"batch_size": calibration_batch(len(chosen[0]))})
        self._batches = [list(read_batches(archive, self.inputs, part, equal)) for part in chosen]

    def __call__(self, encoder: nn.Module) -> Mapping[str, float]:
        """``knn_accuracy``, computed on the device that the encoder is on, and what it has to be read beside.

        That is ``knn_chance``, the accuracy of always naming the most frequent class, and ``knn_samples``, the number
        of samples that both are measured on.
        """
        calibrated = calibrated_on(encoder, self._batches[0], self.inputs, self._normaliser, self.settings)
        frozen = inference_copies(calibrated, self.settings.precision)
        train, test = (
            join(
                np.concatenate([embed_batch(frozen, one, self.inputs, self._normaliser, self.settings) for one in part])
            )
            for part in self._batches
        )
        probe = KnnProbe().fit(train, self._labels[0])
        truth = self._labels[1]
        return {
            "knn_accuracy": float(accuracy(confusion_matrix(truth, probe.predict(test)))),
            "knn_chance": float(np.bincount(truth).max() / len(truth)),
            "knn_samples": float(len(truth)),
        }
