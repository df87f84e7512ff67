"""What must be known before a number is believed: each caution says what is the matter and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from terrasieve.methods.collapse import CollapseMonitor
from terrasieve.models.teacher import MOST_MEMORY
from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.reporting.grouping import Group, Verdict, difference
from terrasieve.reporting.run import Run
from terrasieve.reporting.wording import listed, number, percent
from terrasieve.runs import CARD, WEIGHTS
from terrasieve.training.schedules import off_boundary_warning

Level = Literal["serious", "caution", "note"]
LEVELS: tuple[Level, ...] = ("serious", "caution", "note")
FEW_TEST_SAMPLES = 200
"""Below this, a 95 % interval of an accuracy near 0.5 is wider than 14 points."""
FEW_OF_A_CLASS = 10
"""Below this, one sample moves the recall of a class by more than 10 points."""
ANNEALED = 0.1
"""Share of the highest learning rate under which a run counts as annealed."""
_FALLEN_RANK = 0.25
"""Share of its highest value under which an effective rank has fallen."""
_FALLEN_KNN = 0.02
"""Fall of the online kNN accuracy from its best value, from which on it is told; it is of some hundred samples."""
_COMPLETE = 1e-3
"""Largest part of a score that saliency maps may miss without a word."""


@dataclass(frozen=True)
class Caution:
    """One sentence that says what is the matter and what to do."""

    level: Level
    text: str


def cautions(run: Run) -> tuple[Caution, ...]:
    """Everything to know about a run first, the most serious first."""
    found = [*_data(run), *_scores(run), *_training(run), *_weights(run), *_explanation(run)]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: LEVELS.index(one.level)))


# What the data say.


def _data(run: Run) -> Iterator[Caution]:
    if run.simulated:
        yield Caution(
            "serious",
            "SIMULATED data: at least one file of this run says so, and nothing here shows how the encoder does on "
            "real scenes; probe it on real imagery before use.",
        )
    for name, count in run.quarantined.items():
        yield Caution(
            "caution", f"{count:,} samples were set aside as unusable: read the reasons in {name} and mend the archive."
        )


# What the probes say.


def _scores(run: Run) -> Iterator[Caution]:
    for group in run.groups:
        yield from _against_floors(group)
    yield from _test_split(run)
    for note in dict.fromkeys((row.model, row.note) for row in run.rows if row.note):
        yield Caution("note", f"{note[0]}: {note[1]}.")


def _against_floors(group: Group) -> Iterator[Caution]:
    if not group.floors:
        yield Caution(
            "caution",
            f"{group.title}: no floor was scored beside {group.trained}, so nothing shows what training added; "
            "probe it together with random init and image statistics.",
        )
    for floor in group.floors:
        yield from _behind(group, floor, group.against[floor])
        yield from _not_told_apart(group, floor, group.against[floor])


def _behind(group: Group, floor: str, found: Sequence[Verdict]) -> Iterator[Caution]:
    behind = sorted((one for one in found if one.standing == "worse"), key=lambda one: one.gain)
    if behind:
        worst = behind[0]
        yield Caution(
            "serious",
            f"{_subject(group)} of {group.trained} is worse than {floor} on {len(behind)} of {len(found)} inputs "
            f"({listed([one.line for one in behind])}, the first by {difference(worst.metric, worst.gain)}): do not "
            "use it there, or train longer or on more data.",
        )


def _not_told_apart(group: Group, floor: str, found: Sequence[Verdict]) -> Iterator[Caution]:
    unclear = [one for one in found if one.standing == "not told apart"]
    if not unclear:
        return
    paired = all(one.paired is not None for one in unclear)
    why = "95\u00a0% intervals of the paired differences hold 0" if paired else "their 95\u00a0% intervals overlap"
    yield Caution(
        "caution",
        f"{_subject(group)}: {group.trained} and {floor} are not told apart on {len(unclear)} of {len(found)} inputs "
        f"({listed([one.line for one in unclear])}), where {why}: call it no difference, or test on more samples.",
    )


def _subject(group: Group) -> str:
    return f"{group.title} {METRIC_INFO[group.headline].title}"


def _test_split(run: Run) -> Iterator[Caution]:
    smallest = min((row.n_test for row in run.rows), default=FEW_TEST_SAMPLES)
    if smallest < FEW_TEST_SAMPLES:
        yield Caution(
            "caution",
            f"The test split holds {smallest} samples, fewer than {FEW_TEST_SAMPLES}: expect wide intervals, and score "
            "on more labelled samples before ranking models.",
        )
    row = next((row for row in run.rows if row.confusion and row.task == "classification"), None)
    if row is not None:
        counts = [sum(line) for line in row.confusion]
        few = [name for name, count in zip(row.classes, counts, strict=False) if count < FEW_OF_A_CLASS]
        if few:
            yield Caution(
                "caution",
                f"{len(few)} of {len(counts)} classes have fewer than {FEW_OF_A_CLASS} test samples "
                f"({listed(few)}): read no per-class number of theirs.",
            )


# What the log and the weights say.


def _training(run: Run) -> Iterator[Caution]:
    yield from _loss(run)
    yield from _online_knn(run)
    yield from _memory(run)
    yield from _collapse(run)
    # A run that stands in the middle need not be annealed: one caution for one cause.
    if not (stopped := list(_unfinished(run))):
        yield from _annealing(run)
    yield from stopped


def _memory(run: Run) -> Iterator[Caution]:
    """Whether the teacher was what it began as, in part, when it was used last."""
    shares = run.series("teacher_memory")[1]
    # Pretrained weights are nothing to forget.
    if _part(run.config, "model").get("init") is None and shares and shares[-1] > MOST_MEMORY:
        yield Caution(
            "caution",
            f"The teacher holds {percent(shares[-1], 1)} of its initial weights at the last step: train for more "
            f"steps, or set method.teacher_memory={MOST_MEMORY:g}, which fits its momentum to the length of the run.",
        )


def _loss(run: Run) -> Iterator[Caution]:
    steps, losses = run.series("loss")
    bad = [step for step, loss in zip(steps, losses, strict=True) if not math.isfinite(loss)]
    if bad:
        yield Caution(
            "serious",
            f"The loss was not a number from step {bad[0]:,.0f} on ({len(bad)} of {len(losses)} logged steps): go back "
            "to a checkpoint before it, and lower the learning rate or clip the gradient.",
        )


def _online_knn(run: Run) -> Iterator[Caution]:
    """Whether the online kNN ended below its best by more than chance explains."""
    steps, scores = run.series("knn_accuracy")
    if len(scores) < 2 or not all(map(math.isfinite, scores)):
        return
    best = max(scores)
    samples = next(iter(run.series("knn_samples")[1]), 0)
    error = math.sqrt(best * (1 - best) / samples) if samples else 0.0
    if best - scores[-1] > max(error, _FALLEN_KNN):
        of = f", where one standard error is {100 * error:.1f} points" if samples else ""
        yield Caution(
            "caution",
            f"The online kNN accuracy fell from {percent(best, 1)} at step {steps[scores.index(best)]:,.0f} to "
            f"{percent(scores[-1], 1)} at step {steps[-1]:,.0f}{of}: take the checkpoint of the best step, or train "
            "for fewer steps or with a lower learning rate.",
        )


def _collapse(run: Run) -> Iterator[Caution]:
    defaults = CollapseMonitor()
    settings = _part(run.config, "train")
    limits = {
        "feature_std": ("feature std", float(settings.get("collapse_std", defaults.min_std))),
        "effective_rank": ("effective rank", float(settings.get("collapse_rank", defaults.min_rank))),
    }
    for column, (name, limit) in limits.items():
        values = run.series(column)[1]
        if values and values[-1] < limit:
            yield Caution(
                "serious",
                f"The embedding collapsed: {name} ended at {number(values[-1])}, below the limit of {limit:g}; train "
                "anew with a lower learning rate, a slower teacher or larger batches.",
            )
    ranks = run.series("effective_rank")[1]
    if ranks and limits["effective_rank"][1] <= ranks[-1] < _FALLEN_RANK * max(ranks):
        yield Caution(
            "caution",
            f"The effective rank fell from {number(max(ranks))} to {number(ranks[-1])}: the embedding may be "
            "collapsing; compare the kNN accuracy along the run before training on.",
        )


def _unfinished(run: Run) -> Iterator[Caution]:
    planned = _part(run.config, "train").get("steps")
    if run.log and isinstance(planned, int) and run.log[-1]["step"] < planned:
        yield Caution(
            "caution",
            f"Training stands at step {run.log[-1]['step']:,.0f} of {planned:,}: go on with --resume, and report again "
            "when it is done.",
        )


def _annealing(run: Run) -> Iterator[Caution]:
    steps, rates = run.series("learning_rate")
    if len(rates) < 2 or rates[-1] <= ANNEALED * max(rates):
        return
    train = _part(run.config, "train")
    schedule = _part(train, "schedule")
    advice = "train to the end of the schedule"
    if schedule.get("name") == "warm-restarts" and train.get("epochs") and not train.get("steps"):
        told = off_boundary_warning(
            float(train["epochs"]), float(schedule["first_epochs"]), int(schedule["multiplier"])
        )
        advice = told.rstrip(".") if told else advice
    yield Caution(
        "caution",
        f"The learning rate ended at {number(rates[-1])} (step {steps[-1]:,.0f}), {percent(rates[-1] / max(rates))} "
        f"of its highest value, so the encoder was not annealed: {advice}.",
    )


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


def _weights(run: Run) -> Iterator[Caution]:
    path = next((path for path in run.files if path.name == WEIGHTS), None)
    if path is None or run.card is None or run.card.weights_sha256 is None:
        return
    found = run.digests[path]
    if found != run.card.weights_sha256:
        yield Caution(
            "serious",
            f"The weights are not those of the card: {WEIGHTS} has the hash {found[:12]}…, {CARD} says "
            f"{run.card.weights_sha256[:12]}…; copy both files again, or export the encoder anew.",
        )


# What the explanation says.


def _explanation(run: Run) -> Iterator[Caution]:
    if run.explanation is None:
        return
    if run.rows and run.rows[0].model != run.explanation.model:
        yield Caution(
            "caution",
            f"{run.at.probe.name} is about {run.rows[0].model}, {run.at.explanation.name} about "
            f"{run.explanation.model}: probe and explain the same encoder.",
        )
    saliency = run.explanation.saliency
    maps = [one for item in saliency.items for one in item.maps] if saliency else []
    errors = [one.completeness_error for one in maps if one.completeness_error is not None]
    if errors and max(errors) > _COMPLETE:
        yield Caution(
            "caution",
            f"Saliency maps miss part of the score they explain, at worst {percent(max(errors), 1)} of it: take their "
            "details with care, or compute them in float64.",
        )
    for note in run.explanation.notes:
        yield Caution("note", note)
