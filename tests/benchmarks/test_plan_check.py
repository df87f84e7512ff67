"""The benchmark of plans, on a few samples."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import plan_check
from terrasieve.config import load_config
from terrasieve.estimates.trial_results import Pace
from terrasieve.estimates.trials import Trials


def test_the_long_run_is_ten_times_the_short_one() -> None:
    done: list[int] = []

    def prepare(count: int) -> object:
        done.append(count)
        return lambda: float(sum(1 for _ in range(1000 * count)) / 1000)

    found = plan_check.check(prepare, 0, 100)  # type: ignore[arg-type]
    assert done == [4, 4, 40]
    assert (found.short.units, found.long.units) == (4, 40)


def test_a_ratio_is_what_was_foretold_over_what_was_found() -> None:
    check = plan_check.Check(short=Pace(10, 9.0, 1.1), long=Pace(100, 9.0, 10.0))
    assert check.ratio == pytest.approx(1.1)
    found = plan_check.figures({"index": check})
    assert found == {"index_ratio": 1.1, "within_20_percent": True}
    slow = plan_check.Check(short=Pace(10, 9.0, 1.3), long=Pace(100, 9.0, 10.0))
    assert plan_check.figures({"index": check, "pack": slow})["within_20_percent"] is False


@pytest.mark.slow
def test_every_stage_is_checked(tmp_path: Path) -> None:
    config = load_config("oceansar-small", ["model.name=test_resnet", "train.batch_size=4", "train.precision=32"])
    trials = Trials("simulated-ocean:0:40", config, tmp_path, "cpu")
    found = plan_check.check_all(trials, dict.fromkeys(plan_check.FULL, 0.0))
    for stage in ("index", "pack", "embed"):
        assert (found[stage].short.units, found[stage].long.units) == (4, 40)
    assert found["training"].short.units == 2
    assert all(one.ratio > 0 for one in found.values())
