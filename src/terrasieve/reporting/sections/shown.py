"""Section of the page: samples that were learnt from, and views that training makes of them."""

from __future__ import annotations

from dataclasses import dataclass

from terrasieve.explain.training_views import ShownPicture, ShownSample
from terrasieve.reporting.run import Run
from terrasieve.reporting.sections.explained import Strip, Tile


@dataclass(frozen=True)
class Shown:
    """What the section shows.

    Attributes:
        caption: What the pictures are, in a sentence.
        viewed: A sample with its views each.
        sheet: The contact sheet, a picture for each sample and sensor.
    """

    caption: str
    viewed: tuple[Strip, ...]
    sheet: tuple[Tile, ...]


def shown(key: str, run: Run) -> Shown | None:
    """The section; None where the run kept no pictures.

    Args:
        key: Prefix of the ids; this section needs none.
        run: The run that the page is about.
    """
    found = run.views
    if found is None or not found.viewed:
        return None
    caption = (
        f"{len(found.viewed)} of {found.samples:,} samples as each sensor saw them, then the views that the first step "
        "makes of them, with the bands that were drawn; grey levels of a view are standard deviations of its band."
    )
    sheet = tuple(_tile(sample, one, sample.id) for sample in found.sheet for one in sample.sensors)
    viewed = tuple(
        Strip("", sample.id, "", tuple(_tile(sample, one, one.name) for one in (*sample.sensors, *sample.views)))
        for sample in found.viewed
    )
    return Shown(caption, viewed, sheet)


def _tile(sample: ShownSample, one: ShownPicture, title: str) -> Tile:
    bands = ", ".join(one.bands)
    return Tile(one.picture, f"Sample {sample.id}, {one.name}, {bands}", title, (bands,))
