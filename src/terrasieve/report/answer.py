"""What a run learned, and whether it is better, in sentences that hold no number but the files'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.report.grouping import Group, Verdict, difference, value_text
from terrasieve.report.run import Run
from terrasieve.report.wording import listed, number, percent


@dataclass(frozen=True)
class Answer:
    """One paragraph, and what more there is to say."""

    lead: str
    more: tuple[str, ...]


def answer(run: Run) -> Answer:
    """What the rows of a run say; without rows, what its log says, and that this is no result."""
    if not run.groups:
        return Answer(_without_probes(run), ())
    first, *others = run.groups
    lead = f"{_lead(first)} {_tally(first)}".strip()
    more = [_best_and_worst(first), *(_further(group) for group in others)]
    return Answer(lead, tuple(text for text in more if text))


def standing(verdict: Verdict) -> str:
    """How the trained model stands: ``above random init by 16.8 points (intervals do not overlap)``."""
    if verdict.gain == 0:
        return f"level with {verdict.other}"
    rising = METRIC_INFO[verdict.metric].higher_is_better is not False
    better, worse = ("above", "below") if rising else ("better than", "worse than")
    side = better if verdict.gain > 0 else worse
    return f"{side} {verdict.other} by {difference(verdict.metric, verdict.gain)} ({verdict.evidence})"


def _lead(group: Group) -> str:
    if group.main is None:
        return f"{group.trained} was not scored by {group.title}."
    told = _on_main_line(group)
    reached = f"{_reached(group)} on {group.main.name}"
    if not told:
        return f"{group.trained} reaches {reached}; no other model was scored beside it."
    theirs = [value_text(group.main.rows[one.other], group.headline) for one in told]
    stands = listed([standing(one) for one in told])
    return f"{group.trained} is {stands} on {group.main.name}: {_reached(group)}, against {listed(theirs)}."


def _further(group: Group) -> str:
    if group.main is None:
        return ""
    stands = [standing(one) for one in _on_main_line(group)]
    return f"{_reached(group)} on {group.main.name}{f', {listed(stands)}' if stands else ''}."


def _reached(group: Group) -> str:
    assert group.main is not None
    title = METRIC_INFO[group.headline].title
    return f"{group.title} {title} {value_text(group.main.rows[group.trained], group.headline)}"


def _on_main_line(group: Group) -> list[Verdict]:
    assert group.main is not None
    return [one for rival in group.rivals for one in group.against[rival] if one.line == group.main.name]


def _tally(group: Group) -> str:
    """On how many inputs the trained model is above every floor, and how often beyond chance."""
    found = [one for floor in group.floors for one in group.against[floor]]
    lines = dict.fromkeys(one.line for one in found)
    if len(lines) < 2:
        return ""
    better = [line for line in lines if all(one.gain > 0 for one in found if one.line == line)]
    clear = [line for line in better if all(one.clear for one in found if one.line == line)]
    floors = "both floors" if len(group.floors) > 1 else group.floors[0]
    return (
        f"It is better than {floors} on {len(better)} of {len(lines)} inputs, on {len(clear)} of them beyond the "
        "95\u00a0% intervals."
    )


def _best_and_worst(group: Group) -> str:
    """The class that the trained model finds best, and the one it finds worst, on the main line."""
    row = group.main.rows[group.trained] if group.main else None
    if row is None or not row.confusion or len(row.classes) != len(row.confusion):
        return ""
    counts = np.asarray(row.confusion, dtype=np.float64)
    totals = counts.sum(axis=1)
    if (totals > 0).sum() < 2:
        return ""
    recall = np.divide(counts.diagonal(), totals, out=np.full(len(totals), np.nan), where=totals > 0)
    top, low = int(np.nanargmax(recall)), int(np.nanargmin(recall))
    return (
        f"On {row.inputs} it finds {row.classes[top]} best (recall {percent(recall[top])}) and {row.classes[low]} "
        f"worst (recall {percent(recall[low])}{_mistaken_for(counts[low], low, row.classes)})."
    )


def _mistaken_for(counts: NDArray[np.float64], own: int, classes: Sequence[str]) -> str:
    wrong = counts.copy()
    wrong[own] = 0
    if not wrong.any():
        return ""
    return f", most often taken for {classes[int(wrong.argmax())]}, {percent(wrong.max() / counts.sum())}"


def _without_probes(run: Run) -> str:
    said = "No probe.json is here, so nothing yet says whether it is better than a floor: run `terrasieve probe`."
    steps, losses = run.series("loss")
    if not losses:
        return said
    told = f"{said} Training went from loss {number(losses[0])} to {number(losses[-1])} in {steps[-1]:,.0f} steps"
    at, scores = run.series("knn_accuracy")
    if not scores:
        return f"{told}; a loss alone does not show that anything was learned."
    return (
        f"{told}, where the online kNN check read {percent(scores[-1], 1)} at step {at[-1]:,.0f}; "
        "that check has no interval and no floor."
    )
