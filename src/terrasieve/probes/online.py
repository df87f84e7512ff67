"""A quick kNN accuracy while training runs, on a fixed subset held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import measure
from terrasieve.embeddings.inputs import EncoderInput, bands_by_sensor, join
from terrasieve.embeddings.stream import EmbedSettings, embed_batch, inference_copy, read_batches
from terrasieve.probes.knn import KnnProbe
from terrasieve.probes.metrics import accuracy, confusion_matrix
from terrasieve.probes.splits import make_splits
from terrasieve.streams import Stream, generator
from terrasieve.views.render import Normaliser


class OnlineKnn:
    """kNN accuracy of the current encoder; leaves its mode, its layout and every random state as they are.

    The subset is drawn once; its pixels are read once and kept. The vectors of several inputs are joined.

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
        chosen = [_draw(splits.train, train, rng), _draw(splits.val, test, rng)]
        self._labels = [splits.labels[part] for part in chosen]
        statistics = measure(archive, sensors=list(bands_by_sensor(self.inputs)), indices=chosen[0])
        self._normaliser = Normaliser(archive.sensors, statistics)
        self._batches = [list(read_batches(archive, self.inputs, part, self.settings)) for part in chosen]

    def __call__(self, encoder: nn.Module) -> Mapping[str, float]:
        """The accuracy as ``{"knn_accuracy": 0 to 1}``, computed on the device that the encoder is on."""
        frozen = inference_copy(encoder, self.settings.precision)
        train, test = (
            join(
                np.concatenate([embed_batch(frozen, one, self.inputs, self._normaliser, self.settings) for one in part])
            )
            for part in self._batches
        )
        probe = KnnProbe().fit(train, self._labels[0])
        return {"knn_accuracy": float(accuracy(confusion_matrix(self._labels[1], probe.predict(test))))}


def _draw(indices: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(generator.permutation(indices)[:count])
