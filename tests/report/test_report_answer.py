"""What the page says in words: the numbers are the rows', and nothing is claimed beyond the intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrasieve.probes.row_tables import write_json
from terrasieve.reporting.answer import answer
from terrasieve.reporting.grouping import groups_of, read_predictions
from terrasieve.reporting.run import read_runs

NBSP = "\u00a0"


def told(folder: Path) -> Any:
    run = read_runs([folder])[0]
    return answer(run)


def test_the_lead_holds_the_rows_own_numbers(tmp_path: Path, made: Any) -> None:
    rows = made.comparison_rows()
    write_json(rows, tmp_path / "probe.json")
    ours, floor = (
        next(r for r in rows if (r.model, r.inputs) == (m, "s2:B04+B03+B02")) for m in ("rs-byol-1", "random init")
    )
    gain = 100 * (ours.metrics["accuracy"] - floor.metrics["accuracy"])
    lead = told(tmp_path).lead
    assert lead.startswith(f"rs-byol-1 is above random init by {gain:.1f} points (intervals do not overlap)")
    assert f"kNN accuracy {100 * ours.metrics['accuracy']:.1f}{NBSP}%" in lead
    assert f"against {100 * floor.metrics['accuracy']:.1f}{NBSP}%" in lead
    assert "on s2:B04+B03+B02" in lead
    assert "better than both floors on 2 of 2 inputs, on 2 of them beyond" in lead


def test_overlapping_intervals_are_said_to_overlap(tmp_path: Path, made: Any) -> None:
    rows = [
        row.model_copy(update={"ci95": {"accuracy": (0.1, 0.95), "macro_f1": (0.1, 0.95)}})
        for row in made.comparison_rows()
    ]
    write_json(rows, tmp_path / "probe.json")
    lead = told(tmp_path).lead
    assert "intervals overlap" in lead
    assert "do not overlap" not in lead
    assert "on 0 of them beyond" in lead


def test_a_model_below_its_floor_is_said_to_be_below(tmp_path: Path, made: Any) -> None:
    write_json(made.comparison_rows(trained=0.3), tmp_path / "probe.json")
    lead = told(tmp_path).lead
    assert lead.startswith("rs-byol-1 is below random init by ")
    assert "better than both floors on 0 of 2 inputs" in lead


def test_a_smaller_error_is_better(tmp_path: Path, made: Any) -> None:
    write_json(made.regression_rows(), tmp_path / "probe.json")
    lead = told(tmp_path).lead
    assert lead.startswith("rs-byol-1 is better than random init by 0.12")
    assert "ridge of swh RMSE 0.62 (0.57\u20130.67), against 0.74" in lead


def test_best_and_worst_class_come_from_the_confusion_matrix(tmp_path: Path, made: Any) -> None:
    confusion = ((99, 1, 0), (10, 50, 40), (5, 5, 90))
    row = made.comparison_rows()[1].model_copy(update={"confusion": confusion})
    write_json([row], tmp_path / "probe.json")
    said = told(tmp_path).more[0]
    assert f"finds Forest best (recall 99{NBSP}%) and River worst (recall 50{NBSP}%" in said
    assert f"taken for SeaLake, 40{NBSP}%" in said


def test_without_probes_nothing_is_claimed(tmp_path: Path, made: Any) -> None:
    made.write_log(tmp_path, made.log_rows())
    lead = told(tmp_path).lead
    assert "nothing yet says whether it is better" in lead
    assert "loss 3.9 to 3 in 100 steps" in lead
    assert f"58.6{NBSP}% at step 100" in lead


def test_the_paired_interval_is_of_the_same_samples(tmp_path: Path, made: Any) -> None:
    rows = made.comparison_rows()
    write_json(rows, tmp_path / "probe.json")
    made.write_predictions(tmp_path, rows)
    group = groups_of(rows, read_predictions(tmp_path / "probe-predictions.parquet"))[0]
    truth = np.arange(300) % 3
    ours, theirs = (
        made.probe_row(m, made.INPUTS[1], s)[1] == truth for m, s in (("rs-byol-1", 0.85), ("random init", 0.6))
    )
    verdict = group.against["random init"][1]
    assert verdict.paired is not None
    assert verdict.paired.difference == pytest.approx(ours.mean() - theirs.mean())
    assert verdict.paired.low < verdict.paired.difference < verdict.paired.high
    assert f"paired 95{NBSP}% interval {100 * verdict.paired.low:.1f} to" in told(tmp_path).lead


def test_predictions_that_do_not_give_the_rows_accuracy_are_not_used(tmp_path: Path, made: Any) -> None:
    rows = made.comparison_rows()
    made.write_predictions(tmp_path, rows)
    wrong = [row.model_copy(update={"metrics": {**row.metrics, "accuracy": 0.99}}) for row in rows]
    group = groups_of(wrong, read_predictions(tmp_path / "probe-predictions.parquet"))[0]
    assert group.against["random init"][0].paired is None


def test_a_paired_interval_settles_what_overlap_leaves_open(tmp_path: Path, made: Any) -> None:
    wide = {"accuracy": (0.1, 0.95), "macro_f1": (0.1, 0.95)}
    rows = [row.model_copy(update={"ci95": wide}) for row in made.comparison_rows()]
    made.write_predictions(tmp_path, rows)
    without = groups_of(rows)[0].against["random init"][0]
    with_pairs = groups_of(rows, read_predictions(tmp_path / "probe-predictions.parquet"))[0].against["random init"][0]
    assert not without.clear
    assert with_pairs.clear


def test_the_best_baseline_is_named_beside_the_floors(made: Any) -> None:
    rows = made.comparison_rows()
    rows += [made.probe_row("ImageNet", "s2:B04+B03+B02", 0.9)[0], made.probe_row("SeCo", "s2:B04+B03+B02", 0.5)[0]]
    assert groups_of(rows)[0].rivals == ("random init", "image statistics", "ImageNet")


def test_bands_shown_together_stand_on_the_line_of_bands_shown_one_by_one(made: Any) -> None:
    rows = [made.probe_row("rs-byol-1", "s2:B04+B03+B02", 0.8)[0], made.probe_row("ImageNet", "s2:B04,B03,B02", 0.7)[0]]
    lines = groups_of(rows)[0].lines
    assert [line.name for line in lines] == ["s2:B04+B03+B02"]
    assert set(lines[0].rows) == {"rs-byol-1", "ImageNet"}


def test_a_probe_that_the_trained_model_was_not_scored_by_is_judged_by_nobody_else(made: Any) -> None:
    floors = [
        row.model_copy(update={"probe": "logistic"}) for row in made.comparison_rows() if row.model != "rs-byol-1"
    ]
    group = groups_of([*made.comparison_rows(), *floors])[1]
    assert group.trained == "rs-byol-1"
    assert group.main is None
    assert not any(group.against.values())
