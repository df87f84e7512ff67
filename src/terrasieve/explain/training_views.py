"""What a run learns from: samples of its archive, and the views that training makes of some of them.

``views.json`` in a run folder holds one :class:`TrainingViews`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.overview import spaced_evenly
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quicklook import pictures, shown_bands
from terrasieve.errors import ArchiveError
from terrasieve.explain.record import Picture
from terrasieve.explain.subject import GALLERY_PIXELS, RGB, data_uri
from terrasieve.files.writing import write_text
from terrasieve.runs import RunFolder
from terrasieve.schema import Spec, read_json
from terrasieve.training.job import TrainingJob
from terrasieve.training.pool import Batch, ViewReader
from terrasieve.views.render import render

SHEET = 24
"""Samples of the contact sheet."""
VIEWED = 4
"""Samples of which the views are shown."""
_SPREAD = 2.5
"""Standard deviations on either side of a band's mean from black to white."""


class ShownPicture(Spec):
    """A sample as one sensor saw it, or a view of it.

    Attributes:
        name: Key of the sensor, or name of the view.
        bands: What is seen, such as ``s2:B04``, in the order of the channels.
        picture: As it was drawn.
    """

    name: str
    bands: tuple[str, ...]
    picture: Picture


class ShownSample(Spec):
    """A sample with its pictures.

    Attributes:
        id: Of the sample in its archive.
        sensors: The sample as each sensor saw it.
        views: What training makes of it in its first step; empty in a contact sheet.
    """

    id: str
    sensors: tuple[ShownPicture, ...]
    views: tuple[ShownPicture, ...] = ()


class TrainingViews(Spec):
    """What a run learns from.

    Attributes:
        samples: Number of samples that it may learn from.
        sheet: Some of them, evenly spread over the archive.
        viewed: Fewer of them, with their views.
    """

    samples: int
    sheet: tuple[ShownSample, ...]
    viewed: tuple[ShownSample, ...]


def make_training_views(job: TrainingJob) -> TrainingViews:
    """Pictures of samples that a run learns from, and of the views that its first step would make of them.

    Raises:
        SampleError: A sample cannot be read.
    """
    sheet, few = (job.pool[spaced_evenly(len(job.pool), count)] for count in (SHEET, VIEWED))
    drawn = _as_sensors_saw(job.archive, np.concatenate([sheet, few]))
    views = _views(job, few)
    ids = job.archive.ids
    return TrainingViews(
        samples=len(job.pool),
        sheet=tuple(
            ShownSample(id=str(ids[index]), sensors=seen)
            for index, seen in zip(sheet, drawn[: len(sheet)], strict=True)
        ),
        viewed=tuple(
            ShownSample(id=str(ids[index]), sensors=seen, views=made)
            for index, seen, made in zip(few, drawn[len(sheet) :], views, strict=True)
        ),
    )


def write_training_views(shown: TrainingViews, folder: Path) -> Path:
    """Write ``views.json``; the file appears under its name only when it is whole."""
    return write_text(RunFolder(folder).views, shown.model_dump_json())


def read_training_views(folder: Path) -> TrainingViews | None:
    """What :func:`write_training_views` wrote to a run folder; None where there is none.

    Raises:
        ArchiveError: The file is damaged or of another version.
    """
    path = RunFolder(folder).views
    if not path.is_file():
        return None
    try:
        return TrainingViews.model_validate(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise ArchiveError(f"{path} holds no views of this version: {error}. Move it out of the run folder.") from error


def _as_sensors_saw(archive: Archive, indices: NDArray[np.int64]) -> list[tuple[ShownPicture, ...]]:
    """Of each sample a picture by sensor; those of one sensor share a stretch."""
    by_sensor = []
    for key, sensor in archive.sensors.items():
        bands = shown_bands(sensor)
        drawn = pictures([archive.read(int(index), key, bands) for index in indices], sensor)
        by_sensor.append([_picture(key, [f"{key}:{band}" for band in bands], one) for one in drawn])
    return list(zip(*by_sensor, strict=True))


def _views(job: TrainingJob, indices: NDArray[np.int64]) -> list[tuple[ShownPicture, ...]]:
    """Of each sample a picture by view, with the bands that were drawn for it."""
    reader = ViewReader(job.archive, job.planner, len(indices), job.places)
    tensors = render(reader[Batch(0, indices, 0)], job.normaliser)
    shapes = np.array([job.archive.shape(int(index), next(iter(job.archive.sensors))) for index in indices])
    by_view = []
    for view, plan, offered, tensor in zip(
        job.planner.recipe.views, job.planner.plan(0, shapes), job.planner.channels, tensors, strict=True
    ):
        bands = [[":".join(offered[place]) for place in row] for row in plan.channels.tolist()]
        planes = tensor.numpy().astype(np.float64)
        # The first three bands as red, green and blue, or the first alone in grey.
        shown = planes[:, :3] if planes.shape[1] > 2 else np.repeat(planes[:, :1], 3, axis=1)
        drawn = np.clip(shown / (2 * _SPREAD) + 0.5, 0, 1).transpose(0, 2, 3, 1)
        by_view.append([_picture(view.name, one, each) for one, each in zip(bands, drawn, strict=True)])
    return list(zip(*by_view, strict=True))


def _picture(name: str, bands: Sequence[str], drawn: RGB) -> ShownPicture:
    return ShownPicture(name=name, bands=tuple(bands), picture=data_uri(drawn, GALLERY_PIXELS))
