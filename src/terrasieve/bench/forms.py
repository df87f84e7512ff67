"""Measured rows in the form of the papers' tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from terrasieve.bench.published import OCEANSAR, OCEANSAR_TABLE, RS_BYOL_TABLE_2, PublishedLine, lines_for
from terrasieve.probes.finetune import NAME as END_TO_END
from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import notes_of, shown, span, title
from terrasieve.tables import MISSING, Cell, Table, row_of

_MARKS = {
    "*": "* trained end to end on the labels, without a probe",
    "+": "+ a band copied into every channel",
}
_CONTEXT = "published numbers: full-size networks, other splits and sizes; they are context, not a comparison"


def bands_by_models(rows: Sequence[ProbeRow], probe: str, metric: str, layout: str) -> Table:
    """The form of RS-BYOL's Table II: a line per input, a column per model, and a column of what was published.

    A model that was trained end to end has no probe; its own number stands in its column, marked.

    Args:
        rows: Results on one target, of one or several seeds.
        probe: Name of the probe that the table is about.
        metric: Name of the metric in the cells.
        layout: Name of the archive's layout, which says which published numbers belong beside.
    """
    fitting = [row for row in rows if row.probe in (probe, END_TO_END)]
    models = list(dict.fromkeys(row.model for row in fitting))
    shown = {row.shown_bands: row.bands for row in fitting}
    cells = [
        [_cell([row for row in fitting if (row.shown_bands, row.model) == (one, m)], metric) for m in models]
        for one in shown
    ]
    printed = [lines_for(layout, bands) for bands in shown.values()]
    notes = [note for sign, note in _MARKS.items() if any(cell.mark == sign for line in cells for cell in line)]
    columns = ("input", *models)
    lines = [row_of(one, *line) for one, line in zip(shown, cells, strict=True)]
    if any(printed):
        columns = (*columns, f"published F1 ({RS_BYOL_TABLE_2})")
        texts = ["; ".join(f"{one.dataset} {one.bands}: {_values(one)}" for one in found) for found in printed]
        lines = [(*line, Cell(text)) for line, text in zip(lines, texts, strict=True)]
        notes.append(_CONTEXT)
    seeds = len({row.seed for row in rows})
    interval = "95 % interval" if seeds == 1 else f"mean of {seeds} seeds (lowest to highest)"
    return Table(f"{probe}: {title(metric)}, {interval}", columns, tuple(lines), (*notes, *notes_of(fitting)))


def models_by_targets(rows: Sequence[ProbeRow], metrics: Sequence[str] = ("accuracy", "rmse")) -> Table:
    """The form of OceanSAR-1's table: a line per model and input, a column per target and probe, published lines below.

    Args:
        rows: Results on several targets.
        metrics: Names of metrics: a column holds the first of these that its target's probes measure.
    """
    columns = [
        (target, probe, metric)
        for target, probe in dict.fromkeys((row.target, row.probe) for row in rows)
        for metric in metrics
        if any(metric in row.metrics for row in rows if row.target == target)
    ]
    lines = []
    for model, bands in dict.fromkeys((row.model, row.shown_bands) for row in rows):
        own = [row for row in rows if (row.model, row.shown_bands) == (model, bands)]
        cells = [[row for row in own if (row.target, row.probe) == (target, probe)] for target, probe, _ in columns]
        values = (_cell(cell, metric) for cell, (_, _, metric) in zip(cells, columns, strict=True))
        lines.append(row_of(f"{model}, {bands}", *values))
    header = ("model", *(f"{target}, {probe}: {title(metric)}" for target, probe, metric in columns))
    published = "; ".join(f"{line.dataset} ({METRIC_INFO[line.metric].title}): {_values(line)}" for line in OCEANSAR)
    notes = (f"published ({OCEANSAR_TABLE}): {published}", *notes_of(rows))
    return Table("Frozen features on each target, with 95 % intervals", header, tuple(lines), notes)


def long_table(rows: Iterable[ProbeRow], published: Iterable[PublishedLine]) -> Table:
    """One row per number in full precision, with a column that says whether it is ours or whose it is.

    Args:
        rows: Results of the benchmark, each with all its metrics.
        published: Lines of the papers' tables, which come last.
    """
    columns = ("source", "data", "model", "inputs", "target", "probe", "seed", "metric", "value", "low", "high", "note")
    lines = []
    for row in rows:
        for name, value in row.metrics.items():
            own = ("this run", row.data, row.model, row.inputs, row.target, row.probe, str(row.seed))
            lines.append(row_of(*own, name, *map(str, (value, *row.ci95[name])), row.note))
    for line in published:
        for model, value in line.values.items():
            facts = (line.source, line.dataset, model, line.bands, "", "", "")
            lines.append(row_of(*facts, line.metric, str(value), "", "", "published"))
    return Table("", columns, tuple(lines))


def _cell(rows: Sequence[ProbeRow], metric: str) -> Cell:
    """Value and interval of one row, or mean and range over the seeds of several."""
    if not rows or metric not in rows[0].metrics:
        return MISSING
    values = [row.metrics[metric] for row in rows]
    low, high = rows[0].ci95[metric] if len(rows) == 1 else (min(values), max(values))
    mark = "*" if rows[0].probe == END_TO_END else "+" if rows[0].note else ""
    return Cell(shown(metric, float(np.mean(values))), span(shown(metric, low), shown(metric, high)), mark)


def _values(line: PublishedLine) -> str:
    return ", ".join(f"{model} {shown(line.metric, value)}" for model, value in line.values.items())
