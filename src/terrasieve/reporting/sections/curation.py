"""Section of the page: what each round of curation kept and dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from terrasieve.reporting.charts import DROPPED, KEPT, Chart, Choice, axis, finite, plain
from terrasieve.reporting.run import Run
from terrasieve.reporting.wording import percent
from terrasieve.runs import RoundRecord
from terrasieve.tables import MISSING, Cell, Table, row_of


@dataclass(frozen=True)
class Curation:
    """What the section shows; ``classes`` is None where labels were unknown."""

    table: Table
    occupancy: Choice | None
    classes: Choice | None


def curation(key: str, run: Run) -> Curation | None:
    """The section; None where there was no round.

    Args:
        key: Prefix of the ids, unique among the runs of the page.
        run: The run that the page is about.
    """
    if not run.rounds:
        return None
    latest_first = run.rounds[::-1]
    occupancy = tuple(_occupancy(f"{key}-occupancy-{one.round}", one) for one in latest_first if one.group_sizes)
    labelled = [one for one in latest_first if one.diagnostics.classes_before]
    classes = tuple(_classes(f"{key}-classes-{one.round}", one) for one in labelled)
    return Curation(
        rounds_table(run.rounds),
        Choice(f"{key}-occupancy", "Round", occupancy) if occupancy else None,
        Choice(f"{key}-classes", "Round", classes) if classes else None,
    )


def rounds_table(rounds: Sequence[RoundRecord]) -> Table:
    """What each round of curation chose, a row a round.

    Args:
        rounds: The rounds of one run, the first first.
    """
    return Table(
        title="Rounds of curation",
        columns=("round", "before step", "pool", "effective clusters", "fullest cluster", "coverage", "new", "seconds"),
        rows=tuple(map(_round_row, rounds)),
        notes=(
            "Effective clusters: exponential of the entropy of the clusters' shares, candidates → pool, of so many "
            "clusters. Coverage: mean distance of a dropped sample to the nearest kept one, between unit vectors; "
            "compare it between pools of one size.",
        ),
    )


def _round_row(one: RoundRecord) -> tuple[Cell, ...]:
    found = one.diagnostics
    before, after = found.occupancy_before, found.occupancy_after
    return row_of(
        str(one.round),
        f"{one.step:,}",
        Cell(f"{one.pool:,}", f"of {one.candidates:,}"),
        Cell(f"{before.effective:.0f} → {after.effective:.0f}", f"of {before.groups:,}"),
        f"{percent(before.largest, 1)} → {percent(after.largest, 1)}",
        MISSING if found.coverage_mean is None else f"{found.coverage_mean:.3f}",
        MISSING if found.turnover is None else percent(found.turnover),
        f"{one.duration:.1f}",
    )


def _occupancy(name: str, one: RoundRecord) -> Chart:
    order = sorted(range(len(one.group_sizes)), key=lambda cluster: -one.group_sizes[cluster])
    ranks = list(range(1, len(order) + 1))
    before = [100 * one.group_sizes[cluster] / max(1, sum(one.group_sizes)) or None for cluster in order]
    after = [100 * one.quotas[cluster] / max(1, sum(one.quotas)) or None for cluster in order] if one.quotas else []
    traces = (
        {
            "type": "scatter",
            "mode": "lines",
            "name": "candidates",
            "x": ranks,
            "y": finite(before),
            "line": {"color": DROPPED, "width": 3},
            "hovertemplate": "cluster %{x}: %{y:.3g} %",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "pool",
            "x": ranks[: len(after)],
            "y": finite(after),
            "marker": {"color": KEPT, "size": 5, "opacity": 0.75},
            "hovertemplate": "cluster %{x}: %{y:.3g} %",
        },
    )
    layout = {
        "xaxis": axis("cluster, the fullest first"),
        "yaxis": axis("share of samples, %") | {"type": "log", "dtick": 1},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    found = one.diagnostics
    fullest = [percent(part.largest, 1) for part in (found.occupancy_before, found.occupancy_after)]
    alt = (
        f"Share of each cluster in round {one.round}: the fullest holds {fullest[0]} of the candidates, and the "
        f"fullest {fullest[1]} of the pool"
    )
    return Chart(name, f"round {one.round}, before step {one.step:,}", alt, traces, layout, 340)


def _classes(name: str, one: RoundRecord) -> Chart:
    found = one.diagnostics
    before, after = (balance.counts if balance else {} for balance in (found.classes_before, found.classes_after))
    classes = sorted(before, key=lambda label: -before[label])
    kept = [after.get(label, 0) for label in classes]
    dropped = [before[label] - count for label, count in zip(classes, kept, strict=True)]
    labels = [plain(label) for label in classes]
    traces = tuple(
        {
            "type": "bar",
            "orientation": "h",
            "name": what,
            "y": labels,
            "x": counts,
            "marker": {"color": colour},
            "hovertemplate": "%{y}: %{x:,} " + what,
        }
        for what, counts, colour in (("kept", kept, KEPT), ("dropped", dropped, DROPPED))
    )
    layout = {
        "barmode": "stack",
        "xaxis": axis("samples"),
        "yaxis": axis() | {"autorange": "reversed"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    alt = f"Round {one.round} by class: " + ", ".join(
        f"{label} {a:,} kept, {b:,} dropped" for label, a, b in zip(classes, kept, dropped, strict=True)
    )
    return Chart(name, f"round {one.round}, before step {one.step:,}", alt, traces, layout, 120 + 26 * len(classes))
