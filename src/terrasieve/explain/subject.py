"""What is explained: an encoder with its samples and vectors, which of the samples are shown, and as what pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from terrasieve.archive.protocol import Archive
from terrasieve.archive.quicklook import pictures, shown_bands
from terrasieve.console import track
from terrasieve.draws import Positions, shuffled_members
from terrasieve.embeddings.inputs import EncoderInput, join
from terrasieve.embeddings.stream import EmbedSettings, device_of, prepare_batch, read_batches
from terrasieve.errors import ConfigError
from terrasieve.explain.record import Thumbnail
from terrasieve.models.backbone import Encoder
from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.probe import Labelled
from terrasieve.probes.results import InputRow
from terrasieve.probes.splits import Splits
from terrasieve.streams import Stream, generator
from terrasieve.views.render import Normaliser


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
        encoders: What each member is shown to: ``encoder``, or it with batch norms measured for that input.
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
    encoders: tuple[Encoder, ...]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class codes of the test split, shape ``(n_test,)``."""
        return np.asarray(self.splits.labels[self.splits.test], dtype=np.int64)

    @cached_property
    def probe(self) -> LogisticProbe:
        """A logistic probe of the members' joined vectors.

        Raises:
            ConfigError: They cannot be fitted, for example because there is one class only.
        """
        splits = self.splits
        held = Labelled(join(self.val), splits.labels[splits.val]) if len(self.val) else None
        return LogisticProbe(seed=self.seed).fit(join(self.train), splits.labels[splits.train], held)


