"""What the curation study shows: tables, a figure, a record, and the results on the page of the study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from study_statistics import AGAIN, PAIRS, PROBES, Results, accuracy, curve, gains, interval
from terrasieve.errors import ConfigError

_PROBE_NAMES = {"primary": "mean of both", "knn": "kNN", "linear": "linear"}
_COLOURS = {
    "uncurated": "#6c757d",
    "random": "#d9a441",
    "static": "#5b8c5a",
    "static-once": "#a9c6a0",
    "dynamic": "#1b6ca8",
    "dynamic-dedup": "#7fb4d9",
    "dynamic-spread": "#0b3c5d",
    "oracle": "#b0413e",
}


# ------------------------------------------------------------------------ tables


def arm_rows(results: Results) -> list[list[str]]:
    """A heading, and for each arm its final accuracies with their intervals, seconds and last pool."""
    measured = ("kNN macro", "linear macro", "kNN tail", "linear tail", "seconds", "curation s")
    rows = [["arm", "seeds", *measured, "originals", "tail images", "class entropy"]]
    for arm, runs in results.items():
        finals = [run["evaluations"][-1] for run in runs]
        cells = [
            _with_interval(interval(accuracy(one, probe, group) for one in finals))
            for group in ("macro", "tail")
            for probe in ("knn", "linear")
        ]
        cells += [f"{np.mean([run[name] for run in runs]):.0f}" for name in ("seconds", "curation_seconds")]
        cells += [f"{np.mean([run['pool'][name] for run in runs]):.0f}" for name in ("originals", "tail_samples")]
        entropy = np.mean([run["pool"]["class_entropy"] for run in runs])
        rows.append([arm, str(len(runs)), *cells, f"{entropy:.2f}"])
    return rows


def gain_rows(results: Results) -> list[list[str]]:
    """A heading, and each difference between two arms at every measurement, paired by seed."""
    longest = max(results.values(), key=len, default=())
    steps = [one["step"] for one in longest[0]["evaluations"]] if longest else []
    columns = [(probe, i) for i in range(len(steps)) for probe in PROBES]
    rows = [["macro, paired by seed", *(f"{_PROBE_NAMES[probe]}, {steps[i]} steps" for probe, i in columns)]]
    for arm, reference in PAIRS:
        found = [gains(results, arm, reference, probe, measurement=i) for probe, i in columns]
        if found and found[0]:
            rows.append([f"{arm} - {reference}", *(_with_interval(interval(one), "+.3f") for one in found)])
    return rows


def as_table(rows: Sequence[Sequence[str]], title: str) -> Table:
    """Rows under their heading, for the terminal."""
    shown = Table(*rows[0], title=title)
    for row in rows[1:]:
        shown.add_row(*row)
    return shown


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows under their heading, for a page."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _with_interval(found: tuple[float, float | None], form: str = ".3f") -> str:
    mean, half = found
    return f"{mean:{form}}" if half is None else f"{mean:{form}} ± {half:.3f}"


# ------------------------------------------------------------------------ figure


def draw(results: Results, out: Path, title: str) -> Path:
    """Macro accuracy against steps by both probes: a thin line for each seed, a thick one for their mean."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, probe in zip(panels, ("knn", "linear"), strict=True):
        for arm, runs in results.items():
            _draw_arm(axes, arm, runs, probe)
        if "uncurated" in results:
            final = curve(results["uncurated"], probe)[1][-1]
            axes.axhline(final, color=_COLOURS["uncurated"], linestyle="--", linewidth=1)
        axes.set_title(f"{_PROBE_NAMES[probe]}, mean over all classes but water", fontsize=9, loc="left")
        axes.set_xlabel("optimiser steps", fontsize=9)
        axes.set_xlim(left=0)
        _bare(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    return out


def _draw_arm(axes: Axes, arm: str, runs: Sequence[Mapping[str, Any]], probe: str) -> None:
    steps, values = curve(runs, probe)
    axes.plot(steps, values, color=_COLOURS[arm], linewidth=2.2, marker="o", markersize=4, label=arm)
    for run in runs:
        single = [accuracy(one, probe) for one in run["evaluations"]]
        axes.plot(steps, single, color=_COLOURS[arm], linewidth=0.7, alpha=0.5)


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


# ------------------------------------------------------------- record and page


def write_record(path: Path, learner: str, record: Mapping[str, Any]) -> None:
    """Put one learner's record into the file, beside those of others that are there."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**stored, learner: record}, indent=1) + "\n", encoding="utf-8")


def results_section(results: Results, summary: Mapping[str, Any], figure: str, machine: str) -> str:
    """One learner's results in Markdown.

    Args:
        results: The finished runs.
        summary: As :func:`~study_statistics.summarise` makes it.
        figure: Address of the figure, relative to the page.
        machine: On what, in which precision and when the runs were made.
    """
    answers = {True: "yes", False: "no", None: "not known"}
    judged = {arm: summary[f"verdict{suffix}"] for arm, suffix in AGAIN.items() if f"verdict{suffix}" in summary}
    rows = [["", *judged]] + [
        [name.replace("dynamic_", "").replace("_", " "), *(answers[verdict[name]] for verdict in judged.values())]
        for name in next(iter(judged.values()), {})
    ]
    steps = []
    for arm in judged:
        ratios = [
            f"{_PROBE_NAMES[probe]} {'never' if share is None else format(share, '.2f')}"
            for probe, share in summary[f"steps_ratio{AGAIN[arm]}"].items()
        ]
        steps.append(f"- Share of its steps at which {arm} reaches uncurated's final figure: {', '.join(ratios)}.")
    parts = [
        f"{machine}.",
        as_markdown(arm_rows(results)),
        as_markdown(gain_rows(results)),
        *(["\n".join(steps), "By the plan, on the primary endpoint:", as_markdown(rows)] if judged else []),
        f"![Accuracy against steps]({figure})",
    ]
    return "\n\n".join(parts)


def fill_page(page: Path, learner: str, section: str) -> None:
    """Replace what stands between the learner's two markers on the page.

    Raises:
        ConfigError: The page lacks the markers.
    """
    begin, end = f"<!-- results of {learner} -->", f"<!-- end of {learner} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ConfigError(f"{page} lacks the lines {begin} and {end}; put them where the results are to stand.")
    page.write_text(f"{before}{begin}\n\n{section}\n\n{end}{after}", encoding="utf-8")
