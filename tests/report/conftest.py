"""A run with every part that the page knows."""

from __future__ import annotations

from pathlib import Path

import pytest

import made_runs


@pytest.fixture
def whole_run(tmp_path: Path) -> Path:
    return made_runs.write_run(tmp_path / "whole")
