"""Charts of scores: the models side by side with their intervals, and where chance would be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.probes.row_tables import Line, interval_text, shown
from terrasieve.reporting.charts import (
    ACCENT,
    FAINT,
    MUTED,
    OTHER_COLOURS,
    Chart,
    Trace,
    axis,
    chance_mark,
    finite,
    plain,
)
from terrasieve.reporting.grouping import Group, value_text
from terrasieve.reporting.wording import percent

_FLOOR_SYMBOLS = ("diamond-open", "square-open")
LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
_OTHER_SYMBOLS = ("triangle-up", "triangle-down", "x", "star", "pentagon")


def headline_chart(name: str, group: Group) -> Chart | None:
    """The models one below the other on the main line, by the headline metric; None where the trained one has none.

    Args:
        name: Id of the chart, unique on the page.
        group: What was scored by one probe on one target.
    """
    line, metric = group.main, group.headline
    if line is None:
        return None
    shown_models = [model for model in group.models if model in line.rows and metric in line.rows[model].metrics]
    # One line of its own for each model, so that names stand beside the points.
    only = replace(group, lines=(Line(line.name, {model: line.rows[model] for model in shown_models}),))
    level = chance(group, metric)
    traces = tuple(
        {**_dot_trace(only, group.models.index(model), metric), "y": [plain(model)]} for model in shown_models
    )
    layout = {
        "xaxis": axis(metric_axis_title(metric)) | {"range": _range(only, metric, level)},
        "yaxis": axis() | {"categoryorder": "array", "categoryarray": [plain(one) for one in shown_models[::-1]]},
        "showlegend": level is not None,
        "legend": LEGEND,
        "shapes": chance_line(level),
    }
    told = ", ".join(f"{model} {value_text(line.rows[model], metric)}" for model in shown_models)
    heading = f"{group.title} {METRIC_INFO[metric].title} on {line.name}, with 95\u00a0% intervals"
    at_chance = "" if level is None else f"; chance is {percent(level, 1)}"
    traces = tuple({**trace, "showlegend": False} for trace in traces)
    return Chart(name, heading, f"{heading}: {told}{at_chance}", traces, layout, 84 + 30 * len(shown_models))


def dot_chart(name: str, group: Group, metric: str) -> Chart:
    """Every model on every line by one metric.

    Args:
        name: Id of the chart, unique on the page.
        group: What was scored by one probe on one target.
        metric: Name of the metric.
    """
    level = chance(group, metric)
    traces = tuple(_dot_trace(group, position, metric) for position in range(len(group.models)))
    lines = [plain(line.name) for line in group.lines]
    layout = {
        "xaxis": axis(metric_axis_title(metric)) | {"range": _range(group, metric, level)},
        "yaxis": axis() | {"categoryorder": "array", "categoryarray": lines, "autorange": "reversed"},
        "scattermode": "group",
        "scattergap": 0.35,
        "legend": LEGEND,
        "shapes": chance_line(level),
    }
    heading = f"{group.title}, {METRIC_INFO[metric].title}"
    at_chance = "" if level is None else f"; chance is {percent(level, 1)}"
    alt = f"{heading} of {', '.join(group.models)} on {len(lines)} inputs, with 95 % intervals; numbers in the tables"
    height = 130 + len(lines) * max(28, 14 * len(group.models))
    return Chart(name, heading, f"{alt}{at_chance}", traces, layout, height)


def chance(group: Group, metric: str) -> float | None:
    """What a model reaches that names the most frequent class of the test split for every sample.

    None where the metric is no accuracy, or no row says how often each class occurs.
    """
    rows = [row for line in group.lines for row in line.rows.values() if row.confusion]
    if metric not in ("accuracy", "average_accuracy") or not rows:
        return None
    counts = np.asarray(rows[0].confusion, dtype=np.float64).sum(axis=1)
    # The mean of the classes' recalls is 1 for that class and 0 for the others.
    return float(counts.max() / counts.sum() if metric == "accuracy" else 1 / np.count_nonzero(counts))


def chance_line(level: float | None) -> list[dict[str, Any]]:
    """The mark of chance on a horizontal axis in per cent; nothing where there is no chance."""
    if level is None:
        return []
    return [chance_mark(100 * level, f"chance, {percent(level, 1)}", upright=True)]


def _range(group: Group, metric: str, level: float | None) -> list[float]:
    """Ends of the axis: all intervals and chance with a little room, since Plotly would start grouped points at 0."""
    rows = [row for line in group.lines for row in line.rows.values() if metric in row.metrics]
    scale = 100 if METRIC_INFO[metric].percent else 1
    ends = [
        scale * end for row in rows for end in (row.metrics[metric], *row.ci95.get(metric, ())) if math.isfinite(end)
    ]
    ends += [] if level is None else [scale * level]
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
    return f"var(--other-{position % OTHER_COLOURS})", _OTHER_SYMBOLS[position % len(_OTHER_SYMBOLS)]


def metric_axis_title(metric: str) -> str:
    """The metric's name with its unit."""
    info = METRIC_INFO[metric]
    return f"{info.title},\u00a0%" if info.percent else info.title
