"""Section of the page: how training went."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from terrasieve.reporting.charts import ACCENT, RUN_COLOURS, Chart, Colour, Trace, axis, chance_mark, finite, plain
from terrasieve.reporting.run import Run
from terrasieve.reporting.wording import duration, number, percent

TITLES = {
    "loss": "Loss",
    "learning_rate": "Learning rate",
    "effective_rank": "Effective rank of the features",
    "feature_std": "Feature std (1 is evenly spread)",
    "knn_accuracy": "kNN accuracy on held-out samples",
    "images_per_s": "Images per second",
    "pool": "Samples in the pool",
}
_BESIDE = {
    "knn_accuracy": {"student_knn_accuracy": "student, not exported", "teacher_knn_accuracy": "teacher, not exported"}
}
"""Columns that are drawn into the chart of another one, with the names of their lines, on the page of a single run."""
_NOT_CURVES = {
    "step",
    "epoch",
    "seconds",
    "curation_seconds",
    "turnover",
    "effective_clusters",
    "data_wait",
    "knn_chance",
    "knn_samples",
}
_NOT_CURVES |= {*TITLES}
_NOT_CURVES |= {column for columns in _BESIDE.values() for column in columns}
_MOST_POINTS = 1500


@dataclass(frozen=True)
class Training:
    """What the section shows.

    Attributes:
        facts: Name and text of each number of the whole run.
        charts: The curves that matter.
        more: The method's own curves, which the page shows on request.
        rounds: Whether lines in the charts mark rounds of curation.
    """

    facts: tuple[tuple[str, str], ...]
    charts: tuple[Chart, ...]
    more: tuple[Chart, ...]
    rounds: bool


def training(key: str, run: Run) -> Training | None:
    """The section; None where there is no log.

    Args:
        key: Prefix of the ids, unique among the runs of the page.
        run: The run that the page is about.
    """
    if not run.log:
        return None
    own = dict.fromkeys(name for row in run.log for name in row if name not in _NOT_CURVES)
    named = {name: name.replace("_", " ") for name in own}
    own_curves = curves(f"{key}-own", [run], named)
    return Training(_facts(run), curves(key, [run], TITLES), own_curves, bool(run.rounds))


def curves(key: str, runs: Sequence[Run], titles: dict[str, str] | None = None) -> tuple[Chart, ...]:
    """One chart per column of the logs that any run filled, a line per run.

    Args:
        key: Prefix of the ids, unique among the runs of the page.
        runs: Runs that are drawn over one another, under their names.
        titles: Titles of the columns that are drawn, by name of the column; :data:`TITLES` when None.
    """
    wanted = TITLES if titles is None else titles
    charts = []
    for column, title in wanted.items():
        filled = [run for run in runs if run.series(column)[1]]
        if column == "pool":
            # A pool that never changed is a fact of its own section, not a curve.
            filled = [run for run in filled if len(set(run.series(column)[1])) > 1]
        if filled:
            charts.append(_curve(f"{key}-{column}", column, title, filled, runs))
    return tuple(charts)


def _curve(name: str, column: str, title: str, runs: Sequence[Run], among: Sequence[Run]) -> Chart:
    alone = len(among) == 1
    # By its place among all, so that a run has one colour in every chart.
    styles = [(ACCENT, "solid") if alone else run_style(among.index(run)) for run in runs]
    traces = tuple(_line(run, column, run.name, *style) for run, style in zip(runs, styles, strict=True))
    if alone and (beside := [one for one in _BESIDE.get(column, {}).items() if runs[0].series(one[0])[1]]):
        # Student and teacher are one encoder at two ages: one colour, told apart by the stroke.
        traces = (_line(runs[0], column, "exported encoder", ACCENT, "solid"),)
        traces += tuple(_line(runs[0], other, name, ACCENT, "dot") for other, name in beside)
    line = {"color": "var(--guide)", "width": 1, "dash": "dot"}
    mark = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "line": line}
    ends = "; ".join(f"{run.name} ends at {number(run.series(column)[1][-1])}" for run in runs)
    shapes = _chance(runs) if column == "knn_accuracy" else []
    layout = {
        "xaxis": axis("step"),
        "yaxis": axis() | ({"tickformat": ".1%"} if column == "knn_accuracy" else {}),
        "showlegend": len(traces) > 1 or bool(shapes),
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"t": 12},
        "shapes": [*shapes, *(mark | {"x0": one.step, "x1": one.step} for one in (runs[0].rounds if alone else ()))],
    }
    return Chart(name, title, f"{title} by step: {ends}", traces, layout, 210 if alone else 260)


def _chance(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Where the online kNN would be by chance, where the runs say so and agree."""
    levels = {value for run in runs for value in run.series("knn_chance")[1]}
    if len(levels) != 1 or not math.isfinite(level := levels.pop()):
        return []
    return [chance_mark(level, f"chance, {percent(level, 1)}", upright=False)]


def run_style(position: int) -> tuple[Colour, str]:
    """Colour and stroke of a run among several."""
    return f"var(--run-{position % RUN_COLOURS})", ("solid", "dash", "dot", "dashdot")[position // RUN_COLOURS % 4]


def _line(run: Run, column: str, name: str, colour: Colour, dash: str) -> Trace:
    steps, values = run.series(column)
    stride = -(-len(steps) // _MOST_POINTS)
    sparse = len(steps) <= 12
    return {
        "type": "scatter",
        "mode": "lines+markers" if sparse else "lines",
        "name": plain(name),
        # Counted from the end, so that the last value is drawn.
        "x": finite(steps[::-1][::stride][::-1]),
        "y": finite(values[::-1][::stride][::-1]),
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"color": colour, "size": 7},
        "hovertemplate": "step %{x:,}: %{y}",
    }


def _facts(run: Run) -> tuple[tuple[str, str], ...]:
    last = run.log[-1]
    speeds = run.series("images_per_s")[1]
    facts = [("steps", f"{last['step']:,.0f}")]
    facts += [("passes over the pool", number(last["epoch"]))] if "epoch" in last else []
    facts += [("duration", duration(last["seconds"]))] if "seconds" in last else []
    facts += [("of it curation", duration(last["curation_seconds"]))] if last.get("curation_seconds") else []
    facts += [("images per second", number(statistics.median(speeds), 3))] if speeds else []
    facts += [("last loss", number(last["loss"]))] if "loss" in last else []
    facts += (
        [("teacher's initial weights left", percent(last["teacher_memory"], 1))] if "teacher_memory" in last else []
    )
    return tuple(facts)
