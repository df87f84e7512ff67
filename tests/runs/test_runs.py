"""What is written to a run folder is read back by the same records, and old records still open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from terrasieve.curation.diagnostics import Balance, Diagnostics, Occupancy
from terrasieve.errors import ArchiveError
from terrasieve.runs import CARD, RoundRecord, RunFolder

OLD: dict[str, Any] = {
    "round": 2,
    "step": 40,
    "candidates": 1200,
    "pool": 300,
    "inputs": ["s2:B04", "s1:VV"],
    "seconds": {"embed": 1.5, "choose": 0.25},
    "diagnostics": {
        "n": 1200,
        "kept": 300,
        "occupancy_before": {"groups": 50, "effective": 12.4, "largest": 0.4},
        "occupancy_after": {"groups": 50, "effective": 41.6, "largest": 0.05},
        "nearest_neighbour": 0.2,
        "coverage_mean": None,
        "coverage_p95": None,
        "compared": 300,
        "turnover": 0.25,
        "classes_before": {"counts": {"sea": 1100, "land": 100}, "entropy": 0.41},
        "classes_after": None,
    },
    "selection": {"curator": "balanced", "keep": 300},
}
"""As the first version wrote it, before the sizes of clusters were kept."""

RECORD = RoundRecord(
    round=1,
    step=0,
    candidates=12,
    pool=4,
    inputs=("s2:B04",),
    seconds={"embed": 0.5},
    diagnostics=Diagnostics(
        n=12,
        kept=4,
        occupancy_before=Occupancy(3, 2.5, 0.5),
        occupancy_after=Occupancy(3, 3.0, 0.4),
        nearest_neighbour=0.1,
        coverage_mean=0.2,
        coverage_p95=0.3,
        compared=4,
        turnover=None,
        classes_before=Balance({"sea": 12}, None),
        classes_after=Balance({"sea": 4}, None),
    ),
    selection={"curator": "random", "settings": {"keep": 0.3}},
    group_sizes=(6, 4, 2),
    quotas=(2, 1, 1),
)


def test_a_round_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    later = RECORD.model_copy(update={"round": 2})
    run.write_round(later)
    run.write_round(RECORD)
    assert run.rounds() == (RECORD, later)


def test_a_record_of_the_first_version_still_opens(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.curation.mkdir()
    run.round_record(2).write_text(json.dumps({**OLD, "unknown": 1}), encoding="utf-8")
    (record,) = run.rounds()
    assert record.diagnostics.occupancy_after == Occupancy(50, 41.6, 0.05)
    assert record.diagnostics.classes_before == Balance({"sea": 1100, "land": 100}, 0.41)
    assert (record.group_sizes, record.quotas, record.duration) == ((), (), 1.75)
    assert str(record) == (
        "Curation round 2 before step 40: 300 of 1,200 samples · effective clusters 12 -> 42 · 25% new · 1.8 s"
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"round": "two"}', json.dumps({**OLD, "diagnostics": {}})])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    run = RunFolder(tmp_path)
    run.curation.mkdir()
    run.round_record(1).write_text(content, encoding="utf-8")
    with pytest.raises(ArchiveError, match=r"round-00001\.json is no record"):
        run.rounds()


def test_the_files_of_a_run_are_those_that_are_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.files() == ()
    run.write_round(RECORD)
    run.config.write_text("name: mine", encoding="utf-8")
    (tmp_path / "other.txt").write_text("", encoding="utf-8")
    assert run.files() == (run.config, run.round_record(1))


def test_an_encoder_lies_in_a_run_or_stands_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.exported() is None
    run.encoder.mkdir()
    (run.encoder / CARD).write_text("{}", encoding="utf-8")
    assert run.exported() == run.encoder
    assert RunFolder(run.encoder).exported() == run.encoder


def test_any_round_makes_a_folder_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not any(path.is_file() for path in run.told)
    run.write_round(RECORD.model_copy(update={"round": 7}))
    assert any(path.is_file() for path in run.told)
