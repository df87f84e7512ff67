"""Part of the comparison of runs: those that differ in nothing but their seed, each as a point."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import shown
from terrasieve.reporting.charts import MUTED, Chart, Choice, Colour, Trace, axis, finite, plain
from terrasieve.reporting.grouping import Group, groups_of
from terrasieve.reporting.run import Run
from terrasieve.reporting.score_charts import LEGEND, chance, chance_line, metric_axis_title
from terrasieve.reporting.sections.training import run_style


@dataclass(frozen=True)
class Seeds:
    """What is shown.

    Attributes:
        sentences: What each recipe reaches over its seeds, a sentence for each probe.
        choice: A chart for each probe with a point for each run.
    """

    sentences: tuple[str, ...]
    choice: Choice


@dataclass(frozen=True)
class _Series:
    """Rows that belong together: those of one recipe's runs, or of one floor beside them."""

    name: str
    colour: Colour
    symbol: str
    rows: tuple[ProbeRow, ...]


def seeds(runs: Sequence[Run]) -> Seeds | None:
    """Scores of runs that differ in their seed; None where no two do.

    Args:
        runs: Every run of the page; one without a configuration or without probe rows is left out.
    """
    recipes: dict[str, list[Run]] = {}
    for run in runs:
        if not run.rows or not run.config:
            continue
        train = run.config.get("train")
        if isinstance(train, Mapping):
            train = {name: value for name, value in train.items() if name != "seed"}
        but_seed = json.dumps([run.model, {**run.config, "train": train}], sort_keys=True, default=str)
        recipes.setdefault(but_seed, []).append(run)
    repeated = [alike for alike in recipes.values() if len(alike) > 1]
    if not repeated:
        return None
    groups = groups_of([row for alike in repeated for run in alike for row in run.rows])
    charts, sentences = [], []
    for number, group in enumerate(groups):
        series = [*_recipes(repeated, runs, group), *_floors(repeated, group)]
        charts.append(_chart(f"seeds-{number}", group, series))
        sentences += [_sentence(one, group) for one in series if one.colour != MUTED]
    return Seeds(tuple(filter(None, sentences)), Choice("seeds", "Probe", tuple(charts)))


def _of(group: Group, rows: Sequence[ProbeRow]) -> list[ProbeRow]:
    """Rows under the probe of a group."""
    (one, *_) = (row for line in group.lines for row in line.rows.values())
    key = (one.target, one.probe, one.train_share)
    return [row for row in rows if (row.target, row.probe, row.train_share) == key and group.headline in row.metrics]


def _recipes(repeated: Sequence[Sequence[Run]], runs: Sequence[Run], group: Group) -> list[_Series]:
    found = []
    for alike in repeated:
        colour, _ = run_style(runs.index(alike[0]))
        rows = _of(group, [row for run in alike for row in run.rows if row.model == run.rows[0].model])
        name = alike[0].model if len(repeated) == 1 else f"{alike[0].model} ({alike[0].name} …)"
        found.append(_Series(f"{name}, {len(alike)} seeds", colour, "circle", tuple(rows)))
    return [one for one in found if one.rows]


def _floors(repeated: Sequence[Sequence[Run]], group: Group) -> list[_Series]:
    rows = _of(group, [row for alike in repeated for run in alike for row in run.rows if row.is_floor])
    symbols = ("diamond-open", "square-open", "cross-open")
    return [
        _Series(name, MUTED, symbols[i % len(symbols)], tuple(row for row in rows if row.model == name))
        for i, name in enumerate(dict.fromkeys(row.model for row in rows))
    ]


def _chart(name: str, group: Group, series: Sequence[_Series]) -> Chart:
    metric = group.headline
    level = chance(group, metric)
    inputs = list(dict.fromkeys(row.inputs for one in series for row in one.rows))
    traces = [trace for one in series for trace in _traces(one, metric)]
    layout = {
        "xaxis": axis(metric_axis_title(metric)),
        "yaxis": axis()
        | {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": list(map(plain, inputs)),
            "autorange": "reversed",
        },
        "legend": LEGEND,
        "shapes": chance_line(level),
    }
    heading = f"{group.title}, {METRIC_INFO[metric].title}"
    alt = f"{heading}: a point for each seed of {', '.join(one.name for one in series)}, and a bar at each mean"
    return Chart(name, heading, alt, tuple(traces), layout, 150 + 44 * len(inputs))


def _traces(one: _Series, metric: str) -> list[Trace]:
    scale = 100 if METRIC_INFO[metric].percent else 1
    inputs = list(dict.fromkeys(row.inputs for row in one.rows))
    means = [_mean([row.metrics[metric] for row in one.rows if row.inputs == name]) for name in inputs]
    common = {"type": "scatter", "mode": "markers", "legendgroup": plain(one.name)}
    points = common | {
        "name": plain(one.name),
        "x": finite(scale * row.metrics[metric] for row in one.rows),
        "y": [plain(row.inputs) for row in one.rows],
        "text": [plain(f"seed {row.seed}: {shown(metric, row.metrics[metric])}") for row in one.rows],
        "hovertemplate": "%{y}<br>%{text}",
        "marker": {"color": one.colour, "symbol": one.symbol, "size": 8, "opacity": 0.8},
    }
    bars = common | {
        "name": plain(f"mean of {one.name}"),
        "x": finite(scale * mean for mean in means),
        "y": list(map(plain, inputs)),
        "hovertemplate": "%{y}<br>mean %{x:.3~f}",
        "marker": {
            "symbol": "line-ns-open",
            "size": 20,
            "color": one.colour,
            "line": {"width": 2, "color": one.colour},
        },
        "showlegend": False,
    }
    return [points, bars]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _sentence(one: _Series, group: Group) -> str:
    """What a series reaches on the input of most bands: the mean over its seeds, and from where to where."""
    widest = max(one.rows, key=lambda row: len(row.bands)).inputs
    values = [row.metrics[group.headline] for row in one.rows if row.inputs == widest]
    mean, low, high = (shown(group.headline, value) for value in (_mean(values), min(values), max(values)))
    unit = "\u00a0%" if METRIC_INFO[group.headline].percent else ""
    title = f"{group.title} {METRIC_INFO[group.headline].title}"
    return f"{one.name}: {title} {mean}{unit} on average on {widest}, from {low} to {high}."
