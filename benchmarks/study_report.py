"""What the curation study found: a table, a figure and a JSON file, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table
from scipy import stats

from terrasieve.probes.significance import holm

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""By arm the results of its runs, one for each seed."""

PROBES = ("knn", "linear")
_PROBE_NAMES = {"knn": "kNN", "linear": "linear"}
GROUPS = ("all", "head", "tail")
_COLOURS = {
    "uncurated": "#6c757d",
    "random": "#d9a441",
    "static": "#5b8c5a",
    "dynamic": "#1b6ca8",
    "dynamic-bank": "#7fb4d9",
    "oracle": "#b0413e",
}


def interval(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean, and half the width of the 95 % interval of Student's t over seeds; a single seed has none."""
    sample = np.array(list(values), dtype=np.float64)
    if len(sample) < 2:
        return float(sample.mean()), None
    half = stats.t.ppf(0.975, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample))
    return float(sample.mean()), float(half)


def curve(runs: Sequence[Mapping[str, Any]], probe: str, group: str) -> tuple[list[int], list[float], list[float]]:
    """Steps, mean seconds and mean accuracy over the seeds at each measurement."""
    steps = [one["step"] for one in runs[0]["evaluations"]]
    seconds = np.mean([[one["seconds"] for one in run["evaluations"]] for run in runs], axis=0)
    accuracy = np.mean([[one[probe][group] for one in run["evaluations"]] for run in runs], axis=0)
    return steps, seconds.tolist(), accuracy.tolist()


def share_of_steps(results: Results, arm: str, probe: str = "knn", group: str = "tail") -> float | None:
    """Share of its steps at which an arm's mean curve reaches the uncurated arm's final mean; None if never.

    Between two measurements the curve is taken as straight.
    """
    goal = curve(results["uncurated"], probe, group)[2][-1]
    steps, _, accuracy = curve(results[arm], probe, group)
    for i, reached in enumerate(accuracy):
        if reached < goal:
            continue
        if i == 0:
            return steps[0] / steps[-1]
        before = accuracy[i - 1]
        return (steps[i - 1] + (goal - before) / (reached - before) * (steps[i] - steps[i - 1])) / steps[-1]
    return None


def overhead(runs: Sequence[Mapping[str, Any]]) -> float:
    """Curation seconds over the seconds of training alone, mean over the seeds."""
    return float(np.mean([run["curation_seconds"] / (run["seconds"] - run["curation_seconds"]) for run in runs]))


def ahead(results: Results, probe: str, group: str) -> dict[str, dict[str, Any]]:
    """By how much each arm's final accuracy is above that of the uncurated run of the same seed.

    Returns:
        By arm the mean over the seeds that both have, its 95 % interval of Student's t, and the p value of the paired
        t test after Holm's correction over the arms; None where there are not two such seeds.
    """
    goal = {run["seed"]: run for run in results["uncurated"]}
    found: dict[str, dict[str, Any]] = {}
    for arm, runs in results.items():
        pairs = [(run, goal[run["seed"]]) for run in runs if run["seed"] in goal]
        if arm == "uncurated" or len(pairs) < 2:
            continue
        gains = [_final([run], probe, group)[0] - _final([other], probe, group)[0] for run, other in pairs]
        mean, half = interval(gains)
        bounds = None if half is None else [round(mean - half, 4), round(mean + half, 4)]
        found[arm] = {"mean": round(mean, 4), "ci95": bounds, "p": float(stats.ttest_1samp(gains, 0).pvalue)}
    for one, corrected in zip(found.values(), holm([one["p"] for one in found.values()]), strict=True):
        one["p"], one["p_holm"] = round(one["p"], 4), _rounded(corrected)
    return found


def ahead_table(results: Results) -> Table:
    """What :func:`ahead` finds, for both probes."""
    shown = Table(title="Ahead of uncurated, paired by seed: mean, 95 % interval, p after Holm over the arms")
    which = [(probe, group) for probe in PROBES for group in ("tail", "all")]
    for name in ("arm", *(f"{_PROBE_NAMES[probe]} {group}" for probe, group in which)):
        shown.add_column(name, no_wrap=True)
    columns = [ahead(results, *one) for one in which]
    for arm in columns[0]:
        cells = [column[arm] for column in columns]
        shown.add_row(
            arm, *(f"{c['mean']:+.3f} {c['ci95'][0]:+.3f}..{c['ci95'][1]:+.3f} p {c['p_holm']}" for c in cells)
        )
    return shown


