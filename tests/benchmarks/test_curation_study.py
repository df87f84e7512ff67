from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import nn

from small_archives.labelled import LABELS, Labelled
from terrasieve.errors import ConfigError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import curation_study
from study_arms import configure
from study_pools import balance_labels
from study_probe import StudyProbe, draw_evenly, read_measurements, score
from study_report import arm_rows, as_markdown, fill_page, gain_rows, results_section, write_record
from study_settings import ARMS, QUICK, Settings, Study
from study_statistics import gains, interval, judge, share_of_steps, stated, summarise

DINO = Settings(learner="dino", precision="32")


def finished(seed: int, knn: Sequence[float], linear: Sequence[float]) -> dict[str, Any]:
    """A result as a run of so many measurements, 100 steps apart, leaves it."""
    evaluations = [
        {"step": 100 * i, **{name: dict.fromkeys(("macro", "tail", "head"), value) for name, value in pair.items()}}
        for i, pair in enumerate(({"knn": a, "linear": b} for a, b in zip(knn, linear, strict=True)), start=1)
    ]
    pool = {"samples": 10, "originals": 9, "tail_samples": 3, "class_entropy": 0.5}
    times = {"seconds": 60.0, "curation_seconds": 6.0, "wall_seconds": 90.0}
    return {"seed": seed, "evaluations": evaluations, "pool": pool, **times}


RESULTS = {
    "uncurated": [finished(0, [0.50, 0.60], [0.60, 0.70]), finished(1, [0.52, 0.62], [0.62, 0.72])],
    "oracle": [finished(0, [0.60, 0.66], [0.70, 0.76]), finished(1, [0.62, 0.70], [0.72, 0.80])],
    "dynamic": [finished(0, [0.58, 0.63], [0.70, 0.74]), finished(1, [0.60, 0.66], [0.72, 0.77])],
}


# -------------------------------------------------------------------- what is said


def test_the_interval_is_that_of_student() -> None:
    values = [0.1, 0.2, 0.4]
    mean, half = interval(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert half is not None
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert stated(values) == {"mean": round(mean, 4), "ci95": [round(low, 4), round(high, 4)]}
    assert stated([0.3]) == {"mean": 0.3, "ci95": None}


def test_gains_are_paired_by_seed_whatever_the_order() -> None:
    shuffled = {**RESULTS, "oracle": [*RESULTS["oracle"][::-1], finished(7, [1, 1], [1, 1])]}
    assert gains(shuffled, "oracle", "uncurated", "knn") == pytest.approx([0.08, 0.06])
    assert gains(shuffled, "oracle", "uncurated", "knn", measurement=0) == pytest.approx([0.10, 0.10])
    assert gains(shuffled, "random", "uncurated", "knn") == []


def test_the_primary_endpoint_is_the_mean_of_both_probes() -> None:
    by_probe = [gains(RESULTS, "dynamic", "uncurated", probe) for probe in ("primary", "knn", "linear")]
    assert by_probe[0] == pytest.approx(np.mean(by_probe[1:], axis=0).tolist())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.7, 0.8], 0.5),  # above from the first measurement on
        ([0.5, 0.7], 0.75),  # half of the way between the two
        ([0.5, 0.6], 1.0),
        ([0.5, 0.55], None),
    ],
)
def test_steps_to_the_goal_lie_on_a_straight_line(values: list[float], expected: float | None) -> None:
    results = {"uncurated": [finished(0, [0.4, 0.6], [0.4, 0.6])], "dynamic": [finished(0, values, values)]}
    assert share_of_steps(results, "dynamic") == (None if expected is None else pytest.approx(expected))


