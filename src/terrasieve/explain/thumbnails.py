"""Samples as small pictures inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from terrasieve.archive.protocol import Archive
from terrasieve.archive.quicklook import pictures, shown_bands
from terrasieve.console import track
from terrasieve.explain.record import Thumbnail
from terrasieve.probes.splits import Splits

GALLERY_PIXELS = 96
"""Longest side of a picture in a gallery."""

POINT_PIXELS = 40
"""Longest side of a picture at a point of a projection, of which there are many."""

COLOURS = "inferno"

RGB = NDArray[np.float64]
"""A picture, shape ``(height, width, 3)``, 0 to 1."""


@dataclass(frozen=True)
class Album:
    """Pictures of samples that share a stretch, so that they can be compared.

    Attributes:
        pictures: Pictures by index into the archive, each of shape ``(height, width, 3)``, 0 to 1.
        ids: Of all samples of the archive.
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
        quality: Of the JPEG, 1 to 95.
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
    spread = float(np.ptp(saliency))
    unit = (saliency - saliency.min()) / spread if spread > 0 else np.zeros_like(saliency)
    scaled = unit.astype(np.float32)
    heat = np.asarray(Image.fromarray(scaled).resize(picture.shape[1::-1], Image.Resampling.BILINEAR), dtype=float)
    grey = picture.mean(axis=2, keepdims=True)
    opacity = alpha * heat[..., None]
    colours: RGB = matplotlib.colormaps[COLOURS](heat)[..., :3]
    return np.asarray((1 - opacity) * grey + opacity * colours)
