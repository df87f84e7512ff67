"""Plots of a run as PNG files, drawn without a display."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.probes.results import ProbeRow

_COLOURS = ("#1b6ca8", "#b0b7bf", "#d9a441", "#5b8c5a")
_CURVES = (
    ("loss", "loss"),
    ("learning_rate", "learning rate"),
    ("effective_rank", "effective rank"),
    ("feature_std", "feature std"),
)


def training_curves(log: Path, out: Path, title: str) -> Path:
    """Draw loss, learning rate, effective rank and feature spread of a run's ``log.csv`` by epoch."""
    with log.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    epochs = [float(row["epoch"]) for row in rows]
    figure = Figure(figsize=(9, 5), layout="constrained")
    for axes, (column, label) in zip(figure.subplots(2, 2, sharex=True).flat, _CURVES, strict=True):
        axes.plot(epochs, [float(row[column]) for row in rows], color=_COLOURS[0], linewidth=1.4)
        axes.set_title(label, fontsize=10, loc="left")
        axes.set_ylim(bottom=0)
        _bare(axes)
    figure.supxlabel("epoch", fontsize=10)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    figure.savefig(out, dpi=130)
    return out


def curation_chart(folder: Path, out: Path, title: str) -> Path:
    """Draw what the rounds of a run did: how even the pool is beside the archive, and how it changed.

    Args:
        folder: ``curation/`` of a run folder, with at least one round.
        out: The PNG.
        title: Heading.
    """
    rounds = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("round-*.json"))]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    sizes, clusters, turnover = figure.subplots(1, 3)
    _occupancy(sizes, rounds[-1])
    numbers = [record["round"] for record in rounds]
    for slot, (key, label) in enumerate((("before", "archive"), ("after", "pool"))):
        values = [record["diagnostics"][f"occupancy_{key}"]["effective"] for record in rounds]
        clusters.plot(numbers, values, marker="o", color=_COLOURS[1 - slot], label=label)
    clusters.set_title("effective number of clusters", fontsize=10, loc="left")
    changed = [record["diagnostics"]["turnover"] for record in rounds]
    turnover.bar(numbers, [value or 0 for value in changed], color=_COLOURS[0], width=0.6)
    turnover.set_title("share of the pool that is new", fontsize=10, loc="left")
    turnover.set_ylim(0, 1)
    for axes in (clusters, turnover):
        axes.set_xlabel("round", fontsize=9)
        axes.set_xticks(numbers)
        _bare(axes)
    clusters.set_ylim(bottom=0)
    clusters.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    figure.savefig(out, dpi=130)
    return out


def _occupancy(axes: Axes, record: Mapping[str, Any]) -> None:
    """Share of the archive and of the pool in each cluster, the fullest cluster first."""
    for slot, (key, label) in enumerate((("group_sizes", "archive"), ("quotas", "pool"))):
        counts = np.sort(np.array(record[key], dtype=np.float64))[::-1]
        axes.plot(np.arange(1, len(counts) + 1), counts / counts.sum(), color=_COLOURS[1 - slot], label=label)
    axes.set_yscale("log")
    axes.set_title(f"share in each cluster, round {record['round']}", fontsize=10, loc="left")
    axes.set_xlabel("cluster, fullest first", fontsize=9)
    axes.legend(frameon=False, fontsize=9)
    _bare(axes)


def probe_chart(rows: Sequence[ProbeRow], out: Path, title: str, metric: str = "accuracy") -> Path:
    """Draw each model's score with its 95 % interval: one panel a probe, one group of bars an input."""
    probes = list(dict.fromkeys(row.probe for row in rows))
    inputs = list(dict.fromkeys(row.inputs for row in rows))
    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure(figsize=(4.6 * len(probes), 1.3 + 0.17 * (len(models) + 1) * len(inputs)), layout="constrained")
    panels = figure.subplots(1, len(probes), sharex=True, sharey=True, squeeze=False)[0]
    for axes, probe in zip(panels, probes, strict=True):
        for slot, model in enumerate(models):
            chosen = [row for row in rows if row.probe == probe and row.model == model]
            _bars(axes, chosen, inputs, slot, len(models), metric)
        axes.set_title(probe, fontsize=10, loc="left")
        axes.set_yticks(range(len(inputs)), inputs, fontsize=9)
        axes.set_xlabel(metric.replace("_", " "), fontsize=9)
        _bare(axes)
    panels[0].set_ylim(len(inputs) - 0.5, -0.5)
    panels[0].set_xlim(0, 1)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(models), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    figure.savefig(out, dpi=130)
    return out


def _bars(axes: Axes, rows: Sequence[ProbeRow], inputs: Sequence[str], slot: int, slots: int, metric: str) -> None:
    height = 0.8 / slots
    places = np.array([inputs.index(row.inputs) for row in rows]) + (slot - (slots - 1) / 2) * height
    values = np.array([row.metrics[metric] for row in rows])
    bounds = np.array([row.ci95[metric] for row in rows]).reshape(-1, 2)
    errors = np.abs(bounds.T - values)
    axes.barh(
        places,
        values,
        height * 0.9,
        xerr=errors,
        color=_COLOURS[slot % len(_COLOURS)],
        label=rows[0].model if rows else None,
        error_kw={"elinewidth": 1, "ecolor": "#333333"},
    )


def view_sheet(views: Sequence[Tensor], names: Sequence[str], out: Path, title: str, samples: int = 8) -> Path:
    """Draw what the method sees: one row a view, one column a sample, each patch stretched by itself.

    Args:
        views: One tensor of shape ``(samples, channels, height, width)`` a view.
        names: One name a view.
        out: The PNG.
        title: Heading.
        samples: Columns.
    """
    figure = Figure(figsize=(samples * 1.1, len(views) * 1.2 + 0.4), layout="constrained")
    grid = figure.subplots(len(views), samples, squeeze=False)
    for row, (view, name) in enumerate(zip(views, names, strict=True)):
        for column in range(samples):
            axes = grid[row][column]
            axes.imshow(_displayable(view[column]), cmap="gray")
            axes.set_xticks([])
            axes.set_yticks([])
        grid[row][0].set_ylabel(name, fontsize=9)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    figure.savefig(out, dpi=130)
    return out


def _displayable(patch: Tensor) -> NDArray[np.float32]:
    pixels = patch.detach().float().cpu().numpy()
    low, high = np.percentile(pixels, (2, 98))
    stretched: NDArray[np.float32] = np.clip((pixels - low) / max(high - low, 1e-6), 0, 1)
    return stretched.transpose(1, 2, 0) if len(stretched) == 3 else stretched[0]


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
