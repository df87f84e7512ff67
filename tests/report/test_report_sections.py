"""The page's sections hold the files' numbers, and their charts are valid Plotly figures."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

import made_runs as made
from terrasieve.errors import ArchiveError
from terrasieve.explain.record import Explanation
from terrasieve.probes.significance import compare_paired
from terrasieve.probes.statements import sentence
from terrasieve.reporting.grouping import Predictions
from terrasieve.reporting.page import charts_in
from terrasieve.reporting.run import Run, read_runs, short_names
from terrasieve.reporting.sections.comparison import comparison
from terrasieve.reporting.sections.comparison import tested as paired_tests
from terrasieve.reporting.sections.curation import curation
from terrasieve.reporting.sections.explained import bands, neighbours, projection, saliency
from terrasieve.reporting.sections.places import places
from terrasieve.reporting.sections.ran import ran
from terrasieve.reporting.sections.scores import scores
from terrasieve.reporting.sections.training import curves, training


def check(section: Any) -> None:
    """Every chart of a section is a figure that Plotly accepts once the page's colours stand in it."""
    for chart in charts_in(section):
        text = json.dumps(chart.figure, allow_nan=False)
        go.Figure(json.loads(re.sub(r'"var\(--[a-z0-9-]+\)"', '"#123456"', text)))
        assert chart.alt


def run_of(**parts: Any) -> Run:
    """A run of which only these parts were found."""
    empty: dict[str, Any] = {field.name: () for field in fields(Run)}
    missing = {"folder": Path("nowhere"), "name": "k", "config": {}, "card": None, "explanation": None, "views": None}
    return Run(**(empty | missing | {"quarantined": {}, "predictions": Predictions(), "digests": {}} | parts))


def scored(rows: list[Any]) -> Any:
    found = scores("k", run_of(rows=rows))
    check(found)
    return found


# ---------------------------------------------------------------- comparisons


def test_every_test_of_a_comparison_is_shown_with_its_interval_in_words_and_numbers() -> None:
    one = made.paired()
    section = paired_tests("k", run_of(comparisons=[one]))
    assert section is not None
    assert section.sentences == (sentence(one),)
    ((name, *cells),) = section.table.rows
    assert name.text == "rs-byol-1"
    assert [cells[0].text, cells[1].text] == ["random init", "10 bands"]
    assert cells[2].best
    assert cells[2].text == "10.9 points"
    assert one.t is not None
    assert one.wilcoxon is not None
    for cell, test in zip(cells[3:5], (one.t, one.wilcoxon), strict=True):
        assert float(cell.text) == pytest.approx(test.adjusted, rel=0.05)
        assert float(cell.note.removeprefix("uncorrected ")) == pytest.approx(test.p, rel=0.05)
    assert paired_tests("k", run_of()) is None


def test_models_that_cannot_be_told_apart_are_not_marked() -> None:
    alike = compare_paired([0.5, 0.6, 0.4], [0.6, 0.4, 0.5], "a", "b", "seeds")
    section = paired_tests("k", run_of(comparisons=[alike]))
    assert section is not None
    assert not section.table.rows[0][3].best
    assert "cannot be told apart" in section.sentences[0]


# ---------------------------------------------------------------- scores


@pytest.mark.slow
def test_a_table_holds_each_value_with_its_interval_and_marks_the_best() -> None:
    rows = made.comparison_rows()
    table = scored(rows).groups[0].first
    assert table.columns == ("input", "rs-byol-1", "random init", "image statistics")
    name, *cells = table.rows[0]
    row = rows[0]
    assert name.text == "s2:B04"
    assert cells[0].text == f"{100 * row.metrics['accuracy']:.1f}"
    assert cells[0].note == f"{100 * row.ci95['accuracy'][0]:.1f}\u2013{100 * row.ci95['accuracy'][1]:.1f}"
    assert [cell.best for cell in cells] == [True, False, False]
    assert [cell.dim for cell in cells] == [False, True, True]


def test_of_an_error_the_smallest_is_best_and_a_negative_bound_is_no_range() -> None:
    group = scored(made.regression_rows()).groups[0]
    assert group.title == "ridge of swh"
    assert [cell.text for cell in group.first.rows[0][1:]] == ["0.62", "0.74"]
    assert [cell.best for cell in group.first.rows[0][1:]] == [True, False]
    assert group.more == "bias, scatter index, MAE, R2"
    bias, index = group.others[:2]
    assert bias.rows[0][1].note == "-0.05 to 0.01"
    assert index.rows[0][1].text == "15.3"


