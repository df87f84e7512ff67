"""What was asked of a run and what it answers: whether the encoder is better than what it has to beat.

All in sentences that hold no number but the files'. Two models that a 95 % interval leaves level are not told
apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.reporting.charts import Chart
from terrasieve.reporting.grouping import Group, Verdict, difference, value_text
from terrasieve.reporting.run import Run
from terrasieve.reporting.score_charts import headline_chart
from terrasieve.reporting.wording import listed, number, percent


@dataclass(frozen=True)
class Answer:
    """What the page says first.

    Attributes:
        asked: The question, in a sentence; empty where nothing was measured.
        word: The answer in a word or two, such as ``Yes`` or ``Not told apart``; empty where there is none.
        lead: The answer in a sentence, which stands behind the question.
        chart: The scores behind it with their intervals; None where there are none.
        more: What else there is to say, in sentences.
    """

    asked: str
    word: str
    lead: str
    chart: Chart | None
    more: tuple[str, ...]


def answer(run: Run, key: str = "run") -> Answer:
    """What the rows of a run say; without rows, what its log says, and that this is no result.

    Args:
        run: The run that the page is about.
        key: Prefix of the chart's id, unique among the runs of the page.
    """
    if not run.groups:
        return Answer("", "", _without_probes(run), None, ())
    first, *others = run.groups
    more = [_evidence(first), _tally(first), _best_and_worst(first), *(_further(group) for group in others)]
    chart = headline_chart(f"{key}-answer", first)
    return Answer(_asked(first), _word(first), _lead(first), chart, tuple(text for text in more if text))


def standing(verdict: Verdict) -> str:
    """How the trained model stands, with what the intervals say: ``above random init by 16.8 points (...)``."""
    by = difference(verdict.metric, verdict.gain)
    if verdict.standing != "not told apart":
        return f"{_side(verdict)} {verdict.other} by {by} ({verdict.evidence})"
    side = "better" if verdict.gain > 0 else "worse"
    remark = f"{side} by {by}, {verdict.evidence}" if verdict.gain else verdict.evidence
    return f"{_side(verdict)} {verdict.other} ({remark})"


def _side(verdict: Verdict) -> str:
    if verdict.standing == "not told apart":
        return "not told apart from"
    if METRIC_INFO[verdict.metric].higher_is_better is False:
        return f"{verdict.standing} than"
    return "above" if verdict.standing == "better" else "below"


def _asked(group: Group) -> str:
    if group.main is None:
        return ""
    row = group.main.rows[group.trained]
    # The layout of a store says nothing of what is in it.
    source = "" if row.data_set in ("packed", "unknown", "simulated") else f" of {row.data_set}"
    kind = "simulated " if row.simulated else ""
    where = f"{group.title} on {group.main.name}, {row.n_test:,} {kind}test samples{source}"
    if not _on_main_line(group):
        return f"How good is {group.trained} under {where}?"
    others = [one.other for one in _on_main_line(group)]
    return f"Is {group.trained} better than {listed(others)} under {where}?"


def _word(group: Group) -> str:
    """One word for all whom the trained model is compared with."""
    found = [one.standing for one in _on_main_line(group)] if group.main else []
    if not found:
        return ""
    if len(set(found)) > 1:
        return "In part"
    return {"better": "Yes", "worse": "No", "not told apart": "Not told apart"}[found[0]]


def _lead(group: Group) -> str:
    if group.main is None:
        return f"{group.trained} was not scored by {group.title}."
    told = _on_main_line(group)
    if not told:
        return f"{_reached(group)}; no other model was scored beside it."
    return f"{_reached(group)}: {listed(_stands(told))}."


def _stands(told: Sequence[Verdict]) -> list[str]:
    """How the trained model stands, with those together on whose side it is the same."""
    sides: dict[str, list[str]] = {}
    for one in told:
        side = _side(one)
        by = "" if one.standing == "not told apart" else f" by {difference(one.metric, one.gain)}"
        sides.setdefault(side, []).append(f"{one.other}{by}")
    return [f"{side} {listed(names)}" for side, names in sides.items()]


def _evidence(group: Group) -> str:
    """What the others reach on the main line, and what the intervals say."""
    if group.main is None or not (told := _on_main_line(group)):
        return ""
    theirs = [
        f"{one.other} reaches {value_text(group.main.rows[one.other], group.headline)} ({one.evidence})" for one in told
    ]
    return f"On {group.main.name}, {listed(theirs)}."


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
    """On how many inputs the trained model is above every floor beyond chance, and on how many that is open."""
    found = [one for floor in group.floors for one in group.against[floor]]
    lines = dict.fromkeys(one.line for one in found)
    if len(lines) < 2:
        return ""
    stands = [{one.standing for one in found if one.line == line} for line in lines]
    better, worse = sum(one == {"better"} for one in stands), sum("worse" in one for one in stands)
    floors = "both floors" if len(group.floors) > 1 else group.floors[0]
    parts = [f"It is better than {floors} on {better} of {len(lines)} inputs, beyond the 95\u00a0% intervals"]
    parts += [f"worse than a floor on {worse}"] if worse else []
    rest = len(lines) - better - worse
    parts += [f"not told apart from a floor on {rest}"] if rest else []
    return f"{', '.join(parts)}."


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
