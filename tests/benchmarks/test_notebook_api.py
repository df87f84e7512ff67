"""What somebody tries first in a notebook is short, and what fails is told."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from notebook_api import SNIPPETS, attempt


def test_there_are_ten_of_at_most_five_lines() -> None:
    assert len(SNIPPETS) == 10
    assert max(len(code.strip().splitlines()) for code in SNIPPETS.values()) <= 5


def test_lines_see_what_earlier_ones_defined() -> None:
    names: dict[str, object] = {}
    assert attempt("a = 2", names) == ("", "")
    assert attempt("print(a + 1)", names) == ("3\n", "")


def test_a_failure_is_told_beside_what_was_printed_before_it() -> None:
    said, error = attempt("print('so far')\nraise ValueError('broken')", {})
    assert said == "so far\n"
    assert "ValueError: broken" in error
