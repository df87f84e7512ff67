"""Which bands carry a class: what is lost when the samples' pixels of one band are exchanged.

Permutation importance (Breiman 2001, Random Forests, section 10), of each class's recall: a band's content is
shuffled between samples, so that it keeps its distribution and loses its relation to the class and to other bands.
Where bands say the same, each alone may seem unimportant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from terrasieve.console import track
from terrasieve.draws import stratified_sample
from terrasieve.embeddings.inputs import join
from terrasieve.embeddings.stream import device_of, inference_copy
from terrasieve.errors import ConfigError
from terrasieve.explain.record import BandAttribution
from terrasieve.explain.subject import Subject, read_pixels
from terrasieve.streams import Stream, generator

Content = NDArray[np.float32]
"""What each band gives to a prediction, shape ``(n, bands, ...)``: its pixels, or the vector that was made of them."""


@dataclass(frozen=True)
class BandImportance:
    """Loss of recall, -1 to 1, by class and band.

    Attributes:
        loss: Mean over the shuffles, shape ``(classes, bands)``; NaN for a class without samples.
        deviation: Standard deviation between shuffles, likewise.
    """

    loss: NDArray[np.float64]
    deviation: NDArray[np.float64]


def permutation_importance(
    predict: Callable[[Content], NDArray[np.int64]],
    content: Content,
    labels: NDArray[np.int64],
    classes: int,
    repeats: int,
    seed: int,
) -> BandImportance:
    """How much of each class's recall is lost when one band is shuffled between the samples.

    Args:
        predict: Gives class codes ``(n,)`` of content; nothing is fitted anew.
        content: Of samples that the predictor has not learnt from, shape ``(n, bands, ...)``; left as it is.
        labels: Their class codes, shape ``(n,)``.
        classes: Number of classes, of which the samples may lack some.
        repeats: Shuffles of each band, two or more.
        seed: Seed of the shuffles.
    """
    assert repeats > 1, "the deviation between shuffles needs two of them"
    whole = recalls(labels, predict(content), classes)
    rng = generator(Stream.SHUFFLED_BANDS, seed)
    bands = content.shape[1]
    lost = []
    for _, band in track(np.ndindex(repeats, bands), "shuffle bands", total=repeats * bands):
        shuffled = content.copy()
        shuffled[:, band] = content[rng.permutation(len(content)), band]
        lost.append(whole - recalls(labels, predict(shuffled), classes))
    by_repeat = np.reshape(lost, (repeats, bands, classes))
    return BandImportance(by_repeat.mean(axis=0).T, by_repeat.std(axis=0, ddof=1).T)


def recalls(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Share of each class's samples that are predicted as such, shape ``(classes,)``; NaN for one without samples."""
    counts = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[labels == predicted], minlength=classes)
    return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


# ----------------------------------------------------------------------- bands
# Which bands carry each class that an encoder tells apart.

SHUFFLED_SAMPLES = 512
"""About how many test samples at most are held as pixels in memory and embedded anew for each shuffle."""

SHUFFLES_OF_PIXELS, SHUFFLES_OF_VECTORS = 3, 10
"""Of each band; a shuffle of pixels passes the encoder, one of vectors the probe alone."""


class _Measured(NamedTuple):
    importance: BandImportance
    labels: NDArray[np.int64]
    shuffles: int
    what: str


def attribute_bands(subject: Subject) -> BandAttribution:
    """Permutation importance of each band, for each class that the test split has.

    Args:
        subject: What to explain; shown several bands, together or one by one.

    Raises:
        ConfigError: The encoder is shown one band only, or the probe cannot be fitted.
        SampleError: A sample cannot be read.
    """
    bands = tuple(f"{one.sensor}:{band}" for one in subject.row.members for band in one.bands)
    if len(bands) == 1:
        raise ConfigError(f"The encoder is shown {bands[0]} alone; name an input of several bands.")
    measured = _of_vectors(subject) if len(subject.row.members) > 1 else _of_pixels(subject)
    seen = np.unique(measured.labels)
    return BandAttribution(
        method=_describe(measured, seen, subject.seed),
        meaning="loss of recall when the band is shuffled between samples",
        bands=bands,
        classes=tuple(subject.splits.classes[code] for code in seen),
        shares=tuple(tuple(row) for row in measured.importance.loss[seen].tolist()),
    )


def _of_vectors(subject: Subject) -> _Measured:
    """Of bands that are embedded one by one: to shuffle a band's vectors is to shuffle its pixels."""
    importance = permutation_importance(
        lambda vectors: subject.probe.predict(join(vectors)),
        subject.test,
        subject.labels,
        len(subject.splits.classes),
        SHUFFLES_OF_VECTORS,
        subject.seed,
    )
    return _Measured(importance, subject.labels, SHUFFLES_OF_VECTORS, "the band's part of the joined vectors")


def _of_pixels(subject: Subject) -> _Measured:
    """Of bands that are shown together: samples are embedded anew after each shuffle."""
    positions = stratified_sample(subject.labels, SHUFFLED_SAMPLES, subject.seed)
    indices = subject.splits.test[positions]
    (pixels,) = read_pixels(subject, subject.row.members[0], indices, len(indices))
    frozen = inference_copy(subject.encoder, "32")
    device, size = device_of(subject.encoder), subject.settings.batch_size

    @torch.inference_mode()
    def predict(content: NDArray[np.float32]) -> NDArray[np.int64]:
        vectors = torch.cat([frozen(batch.to(device)).cpu() for batch in torch.split(torch.from_numpy(content), size)])
        return subject.probe.predict(vectors.numpy())

    labels = subject.labels[positions]
    importance = permutation_importance(
        predict, pixels.cpu().numpy(), labels, len(subject.splits.classes), SHUFFLES_OF_PIXELS, subject.seed
    )
    return _Measured(importance, labels, SHUFFLES_OF_PIXELS, "the band's pixels, all embedded anew in float32")


def _describe(measured: _Measured, seen: NDArray[np.int64], seed: int) -> str:
    counts = np.bincount(measured.labels)[seen]
    return (
        f"Permutation importance (Breiman 2001) of recall under a logistic probe that is not fitted anew: mean of "
        f"{measured.shuffles} shuffles, from seed {seed}, of {measured.what}, between which a value's standard "
        f"deviation is at most {np.nanmax(measured.importance.deviation):.3f}; {counts.sum()} test samples, "
        f"{counts.min()} to {counts.max()} of each class."
    )
