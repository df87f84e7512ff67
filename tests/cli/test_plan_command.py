"""The command that plans: its tables, its file, and what it refuses before it measures."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from terrasieve.estimates import trials
from terrasieve.estimates.plan_tables import duration

Run = Callable[..., Any]
PLAN = ("plan", "simulated-ocean:0:6", "oceansar-small", "--samples", "1_000_000", "--seconds", 0)
SMALL = ("--set", "model.name=test_resnet", "--set", "train.precision=32", "--device", "cpu")


def test_a_plan_says_of_every_figure_what_it_rests_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    path = tmp_path / "plan.json"
    code, out, err = run(*PLAN, *SMALL, "--machines", "1,4", "--sustained-tflops", 2, "--json", path)
    assert code == 0, err
    # Whatever was written to measure is gone.
    assert list((tmp_path / "scratch").iterdir()) == []
    for stage in ("index", "pack", "embed", "training", "rounds"):
        assert f"Measuring {stage}, about 0 s" in err
    written = json.loads(path.read_text())
    assert written["measured"]["steps"].keys() == {"2"}
    jobs = written["plan"]["jobs"]
    assert list(jobs) == ["index", "pack", "embed", "rounds", "training", "together"]
    bases = {name: {job["seconds"][one]["basis"] for one in ("1", "4")} for name, job in jobs.items()}
    assert bases["index"] == bases["pack"] == {"extrapolated"}
    assert bases["embed"] == bases["rounds"] == bases["training"] == bases["together"] == {"assumed"}
    work = written["plan"]["work"]
    assert work["steps"] == 1_000_000 * 2 // 64 + 300_000 * 18 // 64
    rows = {line.split()[0]: line for line in out.splitlines() if line.split()}
    training = jobs["training"]["seconds"]
    for one in ("1", "4"):
        assert f" {duration(training[one]['value'], 2)}*" in rows["training"]
        assert f" ~{duration(jobs['pack']['seconds'][one]['value'], 2)} " in rows["pack"]
    assert "12.5 GB/s a machine" in out
    assert "2 TFLOP/s sustained" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--samples", "many"), "--samples 'many' is no number above 0"),
        (("--machines", "1,0"), "--machines '0' is no number above 0"),
        (("--machines", "3"), "--machines 3: train.batch_size 64 does not split"),
        (("--set", "train.epoch=3"), "train.epoch"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_anything_is_measured(
    options: tuple[str, ...], message: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "run_trials", lambda *arguments: pytest.fail("it was measured"))
    code, _, err = run(*PLAN, *options)
    assert code == 1
    assert message in err


def test_a_plan_is_not_replaced_unasked(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "run_trials", lambda *arguments: pytest.fail("it was measured"))
    path = tmp_path / "plan.json"
    path.write_text("mine")
    code, _, err = run(*PLAN, "--json", path)
    assert code == 1
    assert "--overwrite" in err
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (3.2e-8, "32.0 ns"),
        (4.5e-5, "45.0 us"),
        (0.0123, "12.3 ms"),
        (1.5, "1.50 s"),
        (600, "10.0 min"),
        (7200, "2.00 h"),
        (10 * 86400, "10.0 days"),
    ],
)
def test_durations_are_in_the_unit_that_suits_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(("seconds", "said"), [(0.0123, "12 ms"), (7.25 * 3600, "7.2 h"), (123 * 86400, "123 days")])
def test_estimates_have_two_digits(seconds: float, said: str) -> None:
    assert duration(seconds, 2) == said
