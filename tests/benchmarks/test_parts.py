"""The benchmark of work in parts, on a few samples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_parts_of_killed_workers_equal_one_machine() -> None:
    options = ["--samples", "160", "--parts", "4", "--workers", "2", "--kill", "3", "--skip-ray"]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "parts.py", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["equal"] is True
    assert found["redone_share"] >= 0
    assert found["overhead_vs_one"] > 0
    assert found["ray_overhead"] is None
    assert "--skip-ray" in found["ray_missing"]
