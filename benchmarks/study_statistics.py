"""What the runs of the curation study say: differences paired by seed, steps to a goal, and the verdict of the plan.

A measurement holds the macro mean accuracy by kNN and by the linear probe; the primary endpoint is the mean of the
two, so that no probe can be chosen afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""By arm the results of its runs, one for each seed."""

PROBES = ("primary", "knn", "linear")
GROUPS = ("macro", "tail", "head")
POWERED = 0.04
"""What the oracle must gain at least, else the study cannot tell a half of it."""
SHARE_OF_ORACLE = 0.5
SHARE_OF_STEPS = 0.5
PAIRS = (
    ("oracle", "uncurated"),
    ("dynamic", "uncurated"),
    ("dynamic-dedup", "uncurated"),
    ("static", "uncurated"),
    ("static-once", "uncurated"),
    ("random", "uncurated"),
    ("dynamic", "static-once"),
    ("dynamic", "static"),
    ("dynamic-dedup", "dynamic"),
    ("dynamic-spread", "uncurated"),
    ("dynamic-spread", "dynamic"),
    ("dynamic-spread", "oracle"),
)
"""The differences that the summary holds, an arm less another."""
AGAIN: Mapping[str, str] = {
    "dynamic": "",
    "dynamic-dedup": "_dynamic_dedup",
    "dynamic-spread": "_dynamic_spread",
}
"""The arms that choose again and again, and what their ratio of steps and their verdict have behind their names."""


def interval(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean, and half the width of the 95 % interval of Student's t over seeds; a single seed has none."""
    sample = np.array(list(values), dtype=np.float64)
    if len(sample) < 2:
        return float(sample.mean()), None
    half = stats.t.ppf(0.975, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample))
    return float(sample.mean()), float(half)


def stated(values: Iterable[float]) -> dict[str, Any]:
    """What :func:`interval` finds, rounded and fit for JSON: ``mean``, and ``ci95`` as bounds or null."""
    mean, half = interval(values)
    bounds = None if half is None else [round(mean - half, 4), round(mean + half, 4)]
    return {"mean": round(mean, 4), "ci95": bounds}


def accuracy(measurement: Mapping[str, Any], probe: str, group: str = "macro") -> float:
    """Mean accuracy over a group of classes; ``primary`` is the mean of both probes."""
    if probe == "primary":
        return float(measurement["knn"][group] + measurement["linear"][group]) / 2
    return float(measurement[probe][group])


def curve(runs: Sequence[Mapping[str, Any]], probe: str, group: str = "macro") -> tuple[list[int], list[float]]:
    """Steps, and mean accuracy over the seeds, at each measurement."""
    steps = [one["step"] for one in runs[0]["evaluations"]]
    values = [[accuracy(one, probe, group) for one in run["evaluations"]] for run in runs]
    return steps, np.mean(values, axis=0).tolist()


def gains(
    results: Results, arm: str, reference: str, probe: str, group: str = "macro", measurement: int = -1
) -> list[float]:
    """By how much an arm is above another with the same seed, for the seeds that both have.

    Args:
        results: The finished runs.
        arm: The arm that is looked at.
        reference: The arm that it is compared with.
        probe: One of :data:`PROBES`.
        group: One of :data:`GROUPS`.
        measurement: Position of the measurement, the last one by default.
    """
    others = {run["seed"]: run for run in results.get(reference, ())}
    pairs = [(run, others[run["seed"]]) for run in results.get(arm, ()) if run["seed"] in others]
    values = [[accuracy(run["evaluations"][measurement], probe, group) for run in pair] for pair in pairs]
    return [own - other for own, other in values]


def share_of_steps(results: Results, arm: str, probe: str = "primary", group: str = "macro") -> float | None:
    """Share of its steps at which an arm's mean curve reaches the uncurated arm's final mean; None if never.

    Between two measurements the curve is taken as straight. Where the first measurement is above already, its step is
    what is known: the true share is smaller.
    """
    goal = curve(results["uncurated"], probe, group)[1][-1]
    steps, values = curve(results[arm], probe, group)
    for i, reached in enumerate(values):
        if reached < goal:
            continue
        if i == 0:
            return steps[0] / steps[-1]
        before = values[i - 1]
        return (steps[i - 1] + (goal - before) / (reached - before) * (steps[i] - steps[i - 1])) / steps[-1]
    return None


def summarise(results: Results) -> dict[str, Any]:
    """The figures of the last line, of the arms that have finished runs.

    Returns:
        ``seeds`` by arm; each difference of :data:`PAIRS` as ``oracle_minus_uncurated``, with mean and interval by
        probe; ``steps_ratio`` of dynamic curation by probe; ``arms``, the final accuracies; and ``verdict``. Ratio and
        verdict of the other arms of :data:`AGAIN` have the arm behind their names.
    """
    found: dict[str, Any] = {"seeds": {arm: len(runs) for arm, runs in results.items()}}
    for arm, reference in PAIRS:
        by_probe = {probe: gains(results, arm, reference, probe) for probe in PROBES}
        if by_probe["primary"]:
            found[f"{arm}_minus_{reference}".replace("-", "_")] = {
                probe: stated(values) for probe, values in by_probe.items()
            }
    found["arms"] = {arm: _finals(runs) for arm, runs in results.items()}
    for arm, suffix in AGAIN.items():
        if arm in results and "uncurated" in results:
            shares = {probe: share_of_steps(results, arm, probe) for probe in PROBES}
            found[f"steps_ratio{suffix}"] = {
                probe: None if share is None else round(share, 4) for probe, share in shares.items()
            }
            found[f"verdict{suffix}"] = judge(found, arm)
    return found


def judge(summary: Mapping[str, Any], arm: str) -> dict[str, bool | None]:
    """What the plan asks of an arm, answered by the primary endpoint; None where the runs for it are missing.

    Args:
        summary: As :func:`summarise` makes it.
        arm: One of :data:`AGAIN`.
    """
    oracle, dynamic = (
        summary.get(f"{one}_minus_uncurated".replace("-", "_"), {}).get("primary") for one in ("oracle", arm)
    )
    steps = summary.get(f"steps_ratio{AGAIN[arm]}")
    reached = None if steps is None else steps["primary"]
    return {
        "powered": oracle["mean"] >= POWERED if oracle else None,
        "dynamic_above_zero": dynamic["ci95"][0] > 0 if dynamic and dynamic["ci95"] else None,
        "dynamic_half_of_oracle": dynamic["mean"] >= SHARE_OF_ORACLE * oracle["mean"] if dynamic and oracle else None,
        "half_of_the_steps": None if steps is None else reached is not None and reached <= SHARE_OF_STEPS,
    }


def _finals(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    finals = [run["evaluations"][-1] for run in runs]
    measured = {
        f"{probe}_{group}": stated(accuracy(one, probe, group) for one in finals)
        for probe in PROBES
        for group in GROUPS
    }
    means = {
        name: round(float(np.mean([run[name] for run in runs])), 1)
        for name in ("seconds", "curation_seconds", "wall_seconds")
    }
    return {**measured, **means}
