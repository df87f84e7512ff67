"""Which bands carry a class: what is lost when the samples' pixels of one band are exchanged.

Permutation importance (Breiman 2001, Random Forests, section 10), of each class's recall: a band's content is
shuffled between samples, so that it keeps its distribution and loses its relation to the class and to other bands.
Where bands say the same, each alone may seem unimportant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.console import track

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
        classes: How many classes there are.
        repeats: Shuffles of each band, two or more.
        seed: Of the shuffles.
    """
    assert repeats > 1, "the deviation between shuffles needs two of them"
    whole = recalls(labels, predict(content), classes)
    generator = np.random.default_rng(seed)
    bands = content.shape[1]
    runs = track(np.ndindex(repeats, bands), "shuffle bands", total=repeats * bands)
    lost = [whole - recalls(labels, predict(_shuffled(content, band, generator)), classes) for _, band in runs]
    by_repeat = np.reshape(lost, (repeats, bands, classes))
    return BandImportance(by_repeat.mean(axis=0).T, by_repeat.std(axis=0, ddof=1).T)


def recalls(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Share of each class's samples that are predicted as such, shape ``(classes,)``; NaN for one without samples."""
    counts = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[labels == predicted], minlength=classes)
    return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


def _shuffled(content: Content, band: int, generator: np.random.Generator) -> NDArray[Any]:
    shuffled = content.copy()
    shuffled[:, band] = content[generator.permutation(len(content)), band]
    return shuffled