def test_a_note_becomes_a_mark_and_a_footnote() -> None:
    rows = made.comparison_rows()
    rows[-1] = rows[-1].model_copy(update={"note": "band copied 3 times"})
    table = scored(rows).groups[0].first
    assert table.rows[1][3].mark == "*"
    assert table.notes == ("* image statistics on s2:B04+B03+B02: band copied 3 times",)


def test_a_model_without_an_input_leaves_its_cell_empty() -> None:
    rows = [row for row in made.comparison_rows() if (row.model, row.inputs) != ("random init", "s2:B04")]
    assert scored(rows).groups[0].first.rows[0][2].text == "\u2013"


def test_whiskers_reach_to_the_interval() -> None:
    rows = made.comparison_rows()
    trace = scored(rows).chart.charts[0].traces[0]
    low, high = rows[0].ci95["accuracy"]
    assert trace["x"][0] - trace["error_x"]["arrayminus"][0] == pytest.approx(100 * low, abs=1e-3)
    assert trace["x"][0] + trace["error_x"]["array"][0] == pytest.approx(100 * high, abs=1e-3)


def test_the_first_confusion_matrix_is_of_the_main_input_and_holds_its_counts() -> None:
    rows = made.comparison_rows()
    choice = scored(rows).confusion
    assert [chart.title for chart in choice.charts] == ["s2:B04+B03+B02", "s2:B04"]
    cells = choice.charts[0].traces[0]
    assert cells["customdata"] == [list(row) for row in rows[1].confusion]
    assert sum(cells["z"][0]) == pytest.approx(100, abs=1e-3)


def test_scores_per_class_of_a_segmentation_are_iou() -> None:
    confusion = ((50, 0, 0), (10, 30, 10), (0, 20, 30))
    metrics = {"miou": 0.55, "average_accuracy": 0.7, "overall_accuracy": 0.73}
    ci95 = {name: (value - 0.1, value + 0.1) for name, value in metrics.items()}
    row = made.comparison_rows()[0].model_copy(
        update={"task": "segmentation", "target": "LULC", "metrics": metrics, "ci95": ci95, "confusion": confusion}
    )
    table = scored([row]).classes[0]
    assert "IoU per class" in table.title
    assert [cells[2].text for cells in table.rows] == ["83.3", "42.9", "50.0"]
    assert [cells[1].text for cells in table.rows] == ["50", "50", "50"]


def test_shares_of_the_train_split_make_a_curve_with_the_spread_of_seeds() -> None:
    full = made.probe_row("rs-byol-1", "s2:B04", 0.9)[0]
    few = [
        full.model_copy(update={"train_share": 0.1, "seed": seed, "metrics": {"accuracy": value}})
        for seed, value in ((0, 0.5), (1, 0.6))
    ]
    curve = scored([full, *few]).curve.charts[0].traces[0]
    assert curve["x"] == [10, 100]
    assert curve["y"][0] == pytest.approx(55)
    assert curve["error_y"]["array"][0] == pytest.approx(5)


# ---------------------------------------------------------------- training and curation


def test_training_reads_the_log(whole_run: Path) -> None:
    run = read_runs([whole_run])[0]
    section = training("k", run)
    check(section)
    assert section is not None
    assert dict(section.facts) == {
        "steps": "100",
        "passes over the pool": "2",
        "duration": "4 min 10 s",
        "images per second": "51",
        "last loss": "3",
    }
    loss = next(chart for chart in section.charts if chart.title == "Loss")
    assert loss.traces[0]["y"][-1] == 3
    assert [mark["x0"] for mark in loss.layout["shapes"]] == [40, 80]
    assert [chart.title for chart in section.more] == ["teacher entropy"]


def test_student_and_teacher_share_a_chart_on_the_page_of_one_run(tmp_path: Path) -> None:
    rows = made.log_rows(student_knn_accuracy=0.51, teacher_memory=0.0134)
    rows[4]["student_knn_accuracy"] = 0.5
    made.write_log(tmp_path / "dino", rows)
    made.write_log(tmp_path / "byol", made.log_rows())
    run, other = read_runs([tmp_path / "dino", tmp_path / "byol"])
    section = training("k", run)
    check(section)
    assert section is not None
    chart = next(chart for chart in section.charts if chart.title.startswith("kNN"))
    assert [(trace["name"], trace["y"][-1]) for trace in chart.traces] == [
        ("exported encoder", 0.586),
        ("student, not exported", 0.51),
    ]
    assert chart.layout["showlegend"]
    assert dict(section.facts)["teacher's initial weights left"] == "1.3\u00a0%"
    assert "teacher memory" in [chart.title for chart in section.more]
    compared = next(chart for chart in curves("k", [run, other]) if chart.title.startswith("kNN"))
    assert [trace["name"] for trace in compared.traces] == [run.name, other.name]


