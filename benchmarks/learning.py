"""Which method learns most from a small archive: every method on the same samples, at equal steps and equal seconds.

Two questions, each with its archive:

- cross: 6,400 tiles of 25 real scenes with an optical and a radar sensor (``la_texas_pairs``), measured on EuroSAT;
- domain: the train split of EuroSAT (``eurosat_rgb_full``), no labels, measured on EuroSAT.

Measured are kNN and logistic regression on frozen features of 64-pixel patches, red, green and blue joined, beside
image statistics and the untrained backbone with its batch norms measured. Settings are chosen on the validation split
(``--split val``); the record is of the test split.

Every cell (question, method, seed, budget) is a run folder of its own: run the command again to go on after an
interruption, with other ``--methods``, ``--seeds`` or ``--questions`` to add to what there is. In a budget of seconds
every method trains for as long as the first one needs for its steps, by rates measured at the start on this machine.

Usage: ``python benchmarks/learning.py [--quick] [--docs]``; ``--quick`` is the first question alone, 400 steps, one
seed, scored on validation. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from rich.console import Console
from rich.table import Table

from learning_archives import Scored, open_labelled, open_scenes, train_split
from machine import describe
from terrasieve.archive.protocol import Archive
from terrasieve.config import load_config
from terrasieve.console import console
from terrasieve.embeddings import EncoderInput
from terrasieve.files.writing import write_text
from terrasieve.models.export import load_encoder
from terrasieve.pretraining import pretrain
from terrasieve.probes.compare import embed_candidate, fit_probes
from terrasieve.probes.results import IMAGE_STATISTICS, RANDOM_INIT, ProbeRow
from terrasieve.probing import ProbePlan, set_up
from terrasieve.schema import Spec
from terrasieve.training.loop import make_fabric

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "learning.json"
RESULT = "result.json"

Question = Literal["cross", "domain"]
Budget = Literal["steps", "seconds"]
METHODS: Mapping[Question, Sequence[str]] = {
    "cross": ("rs-lejepa-1-small", "rs-byol-1-small", "rs-byol-1-mixed-small", "dino-small"),
    "domain": ("lejepa-medium", "rs-byol-1-ms-only-small", "dino-small"),
}
"""Recipes that are compared; the first of each is the one whose figures end the output."""
STEPS: Mapping[Question, int] = {"cross": 2000, "domain": 3600}
TIMED = 60
"""Steps after which the rate of a method is known, of which the first third is left out."""
JOINED = "s2:rgb"


class Cell(Spec):
    """One run.

    Attributes:
        question: Which archive is learnt from.
        method: Name of the recipe.
        seed: Seed of weights, views, batches and probes.
        budget: What all methods have equal.
        steps: Optimiser steps.
        split: What is scored.
        labels: Labelled images that the probes learn from; all of the train split where null.
        settings: Changes of the recipe, as in ``terrasieve pretrain``.
    """

    question: Question
    method: str
    seed: int = Field(ge=0)
    budget: Budget
    steps: int = Field(ge=1)
    split: Literal["val", "test"]
    labels: int | None = Field(default=None, ge=1)
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of its folder, which says all but the settings; of equal steps a run serves either budget."""
        labels = "all" if self.labels is None else self.labels
        return f"{self.question}-{self.method}-{self.steps}-{self.split}-{labels}-{self.seed}"


