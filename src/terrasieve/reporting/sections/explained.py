"""Sections of the page: projection, saliency, neighbours and bands of ``explanation.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from terrasieve.explain.record import (
    Neighbour,
    NeighbourGallery,
    Projection,
    SaliencyGallery,
)
from terrasieve.reporting.charts import Chart, Trace, axis, class_marker, finite, heatmap, plain
from terrasieve.reporting.run import Run

UNLABELLED = "no label"


@dataclass(frozen=True)
class Scatter:
    """A projection, with what its caption says of the method and the inputs."""

    chart: Chart
    caption: str


@dataclass(frozen=True)
class Tile:
    """A picture with what is said of it.

    Attributes:
        picture: The picture as a ``data:`` URI.
        alt: What the picture shows, in words.
        title: Heading above the lines.
        lines: Lines of text beneath the heading.
        agrees: Whether the sample is of the class that it should be; None where that is unknown.
    """

    picture: str
    alt: str
    title: str
    lines: tuple[str, ...] = ()
    agrees: bool | None = None


@dataclass(frozen=True)
class Strip:
    """A sample and what belongs to it, side by side.

    Attributes:
        label: Class of the sample, by which the gallery is filtered.
        title: Identifier of the sample.
        text: What is said of the sample, in one line.
        tiles: The sample's own picture, then those beside it.
    """

    label: str
    title: str
    text: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Gallery:
    """Strips under one method.

    Attributes:
        id: Identifier of the gallery's element, unique on the page.
        method: How the pictures came to be, in a sentence.
        inputs: The bands that the encoder was shown.
        labels: The classes to choose from, in alphabetical order.
        strips: One strip for each sample.
    """

    id: str
    method: str
    inputs: str
    labels: tuple[str, ...]
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Bands:
    """The heatmap of bands by class."""

    chart: Chart
    method: str


# ---------------------------------------------------------------- projection


def projection(key: str, run: Run) -> Scatter | None:
    """The samples projected to the plane, one trace per class; None where there is no projection.

    Args:
        key: Prefix of the ids, unique among the runs of the page.
        run: The run that the page is about.
    """
    found = run.explanation.projection if run.explanation else None
    if found is None or not found.points:
        return None
    labels = [point.sample.label or UNLABELLED for point in found.points]
    order = [label for label, _ in sorted(Counter(labels).items(), key=lambda one: (one[0] == UNLABELLED, one[0]))]
    traces = tuple(_class_trace(found, labels, label, run.classes) for label in order)
    blank = axis() | {"showticklabels": False, "showgrid": False, "ticks": "", "mirror": True}
    layout = {
        "margin": {"t": 4},
        "xaxis": blank,
        "yaxis": blank | {"scaleanchor": "x"},
        "legend": {"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0, "itemsizing": "constant"},
        "dragmode": "zoom",
        "hovermode": "closest",
        "hoverdistance": 12,
    }
    alt = f"Projection of {len(labels):,} samples of {len(order)} classes to the plane"
    samples = tuple(
        (point.sample.id, label, point.sample.picture) for point, label in zip(found.points, labels, strict=True)
    )
    chart = Chart(f"{key}-projection", "Projection", alt, traces, layout, 560, samples=samples)
    return Scatter(chart, f"{found.method} Shown: {found.inputs}.")


def _class_trace(found: Projection, labels: Sequence[str], label: str, classes: Sequence[str]) -> Trace:
    rows = [i for i, one in enumerate(labels) if one == label]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(label),
        "x": finite(found.points[i].x for i in rows),
        "y": finite(found.points[i].y for i in rows),
        "customdata": rows,
        "hoverinfo": "none",
        "marker": class_marker(label, classes, 6) | {"opacity": 0.85},
    }


# ---------------------------------------------------------------- galleries


def saliency(key: str, run: Run) -> Gallery | None:
    """Each sample beside its maps; None where there are none.

    Args:
        key: Prefix of the ids, unique among the runs of the page.
        run: The run that the page is about.
    """
    found = run.explanation.saliency if run.explanation else None
    if found is None or not found.items:
        return None
    strips = []
    for item in found.items:
        label = item.sample.label or UNLABELLED
        agrees = None if item.sample.label is None else item.sample.label == item.predicted
        text = f"true {label}, predicted {item.predicted}, probability {item.probability:.2f}"
        picture = Tile(item.sample.picture, f"Sample {item.sample.id}, {label}", "sample", (), agrees)
        maps = []
        for one in item.maps:
            error = one.completeness_error
            lines = () if error is None else (f"completeness error {error:.1e}",)
            maps.append(Tile(one.picture, f"{one.method} map; predicted {item.predicted}", one.method, lines))
        strips.append(Strip(label, item.sample.id, text, (picture, *maps)))
    return _gallery(f"{key}-saliency-strips", found, strips)


def neighbours(key: str, run: Run) -> Gallery | None:
    """Each query beside its nearest train samples; None where there are none.

    Args:
        key: Prefix of the ids, unique among the runs of the page.
        run: The run that the page is about.
    """
    found = run.explanation.neighbours if run.explanation else None
    if found is None or not found.queries:
        return None
    strips = []
    for query in found.queries:
        label = query.sample.label or UNLABELLED
        others = tuple(_neighbour_tile(query.sample.label, one) for one in query.neighbours)
        judged = [tile.agrees for tile in others if tile.agrees is not None]
        text = f"{label}, {sum(judged)} of {len(judged)} neighbours alike" if judged else label
        first = Tile(query.sample.picture, f"Query {query.sample.id}, {label}", "query")
        strips.append(Strip(label, query.sample.id, text, (first, *others)))
    return _gallery(f"{key}-neighbours-strips", found, strips)


def _neighbour_tile(wanted: str | None, found: Neighbour) -> Tile:
    label = found.sample.label
    agrees = None if wanted is None or label is None else wanted == label
    shown, cosine = label or UNLABELLED, f"cosine {found.similarity:z.2f}"
    return Tile(found.sample.picture, f"Neighbour {found.sample.id}, {shown}, {cosine}", shown, (cosine,), agrees)


def _gallery(id: str, found: SaliencyGallery | NeighbourGallery, strips: Sequence[Strip]) -> Gallery:
    labels = tuple(sorted({strip.label for strip in strips}))
    return Gallery(id, found.method, found.inputs, labels, tuple(strips))


# ---------------------------------------------------------------- bands


def bands(key: str, run: Run) -> Bands | None:
    """How much each class leans on each band, as a heatmap; None where that was not measured.

    Args:
        key: Prefix of the ids, unique among the runs of the page.
        run: The run that the page is about.
    """
    found = run.explanation.bands if run.explanation else None
    if found is None or not found.bands or not found.classes:
        return None
    texts = [[f"{share:z.2f}" for share in row] for row in found.shares]
    hover = "%{y}, %{x}: %{z:.3f}<extra></extra>"
    largest = max(max(row) for row in found.shares)
    traces = heatmap(found.shares, found.bands, found.classes, texts, hover, max(largest, 1e-9))
    layout = {
        "xaxis": axis() | {"showgrid": False, "tickangle": -40},
        "yaxis": axis() | {"showgrid": False, "autorange": "reversed"},
    }
    alt = f"{found.meaning}, {len(found.classes)} classes by {len(found.bands)} bands"
    height = 110 + 30 * len(found.classes)
    chart = Chart(f"{key}-bands", found.meaning, alt, traces, layout, height, width=200 + 48 * len(found.bands))
    return Bands(chart, found.method)
