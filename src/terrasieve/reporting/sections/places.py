"""Section of the page: where the samples lie."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from terrasieve.archive.footprints import centres
from terrasieve.errors import ArchiveError
from terrasieve.files.local_paths import local_path
from terrasieve.reporting.charts import DROPPED, KEPT, Chart, Trace, axis, class_marker, finite, plain
from terrasieve.reporting.run import Run
from terrasieve.streams import Stream, generator

MOST_POINTS = 5000
_SEED = 0
_MOST_CLASSES = 20
_COARSE = 2.0
"""Degrees that samples have to span for a coast of 1:110 million, which is wrong by tenths of a degree."""
_NO_LABEL = "no label"
_REST = "other classes"


@dataclass(frozen=True)
class Places:
    """What the section shows."""

    chart: Chart
    caption: str


@dataclass(frozen=True)
class _Points:
    longitude: NDArray[np.float64]
    latitude: NDArray[np.float64]
    ids: tuple[str, ...]
    groups: tuple[str, ...]


def places(key: str, run: Run, most: int = MOST_POINTS) -> Places | None:
    """The map of the samples of ``embeddings.parquet``; None where there is no such file or no sample has a place.

    Samples are coloured by whether the last round of curation kept them, else by label.

    Args:
        key: Prefix of the ids, unique among the runs of the page.
        run: The run that the page is about.
        most: Number of samples to draw at most; a fixed seed chooses which.

    Raises:
        ArchiveError: A file is damaged.
    """
    embeddings = run.at.embeddings
    if not embeddings.is_file():
        return None
    table = _read(embeddings, ("id", "geometry", "label"))
    if not {"id", "geometry"} <= set(table.column_names):
        return None
    middles = centres(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)))
    located = np.flatnonzero(np.isfinite(middles[:, 0]))
    if not located.size:
        return None
    shown = np.sort(generator(Stream.SHOWN_PLACES, _SEED).permutation(located)[:most])
    ids = tuple(table["id"].take(pa.array(shown)).to_pylist())
    kept = _kept(run)
    known = kept & set(table["id"].to_pylist())
    if known:
        groups = tuple("kept" if name in kept else "dropped" for name in ids)
        what = f"by what round {run.rounds[-1].round} of curation did with them"
    else:
        groups, what = _labels(table, shown), "by label"
    # Labels of another archive than the probes' come after theirs.
    classes = (*run.classes, *sorted(set(groups) - {*run.classes, _NO_LABEL, _REST}))
    points = _Points(middles[shown, 0], middles[shown, 1], ids, groups)
    return Places(
        _chart(f"{key}-map", points, bool(known), classes), _caption(len(shown), len(located), len(table), what)
    )


def _read(path: Path, wanted: Sequence[str]) -> pa.Table:
    try:
        present = [name for name in wanted if name in pq.read_schema(local_path(path)).names]
        return pq.read_table(local_path(path), columns=present)
    except (OSError, pa.ArrowInvalid) as error:
        raise ArchiveError(f"{path} cannot be read as Parquet: {error}. Write it again, or move it away.") from error


def _kept(run: Run) -> set[str]:
    """Names of the samples that the last round of curation chose."""
    selection = run.at.round_selection(run.rounds[-1].round) if run.rounds else None
    if selection is None or not selection.is_file():
        return set()
    table = _read(selection, ("id",))
    return set(table["id"].to_pylist()) if "id" in table.column_names else set()


def _labels(table: pa.Table, shown: NDArray[np.int64]) -> tuple[str, ...]:
    if "label" not in table.column_names:
        return ("sample",) * len(shown)
    labels = [_NO_LABEL if label is None else str(label) for label in table["label"].take(pa.array(shown)).to_pylist()]
    frequent = {label for label, _ in Counter(labels).most_common(_MOST_CLASSES)}
    return tuple(label if label in frequent else _REST for label in labels)


def _caption(drawn: int, located: int, total: int, what: str) -> str:
    part = (
        f"{drawn:,} of {located:,} samples with a place, drawn at random (seed {_SEED})"
        if drawn < located
        else f"All {located:,} samples with a place"
    )
    without = f"; {total - located:,} have none" if located < total else ""
    shape = "Centres in longitude and latitude; distances are true at the middle latitude."
    return f"{part}{without}. Coloured {what}. {shape}"


def _chart(name: str, points: _Points, curated: bool, classes: Sequence[str]) -> Chart:
    counts = Counter(points.groups)
    order = ["dropped", "kept"] if curated else [label for label, _ in counts.most_common()]
    traces = _coast(points)
    traces += tuple(_trace(points, group, classes, curated) for group in order if counts[group])
    middle = math.radians(float(np.mean([points.latitude.min(), points.latitude.max()])))
    # A degree of longitude shrinks with the cosine of the latitude; at a pole it would vanish.
    stretch = 1 / max(0.1, math.cos(middle))
    layout = {
        "margin": {"t": 30},
        "xaxis": axis("longitude, °"),
        "yaxis": axis("latitude, °") | {"scaleanchor": "x", "scaleratio": stretch},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "dragmode": "pan",
    }
    alt = "Map of samples: " + ", ".join(f"{counts[group]:,} {group}" for group in order if counts[group])
    return Chart(name, "Where the samples lie", alt, traces, layout, 480)


def _coast(points: _Points) -> tuple[Trace, ...]:
    """Coastlines around the samples; none where they lie so close together that the outline would be wrong by more."""
    west, east = float(points.longitude.min()), float(points.longitude.max())
    south, north = float(points.latitude.min()), float(points.latitude.max())
    size = max(east - west, north - south)
    if size < _COARSE:
        return ()
    around = size / 4
    land = resources.files("terrasieve") / "explorer" / "static" / "land-110m.geojson"
    outlines = shapely.from_geojson(land.read_text(encoding="utf-8")).boundary
    seen = shapely.clip_by_rect(
        outlines, max(west - around, -180), max(south - around, -90), min(east + around, 180), min(north + around, 90)
    )
    longitudes: list[float | None] = []
    latitudes: list[float | None] = []
    for line in shapely.get_parts(seen):
        longitude, latitude = shapely.get_coordinates(line).T
        longitudes += [*finite(longitude), None]
        latitudes += [*finite(latitude), None]
    coast: Trace = {
        "type": "scatter",
        "mode": "lines",
        "name": "coast",
        "x": longitudes,
        "y": latitudes,
        "line": {"color": "var(--guide)", "width": 1},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return (coast,) if longitudes else ()


def _trace(points: _Points, group: str, classes: Sequence[str], curated: bool) -> Trace:
    rows = [i for i, one in enumerate(points.groups) if one == group]
    marker = (
        {"color": KEPT if group == "kept" else DROPPED, "size": 6 if group == "kept" else 4}
        if curated
        else class_marker(group, classes, 5)
    )
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(group),
        "x": finite(points.longitude[rows]),
        "y": finite(points.latitude[rows]),
        "text": [plain(points.ids[i]) for i in rows],
        "marker": {**marker, "opacity": 0.8},
        "hovertemplate": "%{text}<br>%{x:.4f}°, %{y:.4f}°",
    }
