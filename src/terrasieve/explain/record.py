"""What was found out about an encoder, as values that can be written to a file and drawn later.

``explanation.json`` in a run folder holds one :class:`Explanation`. Pictures are ``data:`` URIs, so that a page that
shows them needs no other file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from terrasieve.errors import ArchiveError
from terrasieve.files.writing import write_text
from terrasieve.runs import RunFolder
from terrasieve.schema import Spec, read_json

Picture = Annotated[str, StringConstraints(pattern=r"^data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+$")]
"""An image as a ``data:`` URI."""


class Thumbnail(Spec):
    """One sample as people look at it.

    Attributes:
        id: Of the sample in its archive.
        label: Its class; None where unknown.
        picture: The sample as it was drawn, at most as large as its place in the page.
    """

    id: str
    label: str | None
    picture: Picture


class Point(Spec):
    """A sample in a projection to the plane."""

    x: float
    y: float
    sample: Thumbnail


class Projection(Spec):
    """Vectors of many samples in the plane.

    Attributes:
        method: How it was made, with every setting, in one line.
        inputs: Name of the bands that the encoder was shown, such as ``s2:B04,B03,B02``.
        points: The samples with their coordinates, one point a sample.
    """

    method: str
    inputs: str
    points: tuple[Point, ...]


class SaliencyMap(Spec):
    """Where a score of a sample comes from.

    Attributes:
        method: ``FullGrad``, ``Grad-CAM``, ``attention`` or ``attention rollout``.
        picture: The map laid over the sample.
        completeness_error: Of FullGrad, how far its terms are from the score they sum to, relative to it; else None.
    """

    method: str
    picture: Picture
    completeness_error: float | None = None


class Saliency(Spec):
    """The maps of one sample.

    Attributes:
        sample: The sample that the maps are of.
        predicted: Class that the probe gave it; the maps explain the score of this class.
        probability: Probability of that class under the probe, 0 to 1.
        maps: The maps of the sample, one a method.
    """

    sample: Thumbnail
    predicted: str
    probability: float = Field(ge=0, le=1)
    maps: tuple[SaliencyMap, ...]


class SaliencyGallery(Spec):
    """Saliency of a few samples of each class; ``method`` says how, in one line."""

    method: str
    inputs: str
    items: tuple[Saliency, ...]


class Neighbour(Spec):
    """A sample near a query; ``similarity`` is the cosine of their vectors."""

    sample: Thumbnail
    similarity: float


class Query(Spec):
    """A test sample and its nearest train samples, the nearest first."""

    sample: Thumbnail
    neighbours: tuple[Neighbour, ...]


class NeighbourGallery(Spec):
    """Nearest train samples of a few test samples of each class."""

    method: str
    inputs: str
    queries: tuple[Query, ...]


class BandAttribution(Spec):
    """How much of each class's score comes through each band.

    Attributes:
        method: How it was measured, in one line.
        bands: Names as ``sensor:band``, in the order of the columns of ``shares``.
        classes: Names of the classes, in the order of the rows of ``shares``.
        shares: What ``meaning`` says, a row per class and a column per band.
        meaning: What a cell is, for example ``loss of recall when the band is shuffled``.
    """

    method: str
    meaning: str
    bands: tuple[str, ...]
    classes: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]


class Explanation(Spec):
    """Everything that was found out about one encoder on one labelled archive.

    Attributes:
        format: Version of this layout.
        model: Name of the encoder.
        data: Archive, sizes, split and normalisation in one line.
        simulated: Whether the pixels of the archive are simulated, and none was measured.
        projection: None where it was not made; ``notes`` says why. The others likewise.
        notes: What was left out and why, one sentence each.
    """

    format: Literal[1] = 1
    model: str
    data: str
    simulated: bool = False
    projection: Projection | None = None
    saliency: SaliencyGallery | None = None
    neighbours: NeighbourGallery | None = None
    bands: BandAttribution | None = None
    notes: tuple[str, ...] = ()


def write_explanation(explanation: Explanation, folder: Path) -> Path:
    """Write ``explanation.json``; the file appears under its name only when it is whole."""
    return write_text(RunFolder(folder).explanation, explanation.model_dump_json())


def read_explanation(folder: Path) -> Explanation | None:
    """The explanation in a run folder; None where there is none.

    Raises:
        ArchiveError: The file is damaged or of another version.
    """
    path = RunFolder(folder).explanation
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        # Files of earlier versions say it in the description only.
        values.setdefault("simulated", "SIMULATED" in values.get("data", ""))
        return Explanation.model_validate(values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{path} is not an explanation of this version: {error} Probe the run again.") from error
