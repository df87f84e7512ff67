"""What the page says in words: the numbers are the rows', and nothing is claimed beyond the intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import made_runs as made
from terrasieve.probes.row_tables import shown, write_json
from terrasieve.probes.significance import Difference
from terrasieve.reporting.answer import answer, standing
from terrasieve.reporting.charts import finite
from terrasieve.reporting.grouping import Verdict, groups_of, read_predictions, value_text
from terrasieve.reporting.run import read_runs
from terrasieve.reporting.wording import number, percent

NBSP = "\u00a0"


def told(folder: Path) -> Any:
    run = read_runs([folder])[0]
    return answer(run)


def test_the_lead_holds_the_rows_own_numbers(tmp_path: Path) -> None:
    rows = made.comparison_rows()
    write_json(rows, tmp_path / "probe.json")
    ours, floor = (
        next(r for r in rows if (r.model, r.inputs) == (m, "s2:B04+B03+B02")) for m in ("rs-byol-1", "random init")
    )
    gain = 100 * (ours.metrics["accuracy"] - floor.metrics["accuracy"])
    found = told(tmp_path)
    assert found.asked == (
        "Is rs-byol-1 better than random init and image statistics under kNN on s2:B04+B03+B02, 300 test samples of "
        "eurosat?"
    )
    assert found.word == "Yes"
    expected = (
        f"kNN accuracy {value_text(ours, 'accuracy')}: above random init by {gain:.1f} points and image statistics by "
    )
    assert found.lead.startswith(expected)
    assert f"random init reaches {value_text(floor, 'accuracy')} (intervals do not overlap)" in found.more[0]
    assert found.more[1] == "It is better than both floors on 2 of 2 inputs, beyond the 95\u00a0% intervals."


def test_the_chart_of_the_answer_shows_every_model_its_interval_and_chance(tmp_path: Path) -> None:
    rows = made.comparison_rows()
    write_json(rows, tmp_path / "probe.json")
    chart = told(tmp_path).chart
    main = {row.model: row for row in rows if row.inputs == "s2:B04+B03+B02"}
    assert [trace["name"] for trace in chart.traces] == list(main)
    for trace in chart.traces:
        row = main[trace["name"]]
        low, high = row.ci95["accuracy"]
        assert trace["x"] == [pytest.approx(100 * row.metrics["accuracy"])]
        assert trace["error_x"]["array"] == [pytest.approx(100 * (high - row.metrics["accuracy"]), abs=1e-4)]
        assert trace["error_x"]["arrayminus"] == [pytest.approx(100 * (row.metrics["accuracy"] - low), abs=1e-4)]
    # Three classes of a hundred test samples each.
    assert [(mark["x0"], mark["name"]) for mark in chart.layout["shapes"]] == [
        (pytest.approx(100 / 3), f"chance, 33.3{NBSP}%")
    ]
    low, high = chart.layout["xaxis"]["range"]
    assert low < 100 / 3 < high


def test_errors_have_no_chance(tmp_path: Path) -> None:
    write_json(made.regression_rows(), tmp_path / "probe.json")
    assert told(tmp_path).chart.layout["shapes"] == []


@pytest.mark.parametrize("trained", [0.85, 0.3], ids=["ahead", "behind"])
def test_overlapping_intervals_do_not_tell_models_apart(tmp_path: Path, trained: float) -> None:
    rows = [
        row.model_copy(update={"ci95": {"accuracy": (0.1, 0.95), "macro_f1": (0.1, 0.95)}})
        for row in made.comparison_rows(trained)
    ]
    write_json(rows, tmp_path / "probe.json")
    found = told(tmp_path)
    assert found.word == "Not told apart"
    assert found.lead.endswith(": not told apart from random init and image statistics.")
    assert "(intervals overlap)" in found.more[0]
    assert "on 0 of 2 inputs" in found.more[1]
    assert "not told apart from a floor on 2" in found.more[1]
    assert not [text for text in (found.lead, *found.more) if "above" in text or "below" in text or "worse" in text]


def test_a_paired_interval_that_holds_zero_is_not_below() -> None:
    verdict = Verdict("s2:B04", "random init", "accuracy", -0.0033, False, Difference(-0.0033, -0.02, 0.014))
    assert verdict.standing == "not told apart"
    assert standing(verdict) == (
        f"not told apart from random init (worse by 0.3 points, paired 95{NBSP}% interval -1.4 to 2.0)"
    )
    assert verdict.evidence == f"paired 95{NBSP}% interval -1.4 to 2.0"


def test_a_model_below_its_floor_is_said_to_be_below(tmp_path: Path) -> None:
    write_json(made.comparison_rows(trained=0.3), tmp_path / "probe.json")
    found = told(tmp_path)
    assert found.word == "No"
    assert ": below random init by " in found.lead
    assert "on 0 of 2 inputs, beyond the 95\u00a0% intervals, worse than a floor on 2." in found.more[1]


def test_a_smaller_error_is_better(tmp_path: Path) -> None:
    write_json(made.regression_rows(), tmp_path / "probe.json")
    found = told(tmp_path)
    assert found.lead == "ridge of swh RMSE 0.62 (0.57\u20130.67): better than random init by 0.12."
    assert "random init reaches 0.74" in found.more[0]


@pytest.mark.parametrize("value", [-0.0, -1e-9])
def test_no_zero_has_a_sign(value: float) -> None:
    assert shown("accuracy", value) == "0.0"
    assert percent(value, 1) == f"0.0{NBSP}%"
    assert number(-0.0) == "0"
    assert Verdict("s2:B04", "x", "accuracy", 0.0, False, Difference(0.0, value, 0.01)).evidence.endswith(" 0.0 to 1.0")
    assert str(finite([value * 0.0])) == "[0.0]"


def test_best_and_worst_class_come_from_the_confusion_matrix(tmp_path: Path) -> None:
    confusion = ((99, 1, 0), (10, 50, 40), (5, 5, 90))
    row = made.comparison_rows()[1].model_copy(update={"confusion": confusion})
    write_json([row], tmp_path / "probe.json")
    said = told(tmp_path).more[0]
    assert f"finds Forest best (recall 99{NBSP}%) and River worst (recall 50{NBSP}%" in said
    assert f"taken for SeaLake, 40{NBSP}%" in said


def test_without_probes_nothing_is_claimed(tmp_path: Path) -> None:
    made.write_log(tmp_path, made.log_rows())
    lead = told(tmp_path).lead
    assert "nothing yet says whether it is better" in lead
    assert "loss 3.9 to 3 in 100 steps" in lead
    assert f"58.6{NBSP}% at step 100" in lead


def test_the_paired_interval_is_of_the_same_samples(tmp_path: Path) -> None:
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
    assert f"paired 95{NBSP}% interval {100 * verdict.paired.low:.1f} to" in told(tmp_path).more[0]


def test_predictions_that_do_not_give_the_rows_accuracy_are_not_used(tmp_path: Path) -> None:
    rows = made.comparison_rows()
    made.write_predictions(tmp_path, rows)
    wrong = [row.model_copy(update={"metrics": {**row.metrics, "accuracy": 0.99}}) for row in rows]
    group = groups_of(wrong, read_predictions(tmp_path / "probe-predictions.parquet"))[0]
    assert group.against["random init"][0].paired is None


def test_a_paired_interval_settles_what_overlap_leaves_open(tmp_path: Path) -> None:
    wide = {"accuracy": (0.1, 0.95), "macro_f1": (0.1, 0.95)}
    rows = [row.model_copy(update={"ci95": wide}) for row in made.comparison_rows()]
    made.write_predictions(tmp_path, rows)
    without = groups_of(rows)[0].against["random init"][0]
    with_pairs = groups_of(rows, read_predictions(tmp_path / "probe-predictions.parquet"))[0].against["random init"][0]
    assert not without.clear
    assert with_pairs.clear


def _waves(folder: Path, errors: dict[str, np.ndarray]) -> list[Any]:
    """Rows of models with these errors on one target, and a file of their predictions, the floors' in another order."""
    truth = np.linspace(0.5, 9, 400)
    rows, tables = [], []
    for row in made.regression_rows():
        found = errors[row.model]
        rmse = float(np.sqrt(np.mean(found**2)))
        metrics, interval = {**row.metrics, "rmse": rmse}, {"rmse": (0.8 * rmse, 1.2 * rmse)}
        rows.append(row.model_copy(update={"metrics": metrics, "ci95": interval}))
        order = np.arange(400) if row.model == "rs-byol-1" else np.arange(400)[::-1]
        facts = {"model": row.model, "inputs": row.inputs, "probe": row.probe, "target": row.target}
        columns: dict[str, Any] = {name: [value] * 400 for name, value in facts.items()}
        columns |= {"train_share": [row.train_share] * 400, "seed": [row.seed] * 400}
        columns |= {"id": [f"w{i}" for i in order], "truth": [repr(float(truth[i])) for i in order]}
        tables.append(pa.table(columns | {"predicted": [repr(float(truth[i] + found[i])) for i in order]}))
    pq.write_table(pa.concat_tables(tables), folder / "probe-predictions.parquet")
    write_json(rows, folder / "probe.json")
    return rows


