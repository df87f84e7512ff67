"""Section of the page: which model of a benchmark is above which, with every test."""

from __future__ import annotations

from dataclasses import dataclass

from terrasieve.probes.row_tables import span
from terrasieve.probes.significance import Comparison, PairedTest
from terrasieve.probes.statements import NOTE, sentence
from terrasieve.report.run import Run
from terrasieve.report.wording import number
from terrasieve.tables import MISSING, Cell, Table, row_of

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
