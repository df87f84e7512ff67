"""Runs that differ in their seed alone are points of one series; others are not."""

from __future__ import annotations

from pathlib import Path

import pytest

import made_runs as made
from terrasieve.probes.row_tables import write_json
from terrasieve.reporting.page import write_report
from terrasieve.reporting.run import read_runs
from terrasieve.reporting.sections.comparison import comparison

CONFIG = "name: rs-byol-1\ntrain: {{steps: 100, seed: {seed}, batch_size: {batch}}}\n"


def _run(folder: Path, seed: int, share: float, batch: int = 32) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG.format(seed=seed, batch=batch), encoding="utf-8")
    write_json(made.comparison_rows(share, seed=seed), folder / "probe.json")
    return folder


def test_each_seed_is_a_point_and_a_bar_stands_at_the_mean(tmp_path: Path) -> None:
    shares = {1: 0.85, 2: 0.75, 5: 0.8}
    folders = [_run(tmp_path / f"seed-{seed}", seed, share) for seed, share in shares.items()]
    runs = read_runs(folders)
    found = comparison(runs)
    assert found is not None
    assert found.seeds is not None
    (chart,) = found.seeds.choice.charts
    by_name = {trace["name"]: trace for trace in chart.traces}
    points, bars = by_name["rs-byol-1, 3 seeds"], by_name["mean of rs-byol-1, 3 seeds"]
    wanted = [
        (row.inputs, 100 * row.metrics["accuracy"], f"seed {row.seed}")
        for run in runs
        for row in run.rows
        if row.model == "rs-byol-1"
    ]
    assert list(points["y"]) == [name for name, _, _ in wanted]
    assert list(points["x"]) == pytest.approx([value for _, value, _ in wanted], abs=1e-3)
    assert [text.partition(":")[0] for text in points["text"]] == [seed for _, _, seed in wanted]
    for name, bar in zip(bars["y"], bars["x"], strict=True):
        values = [value for one, value, _ in wanted if one == name]
        assert bar == pytest.approx(sum(values) / 3, abs=1e-3)
    assert {"random init", "image statistics"} <= set(by_name)
    assert [mark["name"] for mark in chart.layout["shapes"]] == ["chance, 33.3\u00a0%"]
    widest = [value for name, value, _ in wanted if name == "s2:B04+B03+B02"]
    assert found.seeds.sentences == (
        f"rs-byol-1, 3 seeds: kNN accuracy {sum(widest) / 3:.1f}\u00a0% on average on s2:B04+B03+B02, from "
        f"{min(widest):.1f} to {max(widest):.1f}.",
    )
    # Runs of other seeds are compared in the tables too.
    assert found.tables[0][1].columns == ("input", "seed-1", "seed-2", "seed-5")
    page = write_report(folders, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a point each, a bar at their mean" in page
    assert found.seeds.sentences[0] in page


def test_runs_that_differ_in_more_than_the_seed_are_no_series(tmp_path: Path) -> None:
    folders = [_run(tmp_path / f"run-{batch}", batch, 0.8, batch) for batch in (16, 32)]
    found = comparison(read_runs(folders))
    assert found is not None
    assert found.seeds is None
