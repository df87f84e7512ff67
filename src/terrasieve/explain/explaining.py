"""Everything that can be found out about one encoder on one labelled archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive
from terrasieve.draws import few_of_each, stratified_sample
from terrasieve.embeddings.inputs import join
from terrasieve.embeddings.neighbours import nearest_neighbours
from terrasieve.embeddings.stream import EmbedSettings, device_of
from terrasieve.embeddings.tsne import describe_tsne, tsne
from terrasieve.errors import TerrasieveError
from terrasieve.explain.attribution import attribute_bands
from terrasieve.explain.record import (
    Explanation,
    Neighbour,
    NeighbourGallery,
    Point,
    Projection,
    Query,
)
from terrasieve.explain.saliency import make_saliency
from terrasieve.explain.subject import GALLERY_PIXELS, POINT_PIXELS, Subject, make_subject, read_album
from terrasieve.models.backbone import Encoder
from terrasieve.probes.results import InputRow
from terrasieve.probes.splits import Splits
from terrasieve.views.render import Normaliser

NEIGHBOURS = 5
"""Train samples beside each test sample."""

T = TypeVar("T")


def explain(
    encoder: Encoder,
    name: str,
    archive: Archive,
    row: InputRow,
    splits: Splits,
    normaliser: Normaliser,
    settings: EmbedSettings,
    data: str,
    vectors: NDArray[np.float32],
    target: str = "label",
    seed: int = 0,
    per_class: int = 2,
    points: int = 1500,
    encoders: Sequence[Encoder] = (),
) -> Explanation:
    """Project, look for neighbours, draw saliency and attribute classes to bands, all on the test split.

    What cannot be made is left out, and a note says why.

    Args:
        encoder: Runs on the device that it is on; left exactly as it is.
        name: The encoder's name, as the record is to show it.
        archive: The labelled archive that samples and pictures come from.
        row: The bands that the encoder is shown, together or one by one.
        splits: The archive's samples and classes.
        normaliser: Standardises pixels per band before the encoder sees them.
        settings: Size, batch size and precision.
        data: Archive, sizes, split and normalisation in one line.
        vectors: What the encoder says of the train, validation and test samples, in that order, shape
            ``(n, members, features)``.
        target: Column of the archive's table that the classes come from.
        seed: Seed of every draw: samples, t-SNE and shuffles.
        per_class: Test samples of each class in the galleries; saliency shows as many mistaken ones as well.
        points: About how many test samples are projected at most.
        encoders: What each member of ``row`` was shown to; ``encoder`` for all when empty.

    Raises:
        ConfigError: The target is not one of classes.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    subject = make_subject(encoder, archive, row, splits, normaliser, settings, seed, vectors, encoders)
    notes: list[str] = []
    return Explanation(
        model=name,
        data=data,
        simulated=bool(archive.source.get("simulated")),
        projection=_attempt("The projection", lambda: make_projection(subject, points), notes),
        saliency=_attempt("Saliency", lambda: make_saliency(subject, per_class, notes, target), notes),
        neighbours=_attempt("Neighbours", lambda: make_neighbours(subject, per_class), notes),
        bands=_attempt("Attribution to bands", lambda: attribute_bands(subject), notes),
        notes=tuple(notes),
    )


def make_projection(subject: Subject, points: int) -> Projection:
    """T-SNE of about ``points`` test samples, drawn from each class in proportion.

    Raises:
        ConfigError: There are too few samples, or their vectors are all alike.
        SampleError: A sample cannot be read.
    """
    positions = stratified_sample(subject.labels, points, subject.seed)
    coordinates = tsne(join(subject.test[positions]), subject.seed)
    indices = subject.splits.test[positions]
    album = read_album(subject.archive, subject.row.members[0].sensor, indices, subject.splits, POINT_PIXELS)
    placed = zip(coordinates.tolist(), indices.tolist(), strict=True)
    return Projection(
        method=f"{describe_tsne(len(indices), subject.seed)}; {len(indices)} of {len(subject.labels)} test samples.",
        inputs=subject.row.name,
        points=tuple(Point(x=x, y=y, sample=album.thumbnail(index)) for (x, y), index in placed),
    )


def make_neighbours(subject: Subject, per_class: int) -> NeighbourGallery:
    """The nearest train samples of a few test samples of each class.

    Raises:
        SampleError: A sample cannot be read.
    """
    positions = few_of_each(subject.labels, per_class, subject.seed)
    train, device = join(subject.train), device_of(subject.encoder)
    similarities, rows = nearest_neighbours(train, join(subject.test[positions]), min(NEIGHBOURS, len(train)), device)
    queries, neighbours = subject.splits.test[positions], subject.splits.train[rows]
    shown = np.concatenate([queries, neighbours.ravel()])
    album = read_album(subject.archive, subject.row.members[0].sensor, shown, subject.splits, GALLERY_PIXELS)

    def query(index: int, near: NDArray[np.int64], cosines: NDArray[np.float32]) -> Query:
        pairs = zip(near.tolist(), cosines.tolist(), strict=True)
        listed = tuple(Neighbour(sample=album.thumbnail(one), similarity=cosine) for one, cosine in pairs)
        return Query(sample=album.thumbnail(index), neighbours=listed)

    return NeighbourGallery(
        method=(
            f"Highest cosine similarity among {len(train)} train samples; at most {per_class} test samples of "
            f"each class, drawn with seed {subject.seed}."
        ),
        inputs=subject.row.name,
        queries=tuple(map(query, queries.tolist(), neighbours, similarities)),
    )


def _attempt(part: str, make: Callable[[], T], notes: list[str]) -> T | None:
    try:
        return make()
    except TerrasieveError as error:
        notes.append(f"{part} was left out. {error}")
        return None