def test_the_summary_has_every_difference_whose_runs_there_are() -> None:
    summary = summarise(RESULTS)
    assert {key for key in summary if "_minus_" in key} == {"oracle_minus_uncurated", "dynamic_minus_uncurated"}
    assert summary["oracle_minus_uncurated"]["primary"]["mean"] == pytest.approx(0.07)
    assert summary["steps_ratio"]["linear"] == 0.5
    assert summary["arms"]["dynamic"]["knn_macro"]["mean"] == 0.645
    json.dumps(summary, allow_nan=False)
    assert "steps_ratio" not in summarise({"random": [finished(0, [0.1], [0.1])]})


def test_the_verdict_follows_the_plan() -> None:
    def judged(oracle: float, dynamic: float, low: float, ratio: float | None) -> dict[str, bool | None]:
        return judge(
            {
                "oracle_minus_uncurated": {"primary": {"mean": oracle, "ci95": [0.0, 1.0]}},
                "dynamic_minus_uncurated": {"primary": {"mean": dynamic, "ci95": [low, 1.0]}},
                "steps_ratio": {"primary": ratio},
            },
            "dynamic",
        )

    assert list(judged(0.05, 0.03, 0.01, 0.5).values()) == [True, True, True, True]
    assert list(judged(0.03, 0.01, -0.01, None).values()) == [False, False, False, False]
    assert list(judge({}, "dynamic").values()) == [None, None, None, None]


def test_the_page_gets_the_results_of_one_learner_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# a\n<!-- results of dino -->\nold\n<!-- end of dino -->\n<!-- results of lejepa -->\nb\n")
    section = results_section(RESULTS, summarise(RESULTS), "figures/x.png", "a machine, bf16")
    fill_page(page, "dino", section)
    fill_page(page, "dino", section)
    text = page.read_text()
    assert text.count(section) == 1
    assert "old" not in text
    assert text.startswith("# a\n")
    assert text.endswith("<!-- results of lejepa -->\nb\n")
    assert "| oracle - uncurated |" in text
    with pytest.raises(ConfigError, match="end of lejepa"):
        fill_page(page, "lejepa", section)


def test_rows_are_of_one_length_and_make_a_table() -> None:
    for rows in (arm_rows(RESULTS), gain_rows(RESULTS)):
        assert {len(row) for row in rows} == {len(rows[0])}
        assert len(as_markdown(rows).splitlines()) == len(rows) + 1
    assert gain_rows({}) == [["macro, paired by seed"]]


def test_a_record_stands_beside_that_of_the_other_learner(tmp_path: Path) -> None:
    for learner in ("dino", "lejepa", "dino"):
        write_record(tmp_path / "record.json", learner, {"is": learner})
    assert json.loads((tmp_path / "record.json").read_text()) == {"dino": {"is": "dino"}, "lejepa": {"is": "lejepa"}}


# ------------------------------------------------------------------ what is measured


def test_accuracy_is_of_classes_and_their_plain_mean() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 0, 1, 1, 0, 2])
    found = score(predicted, truth, ["sea", "field", "road"], {"macro": ["field", "road"], "head": ["sea"]})
    assert found == {"macro": 0.75, "head": 0.75, "classes": {"sea": 0.75, "field": 0.5, "road": 1.0}}


def test_labels_are_drawn_evenly_from_those_offered() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 4])
    offered = np.arange(0, 84, 2)
    drawn = draw_evenly(labels, offered, 5)
    assert np.bincount(labels[drawn]).tolist() == [5, 5, 2]
    assert np.isin(drawn, offered).all()
    assert np.array_equal(drawn, draw_evenly(labels, offered, 5))
    assert np.array_equal(draw_evenly(labels, offered, None), offered)


