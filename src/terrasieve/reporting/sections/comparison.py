"""Sections of the page that compare: several runs beside each other, and the models of a benchmark with every test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import span
from terrasieve.probes.significance import Comparison, PairedTest
from terrasieve.probes.statements import NOTE, sentence
from terrasieve.reporting.charts import Chart
from terrasieve.reporting.grouping import Group, groups_of
from terrasieve.reporting.run import Run
from terrasieve.reporting.sections.scores import metric_table
from terrasieve.reporting.sections.seeds import Seeds, seeds
from terrasieve.reporting.sections.training import curves
from terrasieve.reporting.wording import listed, number
from terrasieve.tables import MISSING, Cell, Table, row_of


@dataclass(frozen=True)
class RunComparison:
    """What the section shows.

    Attributes:
        cautions: Why numbers may not be comparable, one sentence each.
        seeds: Runs that differ in nothing but their seed; None where no two do.
        tables: Name of the probe and a table with a column per run: its trained model, on what at least two runs share.
        charts: Curves of the runs drawn over one another.
    """

    cautions: tuple[str, ...]
    seeds: Seeds | None
    tables: tuple[tuple[str, Table], ...]
    charts: tuple[Chart, ...]


def comparison(runs: Sequence[Run]) -> RunComparison | None:
    """The section; None for a single run."""
    if len(runs) < 2:
        return None
    rows: list[ProbeRow] = []
    for run in runs:
        trained = [row for row in run.rows if row.model == run.rows[0].model]
        # The seed of a run of one seed is its own and no condition.
        seed = {"seed": 0} if len({row.seed for row in trained}) == 1 else {}
        rows += [row.model_copy(update={"model": run.name, **seed}) for row in trained]
    groups = groups_of(_shared(rows))
    tables = tuple((group.title, metric_table(group, group.metrics[0])) for group in groups)
    return RunComparison(_doubts(groups), seeds(runs), tables, curves("compared", runs))


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


# ---------------------------------------------------- the models of a benchmark

_COLUMNS = ("model", "against", "over", "difference", "paired t, p", "Wilcoxon, p", "Cohen's d_z", "rank-biserial")


@dataclass(frozen=True)
class Tested:
    """What the section shows: each comparison in words, what to bear in mind, and every number."""

    sentences: tuple[str, ...]
    note: str
    table: Table


def tested(key: str, run: Run) -> Tested | None:
    """The section; None where no models of a benchmark were compared.

    Args:
        key: Prefix of the ids; this section needs none.
        run: The run that the page is about.
    """
    if not run.comparisons:
        return None
    table = Table(
        title="Paired tests; bold: told apart at 0.05 after Holm's correction",
        columns=_COLUMNS,
        rows=tuple(map(_row, run.comparisons)),
    )
    return Tested(tuple(map(sentence, run.comparisons)), NOTE, table)


def _row(one: Comparison) -> tuple[Cell, ...]:
    difference = f"{number(one.scale * one.difference, 3)} {one.unit}".rstrip()
    bounds = () if one.low is None or one.high is None else (one.scale * one.low, one.scale * one.high)
    return row_of(
        one.name_a,
        one.name_b,
        f"{one.n} {one.over}",
        Cell(difference, span(*(number(bound, 3) for bound in bounds)) if bounds else "", best=bool(one.significant)),
        _p(one.t),
        _p(one.wilcoxon),
        _effect(one.cohens_dz),
        _effect(one.rank_biserial),
    )


def _p(test: PairedTest | None) -> Cell:
    if test is None:
        return MISSING
    return Cell(number(test.adjusted, 2), f"uncorrected {number(test.p, 2)}" if test.family > 1 else "")


def _effect(size: float | None) -> Cell:
    return MISSING if size is None else Cell(number(size, 2))