@pytest.mark.parametrize(("factor", "standing"), [(1.05, "better"), (0.95, "worse"), (1.0, "not told apart")])
def test_errors_are_paired_sample_by_sample_too(tmp_path: Path, factor: float, standing: str) -> None:
    rng = np.random.default_rng(3)
    ours = rng.gamma(2, 0.3, 400) * rng.choice([-1, 1], 400)
    theirs = factor * ours + rng.normal(0, 0.01, 400)
    rows = _waves(tmp_path, {"rs-byol-1": ours, "random init": theirs})
    verdict = groups_of(rows, read_predictions(tmp_path / "probe-predictions.parquet"))[0].against["random init"][0]
    assert groups_of(rows)[0].against["random init"][0].apart is False, "their own intervals overlap"
    assert verdict.paired is not None
    assert verdict.standing == standing
    assert verdict.paired.difference == pytest.approx(verdict.gain)
    low, high = sorted((verdict.paired.low, verdict.paired.high), key=abs)
    if standing != "not told apart":
        # In the unit of the target, not in points, and of the gain without its sign.
        bounds = f"{abs(low):.3g} to {abs(high):.3g}"
        assert verdict.evidence == f"paired 95{NBSP}% interval {bounds}"
        assert f"random init reaches {rows[1].metrics['rmse']:.3g}" in told(tmp_path).more[0]
        assert bounds in told(tmp_path).more[0]


