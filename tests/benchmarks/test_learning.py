"""The record of the comparison of methods grows cell by cell."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from learning import Cell, merged

CELL = Cell(question="cross", method="dino-small", seed=0, budget="steps", steps=400, split="test").model_dump(
    mode="json"
)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A record of one cell."""
    path = tmp_path / "learning.json"
    path.write_text(json.dumps({"cells": [{**CELL, "seconds": 7}]}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"method": "lejepa-small"}, {"steps": 2000}, {"split": "val"}, {"settings": ["a=1"]}]
)
def test_another_cell_is_added_to_the_record(record: Path, change: dict[str, Any]) -> None:
    found = merged([{**CELL, **change, "seconds": 9}], record)
    assert sorted(cell["seconds"] for cell in found) == [7, 9]


def test_the_same_cell_takes_the_place_of_what_was_recorded(record: Path) -> None:
    assert [cell["seconds"] for cell in merged([{**CELL, "seconds": 9}], record)] == [9]


def test_the_order_does_not_depend_on_when_a_cell_was_made(record: Path) -> None:
    cells = [{**CELL, "seed": seed, "seconds": seed} for seed in (2, 1)]
    assert [cell["seed"] for cell in merged(cells, record)] == [0, 1, 2]
