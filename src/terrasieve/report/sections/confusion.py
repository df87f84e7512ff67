"""Confusion matrices of the trained model, and scores per class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from terrasieve.probes.results import ProbeRow
from terrasieve.report.charts import Chart, Choice, axis, heatmap, plain
from terrasieve.report.grouping import Group
from terrasieve.report.tables import MISSING, Cell, Table

_READABLE_COUNT = 9_999
_CELL_HEIGHT = 34
_HOVER = "true %{y}<br>predicted %{x}<br>%{customdata:,} (%{z:.1f}\u00a0% of the true class)<extra></extra>"


def confusion_choice(key: str, groups: Sequence[Group]) -> Choice | None:
    """The trained model's matrix for each probe and input; None where no row has one.

    Args:
        key: Prefix of the ids.
        groups: See :func:`terrasieve.report.grouping.groups_of`.
    """
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


def per_class(group: Group) -> tuple[Table, ...]:
    """Recall of each class on the main line, IoU for a segmentation; empty where no row has a confusion matrix."""
    rows = group.main.rows if group.main else {}
    matrices = {model: np.asarray(row.confusion, dtype=np.float64) for model, row in rows.items() if row.confusion}
    if group.main is None or group.trained not in matrices:
        return ()
    names = class_names(rows[group.trained])
    segmentation = group.task == "segmentation"
    measure = _iou if segmentation else _recall
    columns = {model: measure(matrix) for model, matrix in matrices.items() if len(matrix) == len(names)}
    counts = matrices[group.trained].sum(axis=1)
    models = tuple(model for model in group.models if model in columns)
    lines = tuple(
        (
            name,
            (Cell(f"{counts[i]:,.0f}", dim=True), *(_class_cell(columns, model, i, group.floors) for model in models)),
        )
        for i, name in enumerate(names)
    )
    what, unit = ("IoU", "pixels") if segmentation else ("recall", "samples")
    caption = f"{group.title}, {what} per class in per cent on {group.main.name}"
    return (Table(caption, "class", (f"test {unit}", *models), lines),)


def class_names(row: ProbeRow) -> tuple[str, ...]:
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


def _recall(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return _ratio(counts.diagonal(), counts.sum(axis=1))


def _iou(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    hits = counts.diagonal()
    return _ratio(hits, counts.sum(axis=0) + counts.sum(axis=1) - hits)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return ratio


def _matrix(name: str, group: Group, row: ProbeRow, line: str) -> Chart:
    counts = np.asarray(row.confusion, dtype=np.float64)
    names = class_names(row)
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    cells, hover = heatmap(shares.tolist(), names, names, _texts(counts, shares), _HOVER, 100)
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


def _texts(counts: NDArray[np.float64], shares: NDArray[np.float64]) -> list[list[str]]:
    """Counts where they fit into a cell, else shares; nothing where there is none."""
    if counts.max(initial=0) <= _READABLE_COUNT:
        return [[f"{count:.0f}" if count else "" for count in row] for row in counts]
    return [[f"{share:.1f}" if share else "" for share in row] for row in shares]
