"""Section of the page: what the probes measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import HEADLINES, notes_of, score_table
from terrasieve.reporting.charts import Chart, Choice, Trace, axis, finite, heatmap, plain
from terrasieve.reporting.grouping import Group
from terrasieve.reporting.run import Run
from terrasieve.reporting.score_charts import dot_chart, metric_axis_title, model_style
from terrasieve.tables import MISSING, Cell, Table, row_of

_NARROW = 4
_READABLE_COUNT = 9_999
_CELL_HEIGHT = 34
_HOVER = "true %{y}<br>predicted %{x}<br>%{customdata:,} (%{z:.1f}\u00a0% of the true class)<extra></extra>"


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
        chart: A chart of each probe and headline metric, of which the page shows one at a time.
        groups: The tables of each probe on each target.
        confusion: Confusion matrices of the trained model; None where rows have none.
        classes: Tables of scores per class, which the page shows on request.
        curve: Scores by share of the train split; None where there is one share.
        notes: Protocols, data and remarks, one sentence each.
    """

    chart: Choice
    groups: tuple[GroupTables, ...]
    confusion: Choice | None
    classes: tuple[Table, ...]
    curve: Choice | None
    notes: tuple[str, ...]


def scores(key: str, run: Run) -> Scores | None:
    """The section; None where the run was not probed.

    Args:
        key: Prefix of the ids, unique among the runs of the page.
        run: The run that the page is about.
    """
    groups = run.groups
    if not groups:
        return None
    charts = [
        dot_chart(f"{key}-dots-{i}-{metric}", group, metric)
        for i, group in enumerate(groups)
        for metric in HEADLINES[group.task]
        if metric in group.metrics
    ]
    return Scores(
        chart=Choice(f"{key}-dots", "Probe and metric", tuple(charts)),
        groups=tuple(_tables(group) for group in groups),
        confusion=_confusion(key, groups),
        classes=tuple(table for group in groups for table in _per_class(group)),
        curve=_curves(key, run.rows),
        notes=notes_of(run.rows),
    )


def metric_table(group: Group, metric: str) -> Table:
    """One metric of every model on every line; the best of a line is marked, floors are dim."""
    rows = [row for line in group.lines for row in line.rows.values()]
    remarks = dict.fromkeys(f"* {row.model} on {row.inputs}: {row.note}" for row in rows if row.note)
    title = f"{metric_axis_title(metric)} (95\u00a0% interval)"
    return replace(score_table(rows, metric, group.models), title=title, notes=tuple(remarks))


def _tables(group: Group) -> GroupTables:
    first, *others = (metric_table(group, metric) for metric in group.metrics)
    more = ", ".join(METRIC_INFO[metric].title for metric in group.metrics[1:])
    return GroupTables(group.title, first, tuple(others), more)


def _curves(key: str, rows: Sequence[ProbeRow]) -> Choice | None:
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
        "yaxis": axis(metric_axis_title(metric)),
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
    error_bars = {
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
        "error_y": error_bars,
        "marker": {"color": colour, "symbol": symbol, "size": 8},
        "line": {"color": colour, "width": 2},
    }


# ---------------------------------------------------------------- confusion


def _confusion(key: str, groups: Sequence[Group]) -> Choice | None:
    """The trained model's matrix for each probe and input; None where no row has one."""
    charts = [
        _matrix(f"{key}-confusion-{i}-{j}", group, line.rows[group.trained], line.name)
        for i, group in enumerate(groups)
        for j, line in enumerate(group.lines)
        if group.trained in line.rows and line.rows[group.trained].confusion
    ]
    # The input with the most bands is what the first sentence of the page is about.
    main = groups[0].main.name if groups[0].main else ""
    first = [chart for chart in charts if (chart.group, chart.title) == (groups[0].title, main)]
    ordered = tuple(dict.fromkeys(chart.id for chart in [*first, *charts]))
    by_id = {chart.id: chart for chart in charts}
    return Choice(f"{key}-confusion", "Probe and input", tuple(by_id[name] for name in ordered)) if charts else None


def _per_class(group: Group) -> tuple[Table, ...]:
    """Recall of each class on the main line, IoU for a segmentation; empty where no row has a confusion matrix."""
    rows = group.main.rows if group.main else {}
    matrices = {model: np.asarray(row.confusion, dtype=np.float64) for model, row in rows.items() if row.confusion}
    if group.main is None or group.trained not in matrices:
        return ()
    names = _class_names(rows[group.trained])
    segmentation = group.task == "segmentation"
    columns = {model: _per_row(matrix, segmentation) for model, matrix in matrices.items() if len(matrix) == len(names)}
    counts = matrices[group.trained].sum(axis=1)
    models = tuple(model for model in group.models if model in columns)
    lines = tuple(
        row_of(
            name,
            Cell(f"{counts[i]:,.0f}", dim=True),
            *(_class_cell(columns, one, i, group.floors) for one in models),
        )
        for i, name in enumerate(names)
    )
    what, unit = ("IoU", "pixels") if segmentation else ("recall", "samples")
    title = f"{group.title}, {what} per class in per cent on {group.main.name}"
    return (Table(title, ("class", f"test {unit}", *models), lines),)


def _class_names(row: ProbeRow) -> tuple[str, ...]:
    """Names of the rows of a confusion matrix; numbers where the row has no names."""
    if len(row.classes) == len(row.confusion):
        return row.classes
    return tuple(f"class {code}" for code in range(len(row.confusion)))


def _class_cell(columns: dict[str, NDArray[np.float64]], model: str, position: int, floors: Sequence[str]) -> Cell:
    value = columns[model][position]
    if np.isnan(value):
        return MISSING
    top = max(column[position] for column in columns.values())
    return Cell(f"{100 * value:.1f}", best=bool(value == top), dim=model in floors)


def _per_row(counts: NDArray[np.float64], segmentation: bool) -> NDArray[np.float64]:
    """IoU of each class for a segmentation, else recall; NaN for a class that does not occur."""
    hits = counts.diagonal()
    whole = counts.sum(axis=1) + (counts.sum(axis=0) - hits if segmentation else 0)
    ratio: NDArray[np.float64] = np.divide(hits, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return ratio


def _matrix(name: str, group: Group, row: ProbeRow, line: str) -> Chart:
    counts = np.asarray(row.confusion, dtype=np.float64)
    names = _class_names(row)
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    # Counts where they fit into a cell, else shares; nothing where there is none.
    written, digits = (counts, 0) if counts.max(initial=0) <= _READABLE_COUNT else (shares, 1)
    texts = [[f"{value:.{digits}f}" if value else "" for value in row] for row in written]
    cells, hover = heatmap(shares.tolist(), names, names, texts, _HOVER, 100)
    traces = (cells | {"customdata": counts.astype(int).tolist()}, hover)
    layout = {
        "xaxis": axis("predicted") | {"showgrid": False, "tickangle": -40},
        "yaxis": axis("true")
        | {"showgrid": False, "categoryorder": "array", "categoryarray": [plain(one) for one in names[::-1]]},
    }
    unit = "pixels" if group.task == "segmentation" else "test samples"
    what = f"{counts.sum():,.0f} {unit} by true and predicted class"
    alt = f"Confusion matrix of {group.trained}, {group.title} on {line}: {what}"
    size = len(names) * _CELL_HEIGHT
    return Chart(name, line, alt, traces, layout, 130 + size, group.title, width=min(190 + len(names) * 40, 900))
