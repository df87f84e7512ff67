"""Section of the page: what the probes measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import HEADLINES, best, notes_of, shown
from terrasieve.report.charts import ACCENT, FAINT, MUTED, Chart, Choice, Trace, axis, finite, plain
from terrasieve.report.grouping import Group, Line, interval_text
from terrasieve.report.sections.confusion import confusion_choice, per_class
from terrasieve.report.tables import MISSING, Cell, Table

_FLOOR_SYMBOLS = ("diamond-open", "square-open")
_NARROW = 3
_OTHER_SYMBOLS = ("triangle-up", "triangle-down", "x", "star", "pentagon")


@dataclass(frozen=True)
class GroupTables:
    """Tables of one probe on one target: the first metric is shown, the others, named in ``more``, on request."""

    title: str
    first: Table
    others: tuple[Table, ...]
    more: str

    @property
    def wide(self) -> bool:
        """Whether it needs the whole width of the page."""
        return len(self.first.columns) > _NARROW


@dataclass(frozen=True)
class Scores:
    """What the section shows.

    Attributes:
        chart: The chart of each probe and metric.
        groups: Tables.
        confusion: Matrices of the trained model; None where rows have none.
        classes: Tables per class, on request.
        curve: Scores by share of the train split; None where there is one share.
        notes: Protocols, data and remarks, a line each.
    """

    chart: Choice
    groups: tuple[GroupTables, ...]
    confusion: Choice | None
    classes: tuple[Table, ...]
    curve: Choice | None
    notes: tuple[str, ...]


def scores(key: str, rows: Sequence[ProbeRow], groups: Sequence[Group]) -> Scores | None:
    """The section; None where there is no row.

    Args:
        key: Prefix of the ids.
        rows: Of the run.
        groups: The same rows; see :func:`terrasieve.report.grouping.groups_of`.
    """
    if not groups:
        return None
    charts = [
        _dots(f"{key}-dots-{i}-{metric}", group, metric) for i, group in enumerate(groups) for metric in _shown(group)
    ]
    return Scores(
        chart=Choice(f"{key}-dots", "Probe and metric", tuple(charts)),
        groups=tuple(_tables(group) for group in groups),
        confusion=confusion_choice(key, groups),
        classes=tuple(table for group in groups for table in per_class(group)),
        curve=_curves(key, groups, rows),
        notes=notes_of(rows),
    )


def metric_table(group: Group, metric: str) -> Table:
    """One metric of every model on every line; the best of a line is marked, floors are dim."""
    rows = tuple((line.name, _cells(group, line, metric)) for line in group.lines)
    remarks = (
        f"* {row.model} on {row.inputs}: {row.note}" for line in group.lines for row in line.rows.values() if row.note
    )
    caption = f"{_axis_title(metric)} (95\u00a0% interval)"
    return Table(caption, "input", group.models, rows, tuple(dict.fromkeys(remarks)))


def _shown(group: Group) -> tuple[str, ...]:
    return tuple(metric for metric in HEADLINES[group.task] if metric in group.metrics)


def _tables(group: Group) -> GroupTables:
    first, *others = (metric_table(group, metric) for metric in group.metrics)
    more = ", ".join(METRIC_INFO[metric].title for metric in group.metrics[1:])
    return GroupTables(group.title, first, tuple(others), more)


def _cells(group: Group, line: Line, metric: str) -> tuple[Cell, ...]:
    scored = [row.metrics[metric] for row in line.rows.values() if metric in row.metrics]
    top = best(metric, scored) if scored else None
    return tuple(_cell(line.rows.get(model), metric, top) for model in group.models)


def _cell(row: ProbeRow | None, metric: str, top: float | None) -> Cell:
    if row is None or metric not in row.metrics:
        return MISSING
    value = row.metrics[metric]
    text = shown(metric, value)
    return Cell(text, interval_text(row, metric), value == top, row.is_floor, "*" if row.note else "")


# ---------------------------------------------------------------- charts


def _dots(name: str, group: Group, metric: str) -> Chart:
    traces = tuple(_dot_trace(group, position, metric) for position in range(len(group.models)))
    lines = [plain(line.name) for line in group.lines]
    layout = {
        "xaxis": axis(_axis_title(metric)) | {"range": _range(group, metric)},
        "yaxis": axis() | {"categoryorder": "array", "categoryarray": lines, "autorange": "reversed"},
        "scattermode": "group",
        "scattergap": 0.35,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    heading = f"{group.title}, {METRIC_INFO[metric].title}"
    alt = f"{heading} of {', '.join(group.models)} on {len(lines)} inputs, with 95 % intervals; numbers in the tables"
    height = 130 + len(lines) * max(28, 14 * len(group.models))
    return Chart(name, heading, alt, traces, layout, height)


def _range(group: Group, metric: str) -> list[float]:
    """Ends of the axis: all intervals with a little room, since Plotly would start grouped points at 0."""
    rows = [row for line in group.lines for row in line.rows.values() if metric in row.metrics]
    scale = 100 if METRIC_INFO[metric].percent else 1
    ends = [
        scale * end for row in rows for end in (row.metrics[metric], *row.ci95.get(metric, ())) if math.isfinite(end)
    ]
    room = 0.04 * (max(ends, default=1) - min(ends, default=0)) or 1
    return [min(ends, default=0) - room, max(ends, default=1) + room]


def _dot_trace(group: Group, position: int, metric: str) -> Trace:
    model = group.models[position]
    found = [
        (line.name, line.rows[model])
        for line in group.lines
        if model in line.rows and metric in line.rows[model].metrics
    ]
    scale = 100 if METRIC_INFO[metric].percent else 1
    values = [scale * row.metrics[metric] for _, row in found]
    bounds = [row.ci95.get(metric, (row.metrics[metric], row.metrics[metric])) for _, row in found]
    colour, symbol = model_style(model, position, group.floors)
    error = {
        "type": "data",
        "symmetric": False,
        "array": finite(scale * high - value for value, (_, high) in zip(values, bounds, strict=True)),
        "arrayminus": finite(value - scale * low for value, (low, _) in zip(values, bounds, strict=True)),
        "thickness": 1.5,
        "width": 0,
        "color": colour,
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "orientation": "h",
        "name": plain(model),
        "x": finite(values),
        "y": [plain(name) for name, _ in found],
        "error_x": error,
        "marker": {
            "color": colour,
            "symbol": symbol,
            "size": 10 if position == 0 else 8,
            "line": {"width": 1.5, "color": colour},
        },
        "text": [plain(f"{shown(metric, row.metrics[metric])} ({interval_text(row, metric)})") for _, row in found],
        "hovertemplate": "%{y}<br>%{text}",
    }


def model_style(model: str, position: int, floors: Sequence[str]) -> tuple[str, str]:
    """Colour and symbol of a model: the accent for the trained one, greys for floors."""
    if position == 0:
        return ACCENT, "circle"
    if model in floors:
        return (MUTED, FAINT)[floors.index(model) % 2], _FLOOR_SYMBOLS[floors.index(model) % 2]
    return f"var(--class-{position % 10})", _OTHER_SYMBOLS[position % len(_OTHER_SYMBOLS)]


def _axis_title(metric: str) -> str:
    info = METRIC_INFO[metric]
    return f"{info.title},\u00a0%" if info.percent else info.title


def _curves(key: str, groups: Sequence[Group], rows: Sequence[ProbeRow]) -> Choice | None:
    """Scores on the main line by share of the train split, for probes that were fitted on several shares."""
    kinds = dict.fromkeys((row.target, row.probe) for row in rows)
    charts = []
    for number, (target, probe) in enumerate(kinds):
        found = [row for row in rows if (row.target, row.probe) == (target, probe)]
        if len({row.train_share for row in found}) > 1:
            charts.append(_curve(f"{key}-share-{number}", found))
    return Choice(f"{key}-share", "Probe", tuple(charts)) if charts else None


def _curve(name: str, rows: Sequence[ProbeRow]) -> Chart:
    widest = max(rows, key=lambda row: len(row.bands))
    metric = HEADLINES[rows[0].task][0]
    models = tuple(dict.fromkeys(row.model for row in rows))
    here = [row for row in rows if row.shown_bands == widest.shown_bands and metric in row.metrics]
    floors = tuple(dict.fromkeys(row.model for row in rows if row.is_floor))
    traces = tuple(
        _share_trace([row for row in here if row.model == model], model, i, metric, floors)
        for i, model in enumerate(models)
    )
    layout = {
        "xaxis": axis("share of the train split, %") | {"type": "log"},
        "yaxis": axis(_axis_title(metric)),
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    heading = f"{rows[0].probe}, {METRIC_INFO[metric].title} on {widest.shown_bands} by share of train"
    alt = f"{heading}: mean over seeds for {', '.join(models)}, with the range of the seeds"
    return Chart(name, heading, alt, traces, layout, 340)


def _share_trace(rows: Sequence[ProbeRow], model: str, position: int, metric: str, floors: Sequence[str]) -> Trace:
    scale = 100 if METRIC_INFO[metric].percent else 1
    shares = sorted({row.train_share for row in rows})
    values = [[scale * row.metrics[metric] for row in rows if row.train_share == share] for share in shares]
    means = [sum(found) / len(found) for found in values]
    colour, symbol = model_style(model, position, floors)
    spread = {
        "type": "data",
        "symmetric": False,
        "array": finite(max(found) - mean for found, mean in zip(values, means, strict=True)),
        "arrayminus": finite(mean - min(found) for found, mean in zip(values, means, strict=True)),
        "width": 0,
    }
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(model),
        "x": finite(100 * share for share in shares),
        "y": finite(means),
        "error_y": spread,
        "marker": {"color": colour, "symbol": symbol, "size": 8},
        "line": {"color": colour, "width": 2},
    }
