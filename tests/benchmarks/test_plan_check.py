"""The benchmark of plans, on a few samples."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import plan_check
from terrasieve.config import load_config
from terrasieve.estimates.attempts import Attempts
from terrasieve.estimates.trial_results import Pace
from terrasieve.estimates.trials import Trials


def test_the_long_run_is_ten_times_the_short_one() -> None:
    done: list[int] = []

    def prepare(count: int) -> object:
        done.append(count)
        return lambda: float(sum(1 for _ in range(1000 * count)) / 1000)

    found = plan_check.check(prepare, 0, 100)  # type: ignore[arg-type]
    assert done == [4, 4, 40]
    assert (found.pace.units, found.long.units) == (4, 40)


def test_what_a_run_takes_whatever_its_length_is_foretold_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two seconds a run, and one a unit: 42 seconds of the long one, and not 60.
    short, longest, long = (Pace(units, 9.0 * units, 2.0 + units) for units in (1, 4, 40))
    monkeypatch.setattr(plan_check, "attempts_at", lambda *arguments: Attempts(short, longest))
    monkeypatch.setattr(plan_check, "timed", lambda work: long)
    found = plan_check.check(lambda units: lambda: units, 1, 100)
    assert found.foretold == pytest.approx(42)
    assert found.ratio == pytest.approx(1)


def test_ratios_within_a_fifth_pass() -> None:
    near = plan_check.Check(Pace(10, 9.0, 1.1), foretold=11.0, long=Pace(100, 9.0, 10.0))
    far = near._replace(foretold=13.0)
    assert plan_check.figures({"index": near}) == {"index_ratio": 1.1, "within_20_percent": True}
    assert plan_check.figures({"index": near, "pack": far})["within_20_percent"] is False


@pytest.mark.slow
def test_every_stage_is_checked(tmp_path: Path) -> None:
    config = load_config("oceansar-small", ["model.name=test_resnet", "train.batch_size=4", "train.precision=32"])
    trials = Trials("simulated-ocean:0:40", config, tmp_path, "cpu")
    found = plan_check.check_all(trials, dict.fromkeys(plan_check.FULL, 0.0))
    for stage in ("index", "pack", "embed"):
        assert (found[stage].pace.units, found[stage].long.units) == (4, 40)
    assert found["training"].pace.units == 2
    assert all(one.ratio > 0 for one in found.values())