def test_a_loss_that_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    made.write_log(tmp_path, made.log_rows(loss="nan"))
    section = training("k", read_runs([tmp_path])[0])
    check(section)
    assert section is not None
    assert section.charts[0].traces[0]["y"][-1] is None
    assert dict(section.facts)["last loss"] == "not a number"


def test_long_curves_keep_their_last_value(tmp_path: Path) -> None:
    made.write_log(tmp_path, [{"step": step, "loss": 1 / step} for step in range(1, 4002)])
    line = curves("k", read_runs([tmp_path]))[0].traces[0]
    assert line["x"][-1] == 4001
    assert len(line["x"]) <= 1500


def test_curation_shows_each_round_and_the_fullest_cluster_first(whole_run: Path) -> None:
    section = curation("k", read_runs([whole_run])[0])
    check(section)
    assert section is not None
    assert [name.text for name, *_ in section.table.rows] == ["1", "2"]
    assert [cell.text for cell in section.table.rows[1][1:]] == [
        "80",
        "10",
        "2 → 3",
        "70.0\u00a0% → 40.0\u00a0%",
        "0.056",
        "25\u00a0%",
        "2.5",
    ]
    before, after = section.occupancy.charts[0].traces
    assert before["y"] == [70, 20, 10]
    assert after["y"] == [30, 30, 40]
    kept, dropped = section.classes.charts[0].traces
    assert (kept["x"], dropped["x"]) == ([6, 4], [74, 16])


def test_a_round_without_labels_has_no_classes(tmp_path: Path) -> None:
    made.write_round(tmp_path, 1, ["a"], classes=False)
    section = curation("k", read_runs([tmp_path])[0])
    assert section is not None
    assert section.classes is None


def test_a_damaged_round_names_its_file(tmp_path: Path) -> None:
    made.write_round(tmp_path, 1, ["a"])
    path = tmp_path / "curation" / "round-00001.json"
    path.write_text('{"round": 1}', encoding="utf-8")
    with pytest.raises(ArchiveError, match=r"round-00001\.json"):
        read_runs([tmp_path])


# ---------------------------------------------------------------- map


def test_the_map_tells_kept_from_dropped_samples(whole_run: Path) -> None:
    section = places("k", read_runs([whole_run])[0])
    check(section)
    assert section is not None
    coast, dropped, kept = section.chart.traces
    assert coast["name"] == "coast"
    assert (len(dropped["x"]), len(kept["x"])) == (90, 10)
    assert kept["text"] == [f"s{i}" for i in range(5, 15)]
    assert kept["x"] == pytest.approx([0.1 * i + 0.01 for i in range(5, 15)])
    assert section.chart.layout["yaxis"]["scaleratio"] == pytest.approx(1 / np.cos(np.radians(48.01)), rel=1e-4)


def test_without_rounds_the_map_shows_labels_and_says_what_it_left_out(tmp_path: Path) -> None:
    made.write_embeddings(tmp_path, [f"s{i}" for i in range(60)], placed=45)
    section = places("k", run_of(folder=tmp_path), most=30)
    check(section)
    assert section is not None
    assert {trace["name"] for trace in section.chart.traces} == set(made.CLASSES)
    assert sum(len(trace["x"]) for trace in section.chart.traces) == 30
    assert section.caption.startswith("30 of 45 samples with a place, drawn at random (seed 0); 15 have none.")
    assert section == places("k", run_of(folder=tmp_path), most=30)


def test_samples_without_a_place_make_no_map(tmp_path: Path) -> None:
    made.write_embeddings(tmp_path, ["a", "b"], placed=0)
    assert places("k", run_of(folder=tmp_path)) is None
    assert places("k", run_of(folder=tmp_path / "nowhere")) is None


# ---------------------------------------------------------------- explanation


def test_every_point_of_the_projection_leads_to_its_own_sample() -> None:
    found: Explanation = made.explanation()
    section = projection("k", run_of(explanation=found))
    check(section)
    assert section is not None
    assert found.projection is not None
    points = {
        row: (x, y) for t in section.chart.traces for row, x, y in zip(t["customdata"], t["x"], t["y"], strict=True)
    }
    for row, point in enumerate(found.projection.points):
        assert points[row] == pytest.approx((point.x, point.y), rel=1e-5)
        assert section.chart.samples[row] == (point.sample.id, point.sample.label, point.sample.picture)


