"""Probe rows as a table on screen, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from terrasieve.probes.metrics import METRICS
from terrasieve.probes.rows import ProbeRow

METRIC_TITLES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


def render(rows: Sequence[ProbeRow]) -> Group:
    """One table per probe and metric: a line per input, the trained model beside its floors, protocols beneath.

    Each cell holds the value and its 95 % interval in per cent. The best model of a line is bold, the floors are dim.

    Args:
        rows: From :func:`terrasieve.probes.evaluate.evaluate`; the first row's model is the trained one.
    """
    probes = dict.fromkeys(row.probe for row in rows)
    tables = [_table([row for row in rows if row.probe == probe], metric) for probe in probes for metric in METRICS]
    notes = dict.fromkeys([*(row.protocol for row in rows), *(row.data for row in rows)])
    return Group(*tables, *(Text(note, style="dim") for note in notes))


def to_markdown(rows: Sequence[ProbeRow], metric: str = "accuracy") -> str:
    """One Markdown table: a line per input and probe, a column per model, values in per cent with intervals.

    Args:
        rows: From :func:`terrasieve.probes.evaluate.evaluate`.
        metric: ``accuracy`` or ``macro_f1``.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    cells = {(row.inputs, row.probe, row.model): row for row in rows}
    lines = [f"| input | probe ({METRIC_TITLES[metric]}, %) | " + " | ".join(models) + " |"]
    lines.append("|---|---|" + "---|" * len(models))
    for inputs, probe in dict.fromkeys((row.inputs, row.probe) for row in rows):
        values = [_markdown_cell(cells.get((inputs, probe, model)), metric) for model in models]
        lines.append(f"| {inputs} | {probe} | " + " | ".join(values) + " |")
    notes = dict.fromkeys([*(row.protocol for row in rows), *(row.data for row in rows)])
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def _markdown_cell(row: ProbeRow | None, metric: str) -> str:
    if row is None:
        return "-"
    low, high = (100 * bound for bound in row.ci95[metric])
    return f"{100 * row.metrics[metric]:.1f} ({low:.1f}-{high:.1f})"


def write_json(rows: Iterable[ProbeRow], path: Path) -> None:
    """Write the rows as a JSON list in full precision."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


def write_csv(rows: Iterable[ProbeRow], path: Path) -> None:
    """Write the rows as CSV in full precision: each metric with ``_low`` and ``_high``, ``chosen`` as JSON."""
    records = [_record(row) for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(records)


def _record(row: ProbeRow) -> dict[str, str | int | float]:
    numbers: dict[str, float] = {}
    for name in METRICS:
        low, high = row.ci95[name]
        numbers |= {name: row.metrics[name], f"{name}_low": low, f"{name}_high": high}
    return {
        "inputs": row.inputs,
        "probe": row.probe,
        "model": row.model,
        **numbers,
        "n_train": row.n_train,
        "n_test": row.n_test,
        "chosen": json.dumps(dict(row.chosen)),
        "protocol": row.protocol,
        "data": row.data,
    }


def _table(rows: Sequence[ProbeRow], metric: str) -> Table:
    models = list(dict.fromkeys(row.model for row in rows))
    cells = {(row.inputs, row.model): row for row in rows}
    table = Table(
        title=f"{rows[0].probe}, {METRIC_TITLES[metric]} in per cent with its 95 % interval",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("input", no_wrap=True)
    for model in models:
        table.add_column(model, justify="right", overflow="fold")
    for inputs in dict.fromkeys(row.inputs for row in rows):
        table.add_row(inputs, *_cells([cells.get((inputs, model)) for model in models], metric))
    return table


def _cells(line: Sequence[ProbeRow | None], metric: str) -> list[Text]:
    best = max(row.metrics[metric] for row in line if row is not None)
    return [
        Text("-", style="dim") if row is None else _cell(row, metric, best, "" if position == 0 else "dim")
        for position, row in enumerate(line)
    ]


def _cell(row: ProbeRow, metric: str, best: float, style: str) -> Text:
    low, high = (100 * bound for bound in row.ci95[metric])
    value = Text(f"{100 * row.metrics[metric]:.1f}", style="bold" if row.metrics[metric] == best else style)
    return Text.assemble(value, (f" {low:.1f}-{high:.1f}", style))
