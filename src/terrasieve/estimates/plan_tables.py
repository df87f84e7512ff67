"""A plan for people and for programs: tables for a terminal, and plain values for JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from terrasieve.estimates.extrapolation import Basis, Estimate, Figure
from terrasieve.estimates.trial_results import Pace, TrialResults
from terrasieve.files.writing import write_text
from terrasieve.tables import Cell, Table, row_of

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def measured_table(found: TrialResults) -> Table:
    """What was measured, and for how long; every figure of it is measured."""
    rows = [
        _measured("open", "sample", found.opening),
        _measured("index", "sample", found.index, f"{_bytes(found.bytes.input)} read a sample"),
        _measured("pack", "sample", found.pack, f"{_bytes(found.bytes.packed)} written a sample"),
        _measured("embed", "sample", found.embed, f"{found.network.embed_flops / 1e9:.2f} GFLOP a sample"),
    ]
    for batch, pace in sorted(found.steps.items()):
        what = f"{found.network.train_flops / 1e9:.2f} GFLOP a sample"
        rows.append(_measured(f"training, batch {batch}", "step", pace, what))
    rate = found.products.units / found.products.seconds / 1e9
    rows.append(_measured("k-means", "product", found.products, f"{rate:.1f}e9 a second"))
    highest = max(found.peaks.values())
    notes = (
        f"{found.machine}; one process, which held {_bytes(highest, binary=True)} at most.",
        "GFLOP are counted, in training forward and backward; a product is of two numbers in the passes of k-means.",
    )
    columns = ("stage", "units", "for", "a unit", "processor", "besides")
    return Table(f"Measured on {found.archive}", columns, tuple(rows), notes, "lrrrrl")


def _measured(stage: str, unit: str, pace: Pace, besides: str = "") -> tuple[Cell, ...]:
    count = f"{pace.units:,.0f}" if pace.units < 1e7 else f"{pace.units:.1e}"
    return row_of(
        stage,
        f"{count} {unit}s",
        duration(pace.seconds),
        duration(pace.each("wall")),
        duration(pace.each("processor")),
        besides,
    )


def plan_table(plan: Estimate) -> Table:
    """Every job: how long on each number of machines and how much memory there, and the bytes that it moves."""
    machines = list(plan.steps)
    rows = []
    for name, job in plan.jobs.items():
        times = (_cell(job.seconds[one], duration) for one in machines)
        memory = (_cell(job.memory[one], _memory) for one in machines)
        rows.append((Cell(name), *times, _cell(job.read, _bytes), _cell(job.written, _bytes), *memory))
    columns = (
        "job",
        *(f"time {one:,}" for one in machines),
        "read",
        "written",
        *(f"memory {one:,}" for one in machines),
    )
    title = f"A plan for {plan.work.samples:,} samples, by the number of machines"
    marks = "No mark: measured here. ~: extrapolated from what was measured or counted. *: rests on something assumed."
    return Table(title, columns, tuple(rows), (marks, *_facts(plan)))


def step_table(plan: Estimate) -> Table:
    """A step of training on each number of machines."""
    steps = plan.steps
    rows = (
        row_of("samples a machine", *(f"{step.samples:,}" for step in steps.values())),
        (Cell("compute"), *(_cell(step.compute, duration) for step in steps.values())),
        (Cell("all-reduce"), *(_cell(step.exchange, duration) for step in steps.values())),
        (Cell("efficiency"), *(_cell(step.efficiency, lambda value, _: f"{value:.0%}") for step in steps.values())),
        (Cell("read a second"), *(_cell(step.reading, _bytes) for step in steps.values())),
        (
            Cell("memory of the step"),
            *(_cell(step.device, _memory) for step in steps.values()),
        ),
    )
    columns = ("", *(f"on {one:,}" for one in steps))
    return Table("A step of training", columns, rows)


def _facts(plan: Estimate) -> Iterable[str]:
    work, assumed = plan.work, plan.assumed
    yield (
        f"{work.steps:,} steps of {work.batch:,}, and {work.rounds} round(s), each of which embeds {work.embedded:,} "
        f"samples and multiplies {work.clustered:.2g} pairs of vectors at most. Index, pack and embed go by "
        f"{work.parts:,} parts."
    )
    rate = assumed.sustained_tflops
    yield (
        f"Assumed: {assumed.network_gbytes:g} GB/s a machine for gradients, none of it hidden behind computing"
        + (f"; {rate:g} TFLOP/s sustained by each machine in embedding, clustering and training" if rate else "")
        + (f"; {assumed.storage_gbytes:g} GB/s of the storage for all machines" if assumed.storage_gbytes else "")
        + (f"; {assumed.readers} reader processes a machine share index and pack evenly" * (assumed.readers > 1))
        + "."
    )
    yield (
        "A machine is one process with one device, and memory is what that process holds. "
        + ("" if assumed.storage_gbytes else "Storage is taken to serve however many machines. ")
        + "Only gradients are counted of what machines exchange."
    )
    if plan.proportional:
        yield "Steps of one size alone were measured; those of the recipe are taken to be longer in proportion."
    if assumed.clock == "processor":
        yield "Seconds are those of the processor, as if nothing else ran on it and nothing waited for a disk."


def duration(seconds: float, digits: int = 3) -> str:
    """Seconds in the unit that suits them, such as ``12 ms`` or ``3.4 h``.

    Args:
        seconds: How long, 0 or more.
        digits: Digits of the number, but for those of larger whole numbers.
    """
    if not seconds:
        return "0 s"
    for limit, size, unit in (
        (1e-6, 1e-9, "ns"),
        (1e-3, 1e-6, "us"),
        (1, 1e-3, "ms"),
        (120, 1, "s"),
        (7200, 60, "min"),
    ):
        if seconds < limit:
            return _short(seconds / size, unit, digits)
    days = seconds >= 96 * 3600
    return _short(seconds / (86400 if days else 3600), "days" if days else "h", digits)


def _bytes(value: float, digits: int = 3, binary: bool = False) -> str:
    step, units = (1024, _BINARY) if binary else (1000, _DECIMAL)
    power = 0
    while value >= step and power < len(units) - 1:
        value, power = value / step, power + 1
    return _short(value, units[power], digits)


def _short(value: float, unit: str, digits: int) -> str:
    whole = len(str(int(value)))
    return f"{value:,.{max(0, digits - whole) if value else 0}f} {unit}"


def _cell(figure: Figure, show: Callable[[float, int], str]) -> Cell:
    """A figure as exact as an estimate is, and the mark of what it rests on."""
    about = "~" if figure.basis is Basis.EXTRAPOLATED else ""
    return Cell(f"{about}{show(figure.value, 2)}", mark="*" if figure.basis is Basis.ASSUMED else "")


def _memory(value: float, digits: int) -> str:
    return _bytes(value, digits, binary=True)


def write_plan(found: TrialResults, plan: Estimate, path: Path) -> Path:
    """Write all that was measured and planned as JSON: ``measured`` and ``plan``, in the names of their attributes.

    Raises:
        WriteError: The system refused it.
    """
    return write_text(path, json.dumps({"measured": _plain(found), "plan": _plain(plan)}, indent=2) + "\n")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return value
