"""The encoder that is to be explained, with the samples and vectors that every explanation needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.archive.protocol import Archive
from terrasieve.draws import Positions, shuffled_members
from terrasieve.embeddings.inputs import EncoderInput, join
from terrasieve.embeddings.stream import EmbedSettings, device_of, prepare_batch, read_batches
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import Encoder
from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.probe import Labelled
from terrasieve.probes.results import InputRow
from terrasieve.probes.splits import Splits
from terrasieve.streams import Stream, generator
from terrasieve.views.normalise import Normaliser


@dataclass(frozen=True)
class Subject:
    """What is explained.

    Attributes:
        encoder: Stays as it is, on its device.
        archive: The labelled archive that pixels are read from.
        row: The bands that the encoder is shown, together or one by one.
        splits: Samples to learn from, to choose on, and to explain, with their classes.
        normaliser: Standardises pixels per band before the encoder sees them.
        settings: Size, batch size and precision.
        seed: Seed of every draw, and of the probe.
        train: Vectors of the train split, shape ``(n_train, members, features)``.
        val: Vectors of the validation split, shape ``(n_val, members, features)``.
        test: Vectors of the test split, shape ``(n_test, members, features)``.
    """

    encoder: Encoder
    archive: Archive
    row: InputRow
    splits: Splits
    normaliser: Normaliser
    settings: EmbedSettings
    seed: int
    train: NDArray[np.float32]
    val: NDArray[np.float32]
    test: NDArray[np.float32]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class codes of the test split, shape ``(n_test,)``."""
        return np.asarray(self.splits.labels[self.splits.test], dtype=np.int64)

    @cached_property
    def probe(self) -> LogisticProbe:
        """A logistic probe of the members' joined vectors; see :func:`fit_probe`."""
        return fit_probe(self, join(self.train), join(self.val))


def make_subject(
    encoder: Encoder,
    archive: Archive,
    row: InputRow,
    splits: Splits,
    normaliser: Normaliser,
    settings: EmbedSettings,
    seed: int,
    vectors: NDArray[np.float32],
) -> Subject:
    """Take the vectors of a labelled archive apart.

    Args:
        encoder: Stays as it is.
        archive: The labelled archive that pixels are read from.
        row: The bands that the encoder is shown, together or one by one.
        splits: The archive's samples and classes.
        normaliser: Standardises pixels per band before the encoder sees them.
        settings: Size, batch size and precision.
        seed: Seed of every draw, and of the probe.
        vectors: What the encoder says of the train, validation and test samples, in that order, shape
            ``(n, members, features)``.

    Raises:
        ConfigError: The target is not one of classes.
    """
    if not splits.classes or splits.labels.ndim != 1:
        raise ConfigError(
            "Explanations are of classes that exclude each other, and the target has none; choose one that does."
        )
    parts = np.split(vectors, np.cumsum([len(splits.train), len(splits.val)]))
    return Subject(encoder, archive, row, splits, normaliser, settings, seed, *parts)


def fit_probe(subject: Subject, train: NDArray[np.float32], val: NDArray[np.float32]) -> LogisticProbe:
    """A logistic probe of vectors ``(n, features)`` of the train and the validation split.

    Raises:
        ConfigError: They cannot be fitted, for example because there is one class only.
    """
    splits = subject.splits
    held = Labelled(val, splits.labels[splits.val]) if len(val) else None
    return LogisticProbe(seed=subject.seed).fit(train, splits.labels[splits.train], held)


def read_pixels(subject: Subject, shown: EncoderInput, indices: NDArray[np.int64], batch_size: int) -> Iterator[Tensor]:
    """Standardised pixels ``(n, bands, height, width)`` of samples on the encoder's device, batch by batch.

    Raises:
        SampleError: A sample cannot be read, or samples of a batch differ in size and no size is set.
    """
    settings = subject.settings.model_copy(update={"batch_size": batch_size})
    for batch in read_batches(subject.archive, [shown], indices, settings):
        yield prepare_batch(batch, [shown], subject.normaliser, settings.size, device_of(subject.encoder))[0]


# -------------------------------------------------------------------- choosing
# Which samples are shown.


def right_and_wrong(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], confidence: NDArray[np.float64], per_class: int, seed: int
) -> Positions:
    """Of each class a few that were recognised, drawn by a seed, then the most confidently mistaken.

    Args:
        labels: Class codes, shape ``(n,)``.
        predicted: What was predicted instead, shape ``(n,)``.
        confidence: Probability of the predicted class, shape ``(n,)``.
        per_class: Most samples of each kind of each class.
        seed: Of the draw of the recognised.

    Returns:
        Positions in ``labels``, in the order of the classes.
    """
    classes = np.unique(labels)
    recognised = shuffled_members(
        np.where(labels == predicted, labels, -1), classes, generator(Stream.EXPLAINED_SAMPLES, seed)
    )
    chosen = []
    for code, right in zip(classes, recognised, strict=True):
        wrong = np.flatnonzero((labels == code) & (predicted != code))
        chosen += [right[:per_class], wrong[np.argsort(-confidence[wrong], kind="stable")][:per_class]]
    return np.concatenate(chosen)
