"""Probe rows as a table on screen, as Markdown, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from terrasieve.errors import ArchiveError
from terrasieve.probes.metrics import METRIC_INFO, Task
from terrasieve.probes.results import ProbeRow, described_in_words

HEADLINES: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "multilabel": ("micro_map", "macro_map"),
    "regression": ("rmse", "bias", "scatter_index"),
    "segmentation": ("miou", "average_accuracy"),
}
"""The metrics that a screen shows; files hold all."""


def shown(metric: str, value: float) -> str:
    """A value as people read it: per cent with one digit, or three significant digits in the target's unit."""
    return f"{100 * value:.1f}" if METRIC_INFO[metric].percent else f"{value:.3g}"


def title(metric: str) -> str:
    """Name of a metric with its unit, for a heading."""
    info = METRIC_INFO[metric]
    return f"{info.title} in per cent" if info.percent else info.title


def subject_of(row: ProbeRow) -> str:
    """Probe, target and share of the train split of a row."""
    target = "" if row.target == "label" else f" of {row.target}"
    share = "" if row.train_share == 1 else f" on {row.train_share:.0%} of train"
    return f"{row.probe}{target}{share}"


def best(metric: str, values: Iterable[float]) -> float:
    """The best of some values of a metric; of a bias, the one nearest to 0."""
    higher = METRIC_INFO[metric].higher_is_better
    if higher is None:
        return min(values, key=abs)
    return max(values) if higher else min(values)


def notes_of(rows: Iterable[ProbeRow]) -> tuple[str, ...]:
    """Every protocol, then every description of data, then every remark, each once."""
    rows = list(rows)
    remarks = (f"{row.model} on {row.inputs}: {row.note}" for row in rows if row.note)
    return tuple(dict.fromkeys([*(row.protocol for row in rows), *(row.data for row in rows), *remarks]))


def render(rows: Sequence[ProbeRow]) -> Group:
    """One table per target, probe and metric: a line per input, the trained model beside its floors, protocols beneath.

    Each cell holds the value and its 95 % interval. The best model of a line is bold, all but the first are dim.

    Args:
        rows: From :func:`terrasieve.probing.probe`; the first row's model is the trained one.
    """
    parts = dict.fromkeys((row.target, row.probe, row.train_share) for row in rows)
    tables = []
    for target, probe, share in parts:
        part = [row for row in rows if (row.target, row.probe, row.train_share) == (target, probe, share)]
        tables += [_table(part, metric) for metric in HEADLINES[part[0].task]]
    return Group(*tables, *(Text(note, style="dim") for note in notes_of(rows)))


def to_markdown(rows: Sequence[ProbeRow], metric: str = "accuracy") -> str:
    """One Markdown table: a line per input and probe, a column per model, values with intervals.

    Args:
        rows: From :func:`terrasieve.probing.probe`.
        metric: A name of :data:`terrasieve.probes.metrics.METRIC_INFO` that every row has.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    cells = {(row.shown_bands, row.probe, row.model): row for row in rows}
    lines = [f"| input | probe ({title(metric)}) | " + " | ".join(models) + " |"]
    lines.append("|---|---|" + "---|" * len(models))
    for bands, probe in dict.fromkeys((row.shown_bands, row.probe) for row in rows):
        line = [cells.get((bands, probe, model)) for model in models]
        values = ["-" if row is None else _plain(row, metric) for row in line]
        lines.append(f"| {_line_name(line)} | {probe} | " + " | ".join(values) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes_of(rows))])


def write_json(rows: Iterable[ProbeRow], path: Path) -> None:
    """Write the rows as a JSON list in full precision."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> list[ProbeRow]:
    """The rows that :func:`write_json` wrote.

    Raises:
        ArchiveError: The file is not there, damaged, or of a version with other fields.
    """
    try:
        return [row_from_values(values) for values in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArchiveError(f"{path} does not hold probe rows of this version: {error}. Probe the run again.") from error


def write_csv(rows: Iterable[ProbeRow], path: Path) -> None:
    """Write the rows as CSV in full precision: each metric with ``_low`` and ``_high``, ``chosen`` as JSON."""
    records = [_record(row) for row in rows]
    columns = dict.fromkeys(name for record in records for name in record)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns), restval="")
        writer.writeheader()
        writer.writerows(records)


def row_from_values(values: dict[str, Any]) -> ProbeRow:
    """A row from the fields that JSON holds.

    Raises:
        ValueError: A field is unknown.
        TypeError: A field is missing.
    """
    unknown = set(values) - {one.name for one in fields(ProbeRow)}
    if unknown:
        raise ValueError(f"unknown field {min(unknown)!r}")
    values = {**described_in_words(values), **values}
    intervals = {name: (float(low), float(high)) for name, (low, high) in values["ci95"].items()}
    tables = {
        "bands": tuple(values["bands"]),
        "classes": tuple(values.get("classes", ())),
        "confusion": tuple(map(tuple, values.get("confusion", ()))),
    }
    return ProbeRow(**{**values, **tables, "ci95": intervals})


def _record(row: ProbeRow) -> dict[str, str | int | float]:
    numbers: dict[str, float] = {}
    for name, value in row.metrics.items():
        low, high = row.ci95[name]
        numbers |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return {
        "target": row.target,
        "inputs": row.inputs,
        "probe": row.probe,
        "model": row.model,
        **numbers,
        "train_share": row.train_share,
        "seed": row.seed,
        "n_train": row.n_train,
        "n_test": row.n_test,
        "chosen": json.dumps(dict(row.chosen)),
        "note": row.note,
        "protocol": row.protocol,
        "data": row.data,
    }


def _plain(row: ProbeRow, metric: str) -> str:
    low, high = row.ci95[metric]
    return f"{shown(metric, row.metrics[metric])} ({shown(metric, low)}-{shown(metric, high)})"


def _line_name(line: Sequence[ProbeRow | None]) -> str:
    return next(row.inputs for row in line if row is not None)


def _table(rows: Sequence[ProbeRow], metric: str) -> Table:
    models = list(dict.fromkeys(row.model for row in rows))
    table = Table(
        title=f"{subject_of(rows[0])}, {title(metric)} with its 95 % interval",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("input", no_wrap=True)
    for model in models:
        table.add_column(model, justify="right", overflow="fold")
    cells = {(row.shown_bands, row.model, row.seed): row for row in rows}
    for bands, seed in dict.fromkeys((row.shown_bands, row.seed) for row in rows):
        line = [cells.get((bands, model, seed)) for model in models]
        table.add_row(_line_name(line), *_cells(line, metric))
    return table


def _cells(line: Sequence[ProbeRow | None], metric: str) -> list[Text]:
    leader = best(metric, [row.metrics[metric] for row in line if row is not None])
    return [
        Text("-", style="dim") if row is None else _cell(row, metric, leader, "" if position == 0 else "dim")
        for position, row in enumerate(line)
    ]


def _cell(row: ProbeRow, metric: str, leader: float, style: str) -> Text:
    low, high = (shown(metric, bound) for bound in row.ci95[metric])
    value = Text(shown(metric, row.metrics[metric]), style="bold" if row.metrics[metric] == leader else style)
    mark = "*" if row.note else ""
    # A dash between negative bounds could be read as a sign.
    span = f" {low}-{high}{mark}" if row.ci95[metric][0] >= 0 else f" {low} to {high}{mark}"
    return Text.assemble(value, (span, style))