def summarise(results: Results) -> dict[str, Any]:
    """The figures of the last line."""
    summary: dict[str, Any] = {"arms": {arm: _summary_of(runs) for arm, runs in results.items()}}
    for arm in [arm for arm in ("dynamic", "dynamic-bank") if arm in results]:
        summary[f"overhead_{_key(arm)}"] = _rounded(overhead(results[arm]))
    if "uncurated" not in results:
        return summary
    summary["ahead_of_uncurated"] = {
        f"{probe}_{group}": ahead(results, probe, group) for probe in PROBES for group in ("tail", "all")
    }
    for arm in [arm for arm in results if arm != "uncurated"]:
        for probe in PROBES:
            reached = _rounded(share_of_steps(results, arm, probe))
            summary[f"steps_to_uncurated_final_{_key(arm)}_{probe}"] = reached
            summary[f"above_uncurated_{_key(arm)}_{probe}"] = _apart(summary["arms"], arm, probe)
    return summary


def table(results: Results) -> Table:
    """Final accuracies with their intervals, seconds, and what the last pool held."""
    shown = Table(title="After the last step: mean and 95 % interval over seeds")
    columns = ("kNN tail", "kNN head", "kNN all", "linear tail", "linear all", "seconds", "curation s")
    for name in ("arm", *columns, "pool", "originals", "tail"):
        shown.add_column(name, no_wrap=True)
    for arm, runs in results.items():
        cells = [_cell(runs, *which) for which in (("knn", "tail"), ("knn", "head"), ("knn", "all"))]
        cells += [_cell(runs, "linear", "tail"), _cell(runs, "linear", "all")]
        seconds = [np.mean([run[name] for run in runs]) for name in ("seconds", "curation_seconds")]
        pools = [np.mean([run["pool"][name] for run in runs]) for name in ("samples", "originals", "tail_samples")]
        shown.add_row(arm, *cells, *(f"{number:.0f}" for number in (*seconds, *pools)))
    return shown


def draw(results: Results, out: Path, title: str) -> Path:
    """Tail accuracy against steps and against seconds: a thin line for each seed, a thick one for their mean."""
    figure = Figure(figsize=(10, 7.4), layout="constrained")
    panels = figure.subplots(2, 2, sharey="row", sharex="col")
    for row, probe in zip(panels, PROBES, strict=True):
        for arm, runs in results.items():
            _draw_arm(row, arm, runs, probe)
        for axes in row:
            if "uncurated" in results:
                final = curve(results["uncurated"], probe, "tail")[2][-1]
                axes.axhline(final, color=_COLOURS["uncurated"], linestyle="--", linewidth=1)
            axes.set_xlim(left=0)
            _bare(axes)
        row[0].set_ylabel(f"{_PROBE_NAMES[probe]} accuracy, tail classes", fontsize=9)
    panels[1, 0].set_xlabel("optimiser steps", fontsize=9)
    panels[1, 1].set_xlabel("seconds of training, curation included", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    return out


def _draw_arm(row: Sequence[Axes], arm: str, runs: Sequence[Mapping[str, Any]], probe: str) -> None:
    steps, seconds, accuracy = curve(runs, probe, "tail")
    for axes, places in zip(row, (steps, seconds), strict=True):
        axes.plot(places, accuracy, color=_COLOURS[arm], linewidth=2.2, marker="o", markersize=4, label=arm)
    for run in runs:
        single = [one[probe]["tail"] for one in run["evaluations"]]
        took = [one["seconds"] for one in run["evaluations"]]
        for axes, places in zip(row, (steps, took), strict=True):
            axes.plot(places, single, color=_COLOURS[arm], linewidth=0.7, alpha=0.5)


def _summary_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"seeds": len(runs)}
    for probe in PROBES:
        for group in GROUPS:
            mean, half = interval(_final(runs, probe, group))
            found[f"{probe}_{group}"] = round(mean, 4)
            found[f"{probe}_{group}_ci95"] = None if half is None else [round(mean - half, 4), round(mean + half, 4)]
    found["seconds"] = round(float(np.mean([run["seconds"] for run in runs])), 1)
    found["curation_seconds"] = round(float(np.mean([run["curation_seconds"] for run in runs])), 1)
    return found


def _final(runs: Sequence[Mapping[str, Any]], probe: str, group: str) -> list[float]:
    return [run["evaluations"][-1][probe][group] for run in runs]


def _cell(runs: Sequence[Mapping[str, Any]], probe: str, group: str) -> str:
    mean, half = interval(_final(runs, probe, group))
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ±{half:.3f}"


def _key(arm: str) -> str:
    return arm.replace("-", "_")


def _apart(arms: Mapping[str, Mapping[str, Any]], arm: str, probe: str) -> bool | None:
    """Whether an arm's final tail accuracy lies above uncurated with intervals that do not overlap."""
    bounds = [arms[name][f"{probe}_tail_ci95"] for name in (arm, "uncurated")]
    return None if None in bounds else bool(bounds[0][0] > bounds[1][1])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