def test_saliency_tells_right_from_wrong() -> None:
    section = saliency("k", run_of(explanation=made.explanation()))
    assert section is not None
    assert [strip.tiles[0].agrees for strip in section.strips] == [True, False, False]
    assert section.strips[1].text == "true River, predicted Forest, probability 0.71"
    assert section.strips[0].tiles[1].lines == ("completeness error 3.0e-07",)


def test_neighbours_of_another_class_are_marked() -> None:
    section = neighbours("k", run_of(explanation=made.explanation()))
    assert section is not None
    assert section.strips[0].text == "Forest, 1 of 3 neighbours alike"
    assert [tile.agrees for tile in section.strips[0].tiles] == [None, True, False, False]
    assert section.labels == ("Forest", "River")


def test_bands_hold_the_shares() -> None:
    section = bands("k", run_of(explanation=made.explanation()))
    check(section)
    assert section is not None
    assert section.chart.traces[0]["z"] == [[0.41, 0.02], [0.1, 0.2], [0.0, 0.05]]


# ---------------------------------------------------------------- what ran, and several runs


def test_what_ran_comes_from_card_config_and_files(whole_run: Path) -> None:
    section = ran("k", read_runs([whole_run])[0])
    facts = dict(section.facts)
    assert facts["weights SHA-256"] == "ab" * 32
    assert facts["trained on"] == "eurosat /somewhere/eurosat_rgb"
    assert facts["data fingerprint"] == "66c2"
    assert facts["seed"] == "7"
    assert facts["precision of training"] == "float32"
    assert "collapse_std: 0.02" in section.config
    files = {name.text: cells for name, *cells in section.files.rows}
    assert {"probe.json", "log.csv", "encoder/encoder.json", "curation/round-00001.json"} <= set(files)
    assert len(files["probe.json"][2].text) == 64
    assert section.statistics.rows[0][0].text == "s2:B04"
    assert [cell.text for cell in section.statistics.rows[0][2:]] == ["1234.5", "321.25"]


@pytest.mark.parametrize(("recorded", "shown"), [("bf16", "bfloat16"), ("", "not recorded")])
def test_the_precision_that_was_used_is_shown_and_never_auto(tmp_path: Path, recorded: str, shown: str) -> None:
    made.write_encoder(tmp_path, made.encoder_card(precision=recorded))
    (tmp_path / "config.yaml").write_text("name: rs-byol-1\ntrain:\n  precision: auto\n", encoding="utf-8")
    facts = dict(ran("k", read_runs([tmp_path])[0]).facts)
    assert facts["precision of training"] == shown
    assert "auto" not in facts.values()


def test_runs_stand_beside_each_other_on_what_they_share(tmp_path: Path) -> None:
    folders = [made.write_run(tmp_path / name, share) for name, share in (("a", 0.85), ("b", 0.8))]
    section = comparison(read_runs(folders))
    check(section)
    assert section is not None
    title, table = section.tables[0]
    assert title == "kNN"
    assert table.columns == ("input", "a", "b")
    assert [name.text for name, *_ in table.rows] == ["s2:B04", "s2:B04+B03+B02"]
    assert [trace["name"] for trace in section.charts[0].traces] == ["a", "b"]
    assert section.cautions == ()


def test_an_input_of_one_run_alone_is_not_compared(tmp_path: Path) -> None:
    folders = [made.write_run(tmp_path / name) for name in ("a", "b")]
    rows = [*made.comparison_rows(), made.probe_row("rs-byol-1", "s2:B08", 0.8)[0]]
    made.write_json(rows, folders[1] / "probe.json")
    section = comparison(read_runs(folders))
    assert section is not None
    assert [title for title, _ in section.tables] == ["kNN"]
    assert [name.text for name, *_ in section.tables[0][1].rows] == ["s2:B04", "s2:B04+B03+B02"]


def test_runs_scored_on_different_data_are_not_to_be_compared(tmp_path: Path) -> None:
    folders = [made.write_run(tmp_path / name) for name in ("a", "b")]
    made.write_json(made.comparison_rows(data="data: elsewhere", protocol="kNN v2"), folders[1] / "probe.json")
    section = comparison(read_runs(folders))
    assert section is not None
    assert section.cautions == (
        "kNN: the runs were scored with different data and protocols; compare no numbers between them, or probe all "
        "runs alike.",
    )


def test_names_of_runs_tell_them_apart() -> None:
    assert short_names([Path("/x/a/run"), Path("/x/b/run")]) == ("a/run", "b/run")
    assert short_names([Path("/x/a"), Path("/x/b")]) == ("a", "b")
    assert len(set(short_names([Path("/x/a"), Path("/x/a")]))) == 2
