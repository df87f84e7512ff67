"""What RS-BYOL learns from 25 real scenes: pre-train on optical-radar pairs, probe on EuroSAT RGB.

Two variants of the small recipe are trained on the 6,400 tiles of 64 pixels of ``la_texas_pairs``: optical against
radar (``rs-byol-1-small``) and optical against optical (``rs-byol-1-ms-only-small``). Both are probed on
``eurosat_rgb``, band by band and with the three bands joined, beside image statistics and the untrained backbone.

The same by hand::

    terrasieve pack la_texas_pairs --sensor s2=s2-rgb8 --sensor s1=s1-vh8 --out pairs.zarr
    terrasieve pretrain rs-byol-1-small --data pairs.zarr --out run --set train.epochs=EPOCHS
    terrasieve probe run --data eurosat_rgb

Usage: ``python benchmarks/rs_byol_real.py [--data DIR] [--out runs/rs-byol-real]``. Run it again to go on after an
interruption. The last line is JSON; its figures are those of optical against radar.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from machine import describe
from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.config import load_config
from terrasieve.console import console
from terrasieve.embeddings import EncoderInput
from terrasieve.models.export import load_encoder
from terrasieve.pretraining import online_probe, pretrain
from terrasieve.probes.results import RANDOM_INIT, ProbeRow
from terrasieve.probes.row_tables import score_tables, write_csv, write_json
from terrasieve.probing import ProbePlan, probe
from terrasieve.reporting.page import write_report
from terrasieve.training.loop import make_fabric

VARIANTS = {"optical-radar": "rs-byol-1-small", "optical-only": "rs-byol-1-ms-only-small"}
EPOCHS = 20.0
"""Passes over the tiles; see docs/log.md for what was tried."""

GREEN, JOINED = "s2:B03", "s2:B04+B03+B02"
_COLOURS = ("#1b6ca8", "#b0b7bf", "#d9a441", "#5b8c5a")


def train_and_probe(
    recipe: str, settings: Sequence[str], packed: Archive, labelled: Archive, folder: Path
) -> tuple[list[ProbeRow], float]:
    """One variant from start to end; returns its rows and the minutes that training took."""
    config = load_config(recipe, settings)
    fabric = make_fabric(config.train)
    fabric.launch()
    began = time.monotonic()
    pretrain(config, packed, folder, fabric, resume=True, evaluate=online_probe(config, labelled, GREEN))
    minutes = (time.monotonic() - began) / 60
    encoder, card = load_encoder(folder)
    inputs = tuple(EncoderInput.parse(text) for text in ("s2:B04", "s2:B03", "s2:B02", "s2:rgb"))
    plan = ProbePlan(inputs=inputs, probes=("knn", "logistic"), seed=config.train.seed)
    rows = probe(encoder, card, labelled, plan)
    write_json(rows, folder / "probe.json")
    write_csv(rows, folder / "probe.csv")
    write_report([folder], folder / "report.html")
    probe_chart(rows, folder / "probes.png", f"{recipe}: EuroSAT RGB")
    return rows, minutes


def probe_chart(rows: Sequence[ProbeRow], out: Path, title: str) -> None:
    """Draw each model's accuracy with its 95 % interval: one panel a probe, one group of bars an input."""
    probes = list(dict.fromkeys(row.probe for row in rows))
    inputs = list(dict.fromkeys(row.inputs for row in rows))
    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure(figsize=(4.6 * len(probes), 1.3 + 0.17 * (len(models) + 1) * len(inputs)), layout="constrained")
    panels = figure.subplots(1, len(probes), sharex=True, sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, probes, strict=True):
        for slot, model in enumerate(models):
            chosen = [row for row in rows if row.probe == name and row.model == model]
            _bars(axes, chosen, inputs, slot, len(models))
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_yticks(range(len(inputs)), inputs, fontsize=9)
        axes.set_xlabel("accuracy", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
    panels[0].set_ylim(len(inputs) - 0.5, -0.5)
    panels[0].set_xlim(0, 1)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(models), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    figure.savefig(out, dpi=130)


def _bars(axes: Axes, rows: Sequence[ProbeRow], inputs: Sequence[str], slot: int, slots: int) -> None:
    height = 0.8 / slots
    places = np.array([inputs.index(row.inputs) for row in rows]) + (slot - (slots - 1) / 2) * height
    values = np.array([row.metrics["accuracy"] for row in rows])
    bounds = np.array([row.ci95["accuracy"] for row in rows]).reshape(-1, 2)
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


def figures(rows: Sequence[ProbeRow], recipe: str) -> dict[str, object]:
    """The figures of the last line: accuracies and their 95 % intervals."""
    named: dict[str, object] = {}
    for name, inputs, fitted in (
        ("green_knn", GREEN, "knn"),
        ("green_linear", GREEN, "logistic"),
        ("rgb_joined_knn", JOINED, "knn"),
        ("rgb_joined_linear", JOINED, "logistic"),
    ):
        for model, suffix in ((recipe, ""), (RANDOM_INIT, "_random")):
            (row,) = (r for r in rows if (r.model, r.inputs, r.probe.lower()) == (model, inputs, fitted))
            named[name + suffix] = round(row.metrics["accuracy"], 4)
            named[f"{name}{suffix}_ci95"] = [round(bound, 4) for bound in row.ci95["accuracy"]]
    return named


def main() -> None:
    """Train, probe, print tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TERRASIEVE_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="holds la_texas_pairs and eurosat_rgb")
    parser.add_argument("--out", type=Path, default=Path("runs/rs-byol-real"))
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as in terrasieve pretrain")
    arguments = parser.parse_args()
    scenes = scenes_spec_from_options(arguments.data / "la_texas_pairs", ["s2=s2-rgb8", "s1=s1-vh8"], 64, None, "stem")
    pack(open_archive(scenes), arguments.out / "pairs.zarr")
    packed, labelled = PackedArchive(arguments.out / "pairs.zarr"), open_archive(arguments.data / "eurosat_rgb")
    settings = [f"train.epochs={arguments.epochs}", f"train.seed={arguments.seed}", *arguments.settings]
    results = {}
    for variant, recipe in VARIANTS.items():
        console.rule(variant)
        rows, minutes = train_and_probe(recipe, settings, packed, labelled, arguments.out / variant)
        results[variant] = (rows, minutes)
        Console().print(*score_tables(rows))
    spent = ", ".join(f"{variant} {minutes:.0f} min" for variant, (_, minutes) in results.items())
    print(f"{describe(arguments.seed)}; training: {spent}")
    last = {variant: figures(rows, VARIANTS[variant]) for variant, (rows, _) in results.items()}
    print(json.dumps({**last["optical-radar"], "optical_only": last["optical-only"]}))


if __name__ == "__main__":
    main()
