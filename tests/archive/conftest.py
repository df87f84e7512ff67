from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from terrasieve.archive.quality.limits import Problem, Rejection


@pytest.fixture
def read_quarantine() -> Callable[[Path], list[Rejection]]:
    """The rejections that a quarantine list names."""

    def read(path: Path) -> list[Rejection]:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [Rejection(**{**r, "problem": Problem(r["problem"]), "samples": int(r["samples"])}) for r in rows]

    return read
