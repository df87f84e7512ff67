"""The quick segmentation probe: a linear classifier of what the maps say at each pixel."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from terrasieve.embeddings.stream import device_of
from terrasieve.models.dense import cell_places
from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.probe import Labelled
from terrasieve.probes.segmentation.map_probe import (
    FeatureMaps,
    LabelledImages,
    Report,
    SegmentationProbe,
    silent,
)
from terrasieve.probes.segmentation.pixel_metrics import IGNORE
from terrasieve.streams import Stream, generator

MAX_ITER = 1000
"""Of L-BFGS; far more than it needs where the penalty is not tiny."""

VECTORS_AT_ONCE = 2**24
"""Bound on the numbers of one block of interpolated vectors: 64 MiB in float32."""


class PatchLinear(SegmentationProbe):
    """Logistic regression on feature maps that are interpolated to the pixels of the label map.

    On the pixels themselves (:class:`PixelValues <terrasieve.probes.segmentation.map_probe.PixelValues>`) this is the
    per-pixel floor. Longer vectors are reduced to their first principal components on train, which saves most of the
    time and keeps the classifier linear. C is fixed: chosen on one of a few train sites it is a lottery, because the
    best C for one site says little of the next, and pixels next to those that were fitted on would choose next to no
    penalty.

    Args:
        pixels: Train pixels that are drawn in all, in equal number from each image as far as it has them; classes
            stay as frequent as they are.
        components: Most numbers of a vector.
        c: Inverse strength of the penalty; scikit-learn's default.
        seed: Seed of every draw.
    """

    name: ClassVar[str] = "patch linear"
    on_pixels: ClassVar[bool] = True

    def __init__(self, pixels: int = 10_000, components: int = 128, c: float = 1.0, seed: int = 0) -> None:
        self.pixels = pixels
        self.components = components
        self.c = c
        self.seed = seed

    @property
    def settings(self) -> str:
        """Every setting in one line."""
        return (
            f"logistic regression on maps interpolated bilinearly to the labels' pixels; {self.pixels:,} train pixels, "
            f"as many from each image, not balanced, seed {self.seed}; vectors longer than {self.components} reduced "
            "to that many principal components on train, then standardised on train; L-BFGS in float32, "
            f"C = {self.c:g}, not tuned"
        )

    def fit(self, maps: FeatureMaps, train: LabelledImages, report: Report = silent) -> Self:
        """Draw pixels and fit; see :meth:`SegmentationProbe.fit`."""
        drawn = self._draw(maps, train, report)
        report("fit")
        size = min(self.components, len(drawn.features))
        self.reduction_ = None
        if drawn.features.shape[1] > size:
            # Two power iterations, not four to seven: what they would still change is far below the spread of a fold.
            reduction = PCA(size, svd_solver="randomized", iterated_power=2, random_state=self.seed)
            self.reduction_ = reduction.fit(drawn.features)
        vectors = self._reduced(drawn.features)
        probe = LogisticProbe((self.c,), MAX_ITER, device=device_of(maps))
        # There is nothing to choose; without validation vectors a tenth of the train vectors would be held back.
        self.probe_ = probe.fit(vectors, drawn.labels, Labelled(vectors, drawn.labels))
        return self

    def predict(self, maps: FeatureMaps, pixels: Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """See :meth:`SegmentationProbe.predict`."""
        places = cell_places(size, (pixels.shape[-2], pixels.shape[-1]))
        return np.stack([self._predict_image(maps, image[None], places) for image in pixels])

    def _predict_image(self, maps: FeatureMaps, image: Tensor, places: Tensor) -> NDArray[Any]:
        values = maps(image)
        if self.reduction_ is not None:
            # Cell by cell, before the interpolation to many more pixels: both are linear, so their order is free.
            cells = torch.from_numpy(self._reduced(_vectors(values)))
            values = cells.T.reshape(1, -1, *values.shape[-2:]).to(values.device)
        rows = max(1, VECTORS_AT_ONCE // (values.shape[1] * places.shape[2]))
        blocks = [self.probe_.predict(_vectors(maps.at(values, part))) for part in torch.split(places, rows, dim=1)]
        return np.concatenate(blocks).reshape(places.shape[1:3])

    def _reduced(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.reduction_ is None:
            return vectors
        return np.asarray(self.reduction_.transform(vectors), dtype=np.float32)

    def _draw(self, maps: FeatureMaps, train: LabelledImages, report: Report) -> Labelled:
        """Vectors of the drawn pixels and their class codes, image by image."""
        pixels = generator(Stream.PATCH_PIXELS, self.seed)
        places, count = train.places.flatten(0, 2), len(train.labels)
        parts = []
        for number, labels in enumerate(train.labels.reshape(count, -1)):
            report(f"image {number + 1}/{count}")
            drawn = pixels.permutation(np.flatnonzero(labels != IGNORE))[: -(-self.pixels // count)]
            there = places[torch.from_numpy(drawn)][None, None]
            vectors = _vectors(maps.at(maps(train.pixels[number : number + 1]), there))
            parts.append(Labelled(vectors, labels[drawn].astype(np.int64)))
        return Labelled(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _vectors(values: Tensor) -> NDArray[np.float32]:
    """Vectors ``(a * b, features)`` of values ``(1, features, a, b)``."""
    return np.asarray(values[0].flatten(1).T.cpu().numpy(), dtype=np.float32)