class _Normalised(nn.Module):
    """A convolution and a batch normalisation with the given running mean."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(1, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.norm.running_mean.fill_(mean)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(pixels)).relu().mean(dim=(2, 3))


def test_an_encoder_is_measured_without_its_running_statistics_and_left_as_it_is(tmp_path: Path) -> None:
    settings = DINO.model_copy(update={"split": "test", "labels": 8})
    groups = {"macro": LABELS[1:], "tail": LABELS[2:], "head": LABELS[:1]}
    probe = StudyProbe(Labelled(), groups, settings, tmp_path / "record.jsonl")
    for mean in (0.0, 5.0):
        encoder = _Normalised(mean).train()
        logged = probe(encoder)
        assert torch.equal(encoder.norm.running_mean, torch.full((8,), mean))
        assert encoder.norm.training
    lines = (tmp_path / "record.jsonl").read_text().splitlines()
    assert lines[0] == lines[1]
    measured = json.loads(lines[0])
    assert logged == {"knn_accuracy": measured["knn"]["macro"]}
    assert list(measured["linear"]["classes"]) == list(LABELS)


def test_a_measurement_that_was_made_again_counts_once(tmp_path: Path) -> None:
    (tmp_path / "record").write_text('{"knn": {"macro": 1}}\n{"knn": {"macro": 2}}\n{"knn": {"macro": 2}}\n')
    assert read_measurements(tmp_path / "record") == [{"knn": {"macro": 1}}, {"knn": {"macro": 2}}]


# ------------------------------------------------------------------------- the arms


def test_the_oracle_takes_as_many_of_each_class_as_there_are() -> None:
    labels = np.repeat(["a", "b", "c"], [100, 10, 2])
    pool = balance_labels(labels, 40, np.random.default_rng(0))
    assert np.unique(labels[pool], return_counts=True)[1].tolist() == [28, 10, 2]


@pytest.mark.parametrize("arm", ARMS)
def test_only_the_arms_whose_model_chooses_have_rounds(arm: str) -> None:
    config = configure(DINO, arm, 3, 30_000)
    assert (config.train.steps, config.train.seed, config.train.precision) == (600, 3, "32")
    if not arm.startswith("dynamic") and arm != "static-once":
        assert config.curation is None
        return
    assert config.curation is not None
    rounds = config.curation.rounds(30_000, config.train.batch_size, 600).tolist()
    assert rounds == ([40] if arm == "static-once" else [40, 130, 220, 310, 400, 490, 580])
    assert config.curation.pool_size(30_000) == 1500
    curator = config.curation.curator.model_dump()
    if arm == "dynamic-spread":
        assert (curator["name"], config.curation.size) == ("semdedup", 64)
        return
    assert (curator["levels"], curator["diversity"], config.curation.size) == ((400, 40), 1, 32)
    assert curator["name"] == ("deduplicated" if arm == "dynamic-dedup" else "balanced")


def test_runs_go_seed_by_seed_and_static_after_what_it_waits_for() -> None:
    assert curation_study.plan_cells(["static", "random"], [4, 5]) == [
        (arm, seed) for seed in (4, 5) for arm in ("uncurated", "random", "static")
    ]


def test_settings_of_the_quick_run_are_valid_and_the_precision_is_resolved() -> None:
    assert Settings.model_validate({**QUICK, "learner": "dino"}).steps == 120
    assert Settings().precision in ("32", "bf16")
    with pytest.raises(ValidationError, match="7 evaluations do not divide 600 steps"):
        Settings(evaluations=7)


def test_a_folder_keeps_one_study(tmp_path: Path) -> None:
    curation_study.remember(Study(tmp_path, tmp_path, DINO))
    curation_study.remember(Study(tmp_path, tmp_path, DINO))
    with pytest.raises(ConfigError, match="other steps, keep"):
        curation_study.remember(Study(tmp_path, tmp_path, DINO.model_copy(update={"steps": 300, "keep": 0.1})))


def test_the_time_left_is_that_of_the_finished_runs(tmp_path: Path) -> None:
    study = Study(tmp_path, tmp_path, DINO)
    cells = curation_study.plan_cells(["uncurated", "random", "oracle"], [0])
    assert study.seconds_left(cells, 2) > 0
    study.folder("random", 0).mkdir()
    (study.folder("random", 0) / "result.json").write_text(json.dumps(finished(0, [0.1], [0.1])))
    assert study.seconds_left(cells, 2) == 90