def test_predictions_that_are_no_numbers_or_not_the_rows_pair_nothing(tmp_path: Path) -> None:
    errors = np.linspace(-1, 1, 400)
    rows = _waves(tmp_path, {"rs-byol-1": errors, "random init": 2 * errors})
    file = tmp_path / "probe-predictions.parquet"
    kept = pq.read_table(file)
    said = kept.column("predicted").to_pylist()
    for wrong in ("rough", "99.0"):
        table = kept.set_column(kept.column_names.index("predicted"), "predicted", pa.array([wrong, *said[1:]]))
        pq.write_table(table, file)
        assert groups_of(rows, read_predictions(file))[0].against["random init"][0].paired is None


def test_the_best_baseline_is_named_beside_the_floors() -> None:
    rows = made.comparison_rows()
    rows += [
        made.probe_row("ImageNet", "s2:B04+B03+B02", 0.9)[0],
        made.probe_row("SeCo", "s2:B04+B03+B02", 0.5)[0],
    ]
    assert groups_of(rows)[0].rivals == ("random init", "image statistics", "ImageNet")


def test_bands_shown_together_stand_on_the_line_of_bands_shown_one_by_one() -> None:
    rows = [
        made.probe_row("rs-byol-1", "s2:B04+B03+B02", 0.8)[0],
        made.probe_row("ImageNet", "s2:B04,B03,B02", 0.7)[0],
    ]
    lines = groups_of(rows)[0].lines
    assert [line.name for line in lines] == ["s2:B04+B03+B02"]
    assert set(lines[0].rows) == {"rs-byol-1", "ImageNet"}


def test_a_probe_that_the_trained_model_was_not_scored_by_is_judged_by_nobody_else() -> None:
    floors = [
        row.model_copy(update={"probe": "logistic"}) for row in made.comparison_rows() if row.model != "rs-byol-1"
    ]
    group = groups_of([*made.comparison_rows(), *floors])[1]
    assert group.trained == "rs-byol-1"
    assert group.main is None
    assert not any(group.against.values())
