"""Which model is above which: over bands, over seeds, and sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from terrasieve.probes.finetune import NAME as END_TO_END
from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.significance import Comparison, compare_all
from terrasieve.probes.statements import NOTE, sentence


def comparisons(rows: Sequence[ProbeRow], probe: str, metric: str, asked: Sequence[str]) -> tuple[Comparison, ...]:
    """The models in question against all others, over bands (each the mean of its seeds), and over seeds if several.

    Only conditions that every model was measured on count. The tests of one model in question are one family.

    Args:
        rows: Results on one target.
        probe: Name of the probe; a model trained end to end enters with its own number.
        metric: Name of the metric that is compared.
        asked: Names of the models in question; each pair of these is compared once.
    """
    fitting = [row for row in rows if row.probe in (probe, END_TO_END)]
    info = METRIC_INFO[metric]
    unit, scale = ("points", 100.0) if info.percent else ("", 1.0)
    found: list[Comparison] = []
    for over, by, across in (("bands", "shown_bands", "seed"), ("seeds", "seed", "shown_bands")):
        table = _table(fitting, metric, by, across)
        for position, model in enumerate(asked):
            others = {name: values for name, values in table.items() if name not in asked[:position]}
            if model in others and len(others) > 1 and len(others[model]) > 1:
                better = info.higher_is_better is not False
                found += compare_all(others, model, over, unit, scale, higher_is_better=better)
    return tuple(found)


def statements(found: Sequence[Comparison]) -> tuple[str, ...]:
    """Each comparison in words, and what to bear in mind."""
    return (*map(sentence, found), NOTE) if found else ()


def _table(rows: Sequence[ProbeRow], metric: str, by: str, across: str) -> dict[str, list[float]]:
    """Of each model, its mean over one condition at each value of the other."""
    models = list(dict.fromkeys(row.model for row in rows))
    values = {(row.model, getattr(row, by), getattr(row, across)): row.metrics[metric] for row in rows}
    places = dict.fromkeys((getattr(row, by), getattr(row, across)) for row in rows)
    shared = [place for place in places if all((model, *place) in values for model in models)]
    conditions = list(dict.fromkeys(first for first, _ in shared))
    return {
        model: [float(np.mean([values[model, *place] for place in shared if place[0] == one])) for one in conditions]
        for model in models
    }
