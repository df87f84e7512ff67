"""A benchmark from end to end: cells, tables, comparisons, files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from terrasieve.bench.cells import BenchCell, model_key, run_cells, task_key
from terrasieve.bench.planning import BenchPlan, Entry, seeds_of
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.probes.compare import ProbeTask, compare, prepare
from terrasieve.probes.finetune import train_end_to_end
from terrasieve.probes.models import Candidate, fits
from terrasieve.probes.probe import probes_named
from terrasieve.probes.results import InputRow, Measured
from terrasieve.probes.splits import make_splits
from terrasieve.runs import BenchFolder

SCRATCH = "from scratch"


def run_plan(plan: BenchPlan, out: Path, device: torch.device) -> list[Measured]:
    """Measure what is not measured yet.

    Args:
        plan: The models, inputs, target and probes to measure.
        out: The benchmark's folder; ``cells/`` in it keeps every cell.
        device: Device on which networks are trained from scratch.

    Returns:
        Every result; one that has no seed of its own stands once for each seed.

    Raises:
        BandError: An input does not exist in the archive, or fits none of the models.
        ConfigError: There is nothing to measure.
    """
    if not plan.entries:
        raise ConfigError("There is no model to measure; name a run or a baseline.")
    task = make_task(plan)
    found = run_cells(list(_cells(plan, task, device)), BenchFolder(out).cells)
    return [one for measured in found for one in _for_every_seed(measured, plan.entries)]


def make_task(plan: BenchPlan) -> ProbeTask:
    """What every cell of a plan shares."""
    splits = make_splits(plan.archive.table(), seed=0, column=plan.split_column, target=plan.target)
    rows = [
        InputRow((EncoderInput(sensor=one.sensor, bands=(band,)),)) for one in _resolved(plan) for band in one.bands
    ]
    return prepare(plan.archive, splits, rows, probes_named(plan.probes, splits.target.task), plan.settings)


def _resolved(plan: BenchPlan) -> list[EncoderInput]:
    return [one.resolve(plan.archive.sensors) for one in plan.inputs]


def _cells(plan: BenchPlan, task: ProbeTask, device: torch.device) -> Iterator[BenchCell]:
    for entry in plan.entries:
        key = {"model": model_key(entry.candidate.model), "channels": entry.candidate.channels}
        for one in _resolved(plan):
            if fits(entry.candidate, one, plan.archive.sensors):
                yield _probed(entry.candidate, one, replace(task, seed=entry.seeds[0]), key)
    if plan.scratch is not None:
        for seed in seeds_of(plan.entries):
            for one in _resolved(plan):
                yield _scratched(plan, plan.scratch, one, replace(task, seed=seed), device)


def _probed(candidate: Candidate, shown: EncoderInput, task: ProbeTask, key: dict[str, object]) -> BenchCell:
    return BenchCell(
        model=candidate.name,
        inputs=str(shown),
        target=task.splits.target.column,
        seed=task.seed,
        key={**task_key(task), **key, "inputs": str(shown)},
        measure=lambda: compare([candidate], [shown], task),
    )


def _scratched(
    plan: BenchPlan, backbone: BackboneSpec, shown: EncoderInput, task: ProbeTask, device: torch.device
) -> BenchCell:
    spec = backbone.model_copy(update={"channels": len(shown.bands)})

    def measure() -> list[Measured]:
        encoder = build_encoder(spec, task.seed).to(device)
        return [train_end_to_end(SCRATCH, encoder, InputRow((shown,)), task, plan.end_to_end)]

    how = str(plan.end_to_end.protocol(task.seed))
    key = {**task_key(task), "backbone": spec.model_dump(), "how": how, "inputs": str(shown)}
    return BenchCell(SCRATCH, str(shown), task.splits.target.column, task.seed, key, measure)


def _for_every_seed(measured: Measured, entries: Sequence[Entry]) -> list[Measured]:
    """A result that has no seed of its own counts for every seed."""
    seeds = next(
        (
            entry.seeds
            for entry in entries
            if entry.candidate.name == measured.row.model and measured.row.seed in entry.seeds
        ),
        (measured.row.seed,),
    )
    return [Measured(measured.row.model_copy(update={"seed": seed}), measured.predicted) for seed in seeds]
