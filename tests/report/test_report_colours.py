"""One colour has one meaning on the whole page, and scores stand beside chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_runs as made
from terrasieve.probes.row_tables import write_json
from terrasieve.reporting.page import SECTIONS, charts_in
from terrasieve.reporting.run import read_runs
from terrasieve.reporting.sections.comparison import comparison
from terrasieve.reporting.sections.explained import projection
from terrasieve.reporting.sections.places import places
from terrasieve.reporting.sections.training import training


def test_a_class_has_one_colour_in_the_map_and_in_the_projection(tmp_path: Path) -> None:
    made.write_explanation(made.explanation(), tmp_path)
    # More rivers than forests, so that the map lists them first; and a class that the projection does not know.
    labels = ["River"] * 4 + ["Forest"] * 2 + ["Desert"]
    made.write_embeddings(tmp_path, [f"s{i}" for i in range(7)], labels=labels)
    run = read_runs([tmp_path])[0]
    drawn = [projection("k", run).chart, places("k", run).chart]
    styles = [{trace["name"]: _style(trace) for trace in chart.traces} for chart in drawn]
    assert [list(one) for one in styles] == [["Forest", "River", "SeaLake"], ["River", "Forest", "Desert"]]
    assert all(styles[0][name] == styles[1][name] for name in ("Forest", "River"))
    assert styles[1]["Desert"] not in styles[0].values()


def test_no_colour_of_a_class_stands_for_anything_else(whole_run: Path, tmp_path: Path) -> None:
    rows = [
        *made.comparison_rows(),
        *(made.probe_row(f"other {i}", made.INPUTS[1], 0.5)[0] for i in range(3)),
    ]
    write_json(rows, whole_run / "probe.json")
    rows = [made.probe_row("rs-byol-1", made.INPUTS[0], 0.7, train_share=share)[0] for share in (0.1, 1.0)]
    second = made.write_run(tmp_path / "second")
    write_json(rows, second / "probe.json")
    runs = read_runs([whole_run, second])
    for run in runs:
        for section in SECTIONS:
            if section.name != "scatter":  # the map shows what was kept
                charts = [chart.figure for chart in charts_in(section.build("k", run))]
                assert "var(--class-" not in json.dumps(charts), section.name
    compared = [chart.figure for chart in charts_in(comparison(runs))]
    assert "var(--run-1)" in json.dumps(compared)
    assert "var(--class-" not in json.dumps(compared)


def _style(trace: Any) -> tuple[str, str]:
    return trace["marker"]["color"], trace["marker"]["symbol"]


def test_the_online_kNN_is_drawn_beside_chance(tmp_path: Path) -> None:
    made.write_log(tmp_path, made.log_rows(knn_chance=0.125, knn_samples=400, student_knn_accuracy=0.5))
    charts = {chart.title: chart for chart in training("k", read_runs([tmp_path])[0]).charts}
    chart = charts["kNN accuracy on held-out samples"]
    (mark,) = chart.layout["shapes"]
    assert (mark["y0"], mark["y1"], mark["name"]) == (0.125, 0.125, "chance, 12.5\u00a0%")
    assert {trace["line"]["color"] for trace in chart.traces} == {"var(--accent)"}
    assert len({trace["line"]["dash"] for trace in chart.traces}) == 2
    assert not [title for title in charts if "chance" in title or "samples" in title.replace("held-out samples", "")]


def test_a_run_has_one_colour_in_every_chart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        made.write_log(tmp_path / name, made.log_rows())
    rows = [{"step": 1, "loss": 3.0, "seconds": 1.0}, {"step": 2, "loss": 2.0, "seconds": 2.0}]
    made.write_log(tmp_path / "0", rows)
    found = comparison(read_runs([tmp_path / name for name in ("0", "a", "b")])).charts
    colours: dict[str, set[str]] = {}
    for trace in (trace for chart in found for trace in chart.traces):
        colours.setdefault(trace["name"], set()).add(trace["line"]["color"])
    assert {name: len(one) for name, one in colours.items()} == {"0": 1, "a": 1, "b": 1}
    assert len(set.union(*colours.values())) == 3