def main() -> None:
    """Train and measure what is missing, then report."""
    arguments = parse()
    archives = Archives(arguments.data, arguments.out)
    cells = plan(arguments, archives)
    results = []
    for number, cell in enumerate(cells, 1):
        console.rule(f"{number}/{len(cells)} {cell.name}")
        results.append(run(cell, archives, arguments.out))
        Console(width=140).print(table(results))
    on = describe(arguments.seeds[0])
    print(on)
    if arguments.docs:
        write_text(RECORD, json.dumps({"cells": merged(results, RECORD)}, indent=1) + "\n")
    print(json.dumps(summarise(results)))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TERRASIEVE_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="holds la_texas_pairs and eurosat_rgb_full")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--questions", nargs="+", choices=["cross", "domain"], default=["cross", "domain"])
    parser.add_argument("--methods", nargs="+", help="recipes; those of each question by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="+", choices=["steps", "seconds"], default=["steps", "seconds"])
    parser.add_argument("--steps", type=int, help="of every run; the question's own by default")
    parser.add_argument("--split", choices=["val", "test"], default="test", help="val while settings are chosen")
    parser.add_argument("--labels", type=int, help="labelled images that probes learn from; all by default")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as in terrasieve pretrain")
    parser.add_argument("--quick", action="store_true", help="a first look, in six minutes on two cores")
    parser.add_argument("--docs", action="store_true", help="add these cells to the record in docs/")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.questions, arguments.methods, arguments.seeds = ["cross"], ["rs-lejepa-1-small"], [0]
        arguments.budgets, arguments.steps = ["steps"], 400
        arguments.split, arguments.labels = "val", 3150
    return arguments


class Archives:
    """What is learnt from and measured on, each opened once.

    Args:
        data: Folder that holds ``la_texas_pairs`` and ``eurosat_rgb_full``.
        out: Folder for what is packed.
    """

    def __init__(self, data: Path, out: Path) -> None:
        self._data = data
        self._out = out

    @cached_property
    def scenes(self) -> Archive:
        """Tiles of the real scenes, packed."""
        return open_scenes(self._data, self._out / "pairs.zarr")

    @cached_property
    def eurosat(self) -> Archive:
        """All of EuroSAT, packed."""
        return open_labelled(self._data, self._out / "eurosat.zarr")


# ------------------------------------------------------------------------- cells


def plan(arguments: argparse.Namespace, archives: Archives) -> list[Cell]:
    """Every cell, those of one seed together, so that a first answer comes early."""
    cells = []
    for seed in arguments.seeds:
        for question in arguments.questions:
            methods = arguments.methods or METHODS[question]
            steps = arguments.steps or STEPS[question]
            for budget in arguments.budgets:
                lengths = dict.fromkeys(methods, steps)
                if budget == "seconds":
                    lengths = equal_seconds(question, methods, steps, archives, arguments)
                cells += [
                    Cell(
                        question=question,
                        method=method,
                        seed=seed,
                        budget=budget,
                        steps=length,
                        split=arguments.split,
                        labels=arguments.labels,
                        settings=tuple(arguments.settings),
                    )
                    for method, length in lengths.items()
                ]
    return cells


def equal_seconds(
    question: Question, methods: Sequence[str], steps: int, archives: Archives, arguments: argparse.Namespace
) -> dict[str, int]:
    """Steps of each method that take as long as ``steps`` of the first one; measured once for a folder."""
    path = arguments.out / f"rates-{question}.json"
    rates: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for method in methods:
        if method not in rates:
            rates[method] = seconds_a_step(question, method, archives, arguments)
            write_text(path, json.dumps(rates, indent=1))
    return {method: round(steps * rates[methods[0]] / rates[method]) for method in methods}


def seconds_a_step(question: Question, method: str, archives: Archives, arguments: argparse.Namespace) -> float:
    """What a step of a method takes on this machine, without evaluations and checkpoints."""
    folder = arguments.out / "rates" / f"{question}-{method}"
    every = TIMED // 3
    settings = [f"train.steps={TIMED}", f"train.log_every={every}", *arguments.settings]
    learn(method, settings, question, archives, folder)
    batch = load_config(method, settings).train.batch_size
    return float(batch / np.mean(logged(folder, "images_per_s")[1:]))


def learn(method: str, settings: Sequence[str], question: Question, archives: Archives, folder: Path) -> float:
    """Train in a folder, from where it stopped; returns the seconds of training, those before a stop included."""
    config = load_config(method, settings)
    fabric = make_fabric(config.train)
    fabric.launch()
    if question == "cross":
        pretrain(config, archives.scenes, folder, fabric, resume=True)
    else:
        pretrain(config, archives.eurosat, folder, fabric, resume=True, subset=train_split(archives.eurosat))
    return logged(folder, "seconds")[-1]


def logged(folder: Path, column: str) -> list[float]:
    """What a run logged in one column, in order."""
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


def run(cell: Cell, archives: Archives, out: Path) -> dict[str, Any]:
    """What a cell found, trained and measured where that is not done."""
    folder = out / cell.name
    path = folder / RESULT
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {**found, "budget": cell.budget}
    settings = [f"train.steps={cell.steps}", f"train.seed={cell.seed}", *cell.settings]
    seconds = learn(cell.method, settings, cell.question, archives, folder)
    card = load_encoder(folder)[1]
    result = {
        **cell.model_dump(mode="json"),
        "seconds": round(seconds),
        "machine": describe(cell.seed),
        "precision": card.provenance.precision,
        "scores": scores(cell, archives, folder, out),
    }
    write_text(path, json.dumps(result, indent=1))
    return result


def scores(cell: Cell, archives: Archives, folder: Path, out: Path) -> list[dict[str, Any]]:
    """What the encoder of a run reaches, and its floors, which are measured once for all runs of one backbone."""
    encoder, card = load_encoder(folder)
    shares = (1.0, 0.01) if cell.labels is None else (1.0,)
    plan = ProbePlan(
        inputs=(EncoderInput.parse(JOINED),), probes=("knn", "logistic"), train_shares=shares, seed=cell.seed
    )
    setup = set_up(encoder, card, Scored(archives.eurosat, cell.split, cell.labels), plan)
    task = setup.tasks[0][0]
    found = []
    for candidate in setup.candidates:
        own = json.dumps([card.backbone.model_dump(mode="json"), encoder.channels, cell.split, cell.labels, cell.seed])
        kept = out / "floors" / f"{candidate.name} {zlib.crc32(own.encode()):08x}.json".replace(" ", "-")
        if candidate.is_floor and kept.is_file():
            found += json.loads(kept.read_text(encoding="utf-8"))
            continue
        measured = fit_probes(embed_candidate(candidate, setup.inputs, task), task)
        made = [_score(one.row, cell) for one in measured]
        if candidate.is_floor:
            write_text(kept, json.dumps(made, indent=1))
        found += made
    return found


def _score(row: ProbeRow, cell: Cell) -> dict[str, Any]:
    names = {IMAGE_STATISTICS: "statistics", RANDOM_INIT: "untrained"}
    return {
        "model": names.get(row.model, cell.method),
        "probe": "knn" if row.probe.lower() == "knn" else "linear",
        "train_share": row.train_share,
        "accuracy": round(row.metrics["accuracy"], 4),
        "ci95": [round(bound, 4) for bound in row.ci95["accuracy"]],
    }


# ------------------------------------------------------------------------ report


def merged(results: Sequence[Mapping[str, Any]], record: Path) -> list[Mapping[str, Any]]:
    """The cells of a record and these, which take the place of those of the same run; in order of their names.

    A cell says on what machine and with what settings it was made, so that a record may grow over several days.
    """
    kept: dict[str, Mapping[str, Any]] = {}
    earlier = json.loads(record.read_text(encoding="utf-8"))["cells"] if record.is_file() else []
    for cell in [*earlier, *results]:
        kept[json.dumps([cell[name] for name in Cell.model_fields])] = cell
    return [kept[key] for key in sorted(kept)]


def accuracies(results: Sequence[Mapping[str, Any]], model: str, probe_name: str, share: float = 1.0) -> list[float]:
    """The accuracy of a model in each result that has it."""
    wanted = (model, probe_name, share)
    return [
        score["accuracy"]
        for result in results
        for score in result["scores"]
        if (score["model"], score["probe"], score["train_share"]) == wanted
    ]


def table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Mean accuracy of each method and floor, a line for each question, budget and method."""
    made = Table("question", "budget", "method", "seeds", "steps", "seconds", "kNN", "linear", "kNN 1 %", "linear 1 %")
    groups: dict[tuple[str, str, str, int], list[Mapping[str, Any]]] = {}
    for result in results:
        key = (result["question"], result["budget"], result["method"], result["steps"])
        groups.setdefault(key, []).append(result)
    for (question, budget, method, steps), own in groups.items():
        for model in (method, "statistics", "untrained"):
            cells = [
                accuracies(own, model, probe_name, share) for share in (1.0, 0.01) for probe_name in ("knn", "linear")
            ]
            told = [f"{np.mean(cell):.3f}" if cell else "" for cell in cells]
            seconds = f"{np.mean([one['seconds'] for one in own]):.0f}" if model == method else ""
            made.add_row(question, budget, model, str(len(own)), str(steps), seconds, *told)
    return made


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of the last line: of each question's first method, of the budget of steps, with its interval."""
    summary: dict[str, Any] = {}
    for question in ("cross", "domain"):
        own = [one for one in results if one["question"] == question and one["budget"] == "steps"]
        if not own:
            continue
        method = own[0]["method"]
        chosen = [one for one in own if one["method"] == method]
        for name, model in (("", method), ("_statistics", "statistics"), ("_untrained", "untrained")):
            for probe_name in ("knn", "linear"):
                summary[f"{question}_{probe_name}{name}"] = round(
                    float(np.mean(accuracies(chosen, model, probe_name))), 4
                )
                summary[f"{question}_{probe_name}{name}_ci95"] = _interval(chosen, model, probe_name)
    return summary


def _interval(results: Sequence[Mapping[str, Any]], model: str, probe_name: str) -> list[float]:
    """The mean over seeds of the bounds of the bootstrap intervals over images."""
    bounds = [
        score["ci95"]
        for result in results
        for score in result["scores"]
        if (score["model"], score["probe"], score["train_share"]) == (model, probe_name, 1.0)
    ]
    return [round(float(bound), 4) for bound in np.mean(bounds, axis=0)]


if __name__ == "__main__":
    main()
