"""Section of the page: several runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from terrasieve.probes.results import ProbeRow
from terrasieve.report.charts import Chart
from terrasieve.report.grouping import Group, groups_of
from terrasieve.report.run import Run
from terrasieve.report.sections.scores import metric_table
from terrasieve.report.sections.training import curves
from terrasieve.report.wording import listed
from terrasieve.tables import Table


@dataclass(frozen=True)
class Comparison:
    """What the section shows.

    Attributes:
        cautions: Why numbers may not be comparable, one sentence each.
        tables: Name of the probe and a table with a column per run: its trained model, on what at least two runs share.
        charts: Curves of the runs drawn over one another.
    """

    cautions: tuple[str, ...]
    tables: tuple[tuple[str, Table], ...]
    charts: tuple[Chart, ...]


def comparison(runs: Sequence[Run]) -> Comparison | None:
    """The section; None for a single run."""
    if len(runs) < 2:
        return None
    trained = ((run, row) for run in runs for row in run.rows if row.model == run.rows[0].model)
    rows = _shared([replace(row, model=run.name) for run, row in trained])
    groups = groups_of(rows)
    tables = tuple((group.title, metric_table(group, group.metrics[0])) for group in groups)
    return Comparison(_doubts(groups), tables, curves("compared", runs))


def _key(row: ProbeRow) -> tuple[str, str, float, str, int]:
    return (row.target, row.probe, row.train_share, row.shown_bands, row.seed)


def _shared(rows: Sequence[ProbeRow]) -> list[ProbeRow]:
    named: dict[tuple[str, str, float, str, int], set[str]] = {}
    for row in rows:
        named.setdefault(_key(row), set()).add(row.model)
    return [row for row in rows if len(named[_key(row)]) > 1]


def _doubts(groups: Sequence[Group]) -> tuple[str, ...]:
    advice = "compare no numbers between them, or probe all runs alike"
    doubts = []
    for group in groups:
        rows = [row for line in group.lines for row in line.rows.values()]
        differing = [
            what
            for what, field in (("data", "data"), ("protocols", "protocol"), ("sizes of the test split", "n_test"))
            if len({frozenset(getattr(row, field) for row in rows if row.model == model) for model in group.models}) > 1
        ]
        if differing:
            doubts.append(f"{group.title}: the runs were scored with different {listed(differing)}; {advice}.")
    return tuple(doubts)
