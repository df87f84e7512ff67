"""Probe rows as tables, and in files: JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from terrasieve.errors import ArchiveError
from terrasieve.files.writing import write_text, write_whole
from terrasieve.probes.metrics import METRIC_INFO, Task
from terrasieve.probes.results import ProbeRow
from terrasieve.tables import MISSING, Cell, Table, row_of

_ROWS = TypeAdapter(list[ProbeRow])

HEADLINES: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "multilabel": ("micro_map", "macro_map"),
    "regression": ("rmse", "bias", "scatter_index"),
    "segmentation": ("miou", "average_accuracy"),
}
"""The metrics that a screen shows; files hold all."""


@dataclass(frozen=True)
class Line:
    """One input under one probe on one target.

    Attributes:
        name: The input as people read it, with the seed where there are several.
        rows: The results of the models that were shown it, by name of the model.
    """

    name: str
    rows: Mapping[str, ProbeRow]


def shown(metric: str, value: float) -> str:
    """A value as people read it: per cent with one digit, or three significant digits in the target's unit."""
    return f"{100 * value:z.1f}" if METRIC_INFO[metric].percent else f"{value:z.3g}"


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


def span(low: str, high: str) -> str:
    """Two bounds as people write them; a dash before a negative bound could be read as a sign."""
    return f"{low} to {high}" if low.startswith("-") or high.startswith("-") else f"{low}\u2013{high}"


def interval_text(row: ProbeRow, metric: str) -> str:
    """The 95 % interval of a metric, such as ``81.9\u201384.4``; empty where the row has none."""
    interval = row.ci95.get(metric)
    return span(*(shown(metric, bound) for bound in interval)) if interval else ""


def lines_of(rows: Sequence[ProbeRow]) -> tuple[Line, ...]:
    """Rows of one probe on one target by input, and by seed where there are several."""
    places = dict.fromkeys((row.shown_bands, row.seed) for row in rows)
    seeded = len({seed for _, seed in places}) > 1
    lines = []
    for bands, seed in places:
        line = {row.model: row for row in rows if (row.shown_bands, row.seed) == (bands, seed)}
        name = next(iter(line.values())).inputs
        lines.append(Line(f"{name}, seed {seed}" if seeded else name, line))
    return tuple(lines)


def score_table(rows: Sequence[ProbeRow], metric: str, models: Sequence[str] = ()) -> Table:
    """One metric of every model on every input, the best of a row marked, with 95 % intervals.

    Args:
        rows: Results of one probe on one target with one share of the train split.
        metric: A name of :data:`terrasieve.probes.metrics.METRIC_INFO`; a row may lack it.
        models: Names of the models in the order of their columns; those of the rows, as they come, where empty.
    """
    models = models or tuple(dict.fromkeys(one.model for one in rows))
    lines = tuple(row_of(line.name, *_score_cells(line, models, metric)) for line in lines_of(rows))
    return Table(f"{subject_of(rows[0])}, {title(metric)} with its 95 % interval", ("input", *models), lines)


def score_tables(rows: Sequence[ProbeRow]) -> tuple[Table, ...]:
    """One table per target, probe, share of the train split and headline metric; all protocols beneath the last."""
    parts: dict[tuple[str, str, float], list[ProbeRow]] = {}
    for one in rows:
        parts.setdefault((one.target, one.probe, one.train_share), []).append(one)
    tables = [score_table(part, metric) for part in parts.values() for metric in HEADLINES[part[0].task]]
    return (*tables[:-1], *(replace(last, notes=notes_of(rows)) for last in tables[-1:]))


def write_json(rows: Iterable[ProbeRow], path: Path) -> None:
    """Write the rows as a JSON list in full precision."""
    write_text(path, _ROWS.dump_json(list(rows), indent=2).decode() + "\n")


def read_json(path: Path) -> list[ProbeRow]:
    """The rows that :func:`write_json` wrote.

    Raises:
        ArchiveError: The file is not there, damaged, or of a version with other fields.
    """
    try:
        return _ROWS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArchiveError(f"{path} does not hold probe rows of this version: {error}. Probe the run again.") from error


def write_csv(rows: Iterable[ProbeRow], path: Path) -> None:
    """Write the rows as CSV in full precision: each metric with ``_low`` and ``_high``, ``chosen`` as JSON."""
    records = [record_of(one) for one in rows]
    columns = tuple(dict.fromkeys(name for record in records for name in record))
    lines = tuple(row_of(*(str(record.get(name, "")) for name in columns)) for record in records)
    with write_whole(path) as partial:
        partial.write_bytes(Table("", columns, lines).to_csv().encode())


def record_of(row: ProbeRow) -> dict[str, str | int | float]:
    """A row of the CSV table, by the names of its columns."""
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


def _score_cells(line: Line, models: Sequence[str], metric: str) -> Iterable[Cell]:
    scored = [one.metrics[metric] for one in line.rows.values() if metric in one.metrics]
    top = best(metric, scored) if scored else None
    for model in models:
        one = line.rows.get(model)
        if one is None or metric not in one.metrics:
            yield MISSING
        else:
            value, mark = one.metrics[metric], "*" if one.note else ""
            yield Cell(shown(metric, value), interval_text(one, metric), mark, value == top, one.is_floor)
