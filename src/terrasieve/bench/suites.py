"""The two benchmarks: what is measured, and in which form it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from terrasieve.bench.comparing import comparisons, statements
from terrasieve.bench.forms import bands_by_models, long_table, models_by_targets
from terrasieve.bench.planning import BenchPlan
from terrasieve.bench.published import OCEANSAR, RS_BYOL, PublishedLine
from terrasieve.bench.running import make_task, run_plan
from terrasieve.files.writing import write_text, write_whole
from terrasieve.probes.probe import probes_named
from terrasieve.probes.results import Measured, predictions_table
from terrasieve.probes.row_tables import HEADLINES, write_csv, write_json
from terrasieve.probes.significance import Comparison
from terrasieve.probes.statements import write_comparisons
from terrasieve.reporting.page import write_report
from terrasieve.runs import BenchFolder
from terrasieve.tables import Table, escape_markdown

RS_BYOL_PROBES = ("mlp", "knn")
"""The paper's probe first."""


@dataclass(frozen=True)
class BenchResult:
    """What a benchmark found.

    Attributes:
        tables: One in the form of the paper for each probe, or one for all targets.
        words: Sentences that say which model is above which, by paired tests.
        files: The files that were written in the benchmark's folder.
    """

    tables: tuple[Table, ...]
    words: tuple[str, ...]
    files: tuple[Path, ...]


def rs_byol(plan: BenchPlan, out: Path, device: torch.device, metric: str = "macro_f1") -> BenchResult:
    """Bands by models on one classification archive, as in Tables I to III of Jain et al. 2022.

    Args:
        plan: The models, inputs and target to measure; the paper's probe and kNN where it names no probe.
        out: Folder of the benchmark, which is made and gone on with.
        device: Device on which networks are trained from scratch.
        metric: Name of the metric in the cells; the paper prints F1.
    """
    plan = replace(plan, probes=plan.probes or RS_BYOL_PROBES)
    measured = run_plan(plan, out, device)
    rows = [one.row for one in measured]
    layout = str(plan.archive.source.get("layout"))
    names = [probe.name for probe in probes_named(plan.probes)]
    tables = tuple(bands_by_models(rows, name, metric, layout) for name in names)
    found = comparisons(rows, names[0], metric, _asked(plan))
    write_comparisons(found, BenchFolder(out).comparisons)
    published = [line for line in RS_BYOL if line.layout == layout]
    _write_rows([(plan, measured)], published, out)
    return _write_tables(tables, statements(found), out)


def oceansar(plan: BenchPlan, targets: Sequence[str], out: Path, device: torch.device) -> BenchResult:
    """Models by targets, kNN and linear, as in the table of Kerdreux et al. 2025.

    Args:
        plan: The models, inputs and probes to measure; its own target is not used.
        targets: Columns of the archive's table: classes, labels or numbers.
        out: Folder of the benchmark, which is made and gone on with.
        device: Device on which networks are trained from scratch.
    """
    parts = [(replace(plan, target=target), run_plan(replace(plan, target=target), out, device)) for target in targets]
    rows = [one.row for _, measured in parts for one in measured]
    found: list[Comparison] = []
    for target in targets:
        own = [row for row in rows if row.target == target]
        # The last probe is the linear one.
        found += comparisons(own, own[-1].probe, HEADLINES[own[-1].task][0], _asked(plan))
    write_comparisons(found, BenchFolder(out).comparisons)
    _write_rows(parts, OCEANSAR, out)
    return _write_tables((models_by_targets(rows),), statements(found), out)


def _asked(plan: BenchPlan) -> tuple[str, ...]:
    """The runs of ours, or else the first model that is named."""
    trained = dict.fromkeys(
        entry.candidate.name for entry in plan.entries if entry.backbone and not entry.candidate.is_floor
    )
    return tuple(trained) or (plan.entries[0].candidate.name,)


def _write_rows(
    parts: Sequence[tuple[BenchPlan, list[Measured]]], published: Sequence[PublishedLine], out: Path
) -> None:
    """What the report and other programs read: every row, and what was said of each test sample."""
    rows = [one.row for _, measured in parts for one in measured]
    run = BenchFolder(out)
    write_json(rows, run.probe)
    write_csv(rows, run.probe_table)
    with write_whole(run.table_csv) as partial:
        partial.write_bytes(long_table(rows, published).to_csv().encode())
    tables = [predictions_table(measured, make_task(plan).splits, plan.archive.ids) for plan, measured in parts]
    with write_whole(run.predictions) as partial:
        pq.write_table(pa.concat_tables(tables), partial, compression="zstd")


def _write_tables(tables: tuple[Table, ...], words: tuple[str, ...], out: Path) -> BenchResult:
    spoken = ["## Comparisons", "\n".join(f"- {escape_markdown(word)}" for word in words)] if words else []
    text = "\n\n".join([*(table.to_markdown() for table in tables), *spoken])
    folder = BenchFolder(out)
    write_text(folder.table_markdown, f"{text}\n")
    write_text(folder.table_latex, "\n".join(f"{table.to_latex()}\n" for table in tables))
    report = write_report([out], folder.report)
    return BenchResult(tables, words, (folder.table_markdown, folder.table_csv, folder.table_latex, report))