def make_subject(
    encoder: Encoder,
    archive: Archive,
    row: InputRow,
    splits: Splits,
    normaliser: Normaliser,
    settings: EmbedSettings,
    seed: int,
    vectors: NDArray[np.float32],
    encoders: Sequence[Encoder] = (),
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
        encoders: What each member was shown to; ``encoder`` for all when empty.

    Raises:
        ConfigError: The target is not one of classes.
    """
    if not splits.classes or splits.labels.ndim != 1:
        raise ConfigError(
            "Explanations are of classes that exclude each other, and the target has none; choose one that does."
        )
    train, val, test = np.split(vectors, np.cumsum([len(splits.train), len(splits.val)]))
    shown_to = tuple(encoders) or (encoder,) * len(row.members)
    return Subject(encoder, archive, row, splits, normaliser, settings, seed, train, val, test, shown_to)


def read_pixels(subject: Subject, shown: EncoderInput, indices: NDArray[np.int64], batch_size: int) -> Iterator[Tensor]:
    """Standardised pixels ``(n, bands, height, width)`` of samples on the encoder's device, batch by batch.

    Raises:
        SampleError: A sample cannot be read, or samples of a batch differ in size and no size is set.
    """
    settings = subject.settings.model_copy(update={"batch_size": batch_size})
    for batch in read_batches(subject.archive, [shown], indices, settings):
        yield prepare_batch(batch, [shown], subject.normaliser, settings.size, device_of(subject.encoder))[0]


# ----------------------------------------------------------- samples to show


def right_and_wrong(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], confidence: NDArray[np.float64], per_class: int, seed: int
) -> Positions:
    """Of each class a few that were recognised, drawn by a seed, then the most confidently mistaken.

    Args:
        labels: Class codes, shape ``(n,)``.
        predicted: What was predicted instead, shape ``(n,)``.
        confidence: Probability of the predicted class, shape ``(n,)``.
        per_class: Most samples of each kind of each class.
        seed: Seed of the draw among the recognised.

    Returns:
        Positions in ``labels``, in the order of the classes.
    """
    classes = np.unique(labels)
    # The code -1, which is no class, stands for the mistaken.
    recognised = shuffled_members(
        np.where(labels == predicted, labels, -1), classes, generator(Stream.EXPLAINED_SAMPLES, seed)
    )
    chosen = []
    for code, right in zip(classes, recognised, strict=True):
        wrong = np.flatnonzero((labels == code) & (predicted != code))
        chosen += [right[:per_class], wrong[np.argsort(-confidence[wrong], kind="stable")][:per_class]]
    return np.concatenate(chosen)


# ------------------------------------------------------------------ thumbnails

GALLERY_PIXELS = 96
"""Longest side of a picture in a gallery."""

POINT_PIXELS = 40
"""Longest side of a picture at a point of a projection, of which there are many."""

COLOURS = "inferno"
"""Matplotlib's colour map of saliency: bright where a map is high, and even in lightness."""

RGB = NDArray[np.float64]
"""A picture, shape ``(height, width, 3)``, 0 to 1."""


@dataclass(frozen=True)
class Album:
    """Pictures of samples that share a stretch, so that they can be compared.

    Attributes:
        pictures: Pictures by index into the archive, each of shape ``(height, width, 3)``, 0 to 1.
        ids: Ids of all samples of the archive, shape ``(n,)``.
        labels: Class code of all samples of the archive; -1 where unlabelled.
        classes: Names of the codes.
        size: Longest side, in pixels, of a picture in a page.
    """

    pictures: Mapping[int, RGB]
    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    size: int

    def thumbnail(self, index: int) -> Thumbnail:
        """One sample of the album, ready for a page."""
        code = self.labels[index]
        label = self.classes[code] if code >= 0 else None
        return Thumbnail(id=str(self.ids[index]), label=label, picture=data_uri(self.pictures[index], self.size))


def read_album(archive: Archive, sensor: str, indices: NDArray[np.int64], splits: Splits, size: int) -> Album:
    """Pictures of samples as one sensor saw them; see :func:`terrasieve.archive.quicklook.pictures`.

    Args:
        archive: The labelled archive that pixels are read from.
        sensor: Key of the sensor.
        indices: Samples of the archive; a sample named twice is read once.
        splits: The archive's splits, which know the class of every sample.
        size: Longest side, in pixels, of a picture in a page.

    Raises:
        SampleError: A sample cannot be read.
    """
    wanted = np.unique(indices)
    seen = archive.sensors[sensor]
    samples = []
    for index in track(wanted, "draw samples", len(wanted)):
        sample = archive.read(int(index), sensor, shown_bands(seen))
        # Every n-th pixel of a sample much larger than its picture, so that thousands fit into memory.
        step = max(1, min(sample.shape[1:]) // size)
        samples.append(sample[:, ::step, ::step])
    drawn = dict(zip(wanted.tolist(), pictures(samples, seen), strict=True))
    return Album(drawn, archive.ids, splits.labels, splits.classes, size)


def data_uri(picture: RGB, size: int, quality: int = 75) -> str:
    """A picture as a JPEG in a ``data:`` URI.

    Args:
        picture: Shape ``(height, width, 3)``, 0 to 1.
        size: Longest side in pixels; a smaller picture is not enlarged.
        quality: Quality of the JPEG, 1 to 95.
    """
    image = Image.fromarray(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8), "RGB")
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def overlay(picture: RGB, saliency: NDArray[np.float64], alpha: float = 0.8) -> RGB:
    """A map in colours over a picture in grey, the more opaque the higher the map.

    Args:
        picture: Shape ``(height, width, 3)``, 0 to 1.
        saliency: Any height and width that cover the same ground; drawn from its least to its greatest value.
        alpha: Opacity where the map is greatest, 0 to 1.
    """
    span = float(np.ptp(saliency))
    unit = (saliency - saliency.min()) / span if span > 0 else np.zeros_like(saliency)
    scaled = unit.astype(np.float32)
    heat = np.asarray(Image.fromarray(scaled).resize(picture.shape[1::-1], Image.Resampling.BILINEAR), dtype=float)
    grey = picture.mean(axis=2, keepdims=True)
    opacity = alpha * heat[..., None]
    colours: RGB = matplotlib.colormaps[COLOURS](heat)[..., :3]
    return np.asarray((1 - opacity) * grey + opacity * colours)
