"""The contract tests run over a plug-in's layout, method, curator and probe as they are, where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
CONTRACTS = {
    "archive/test_archive_contract.py": ("fieldwork", 17),
    "methods/test_method_contract.py": ("simsiam", 18),
    "curation/test_curator_contract.py": ("northern", 30),
    "probes/test_probe_contract.py": ("classification.centroid", 10),
}
"""Of each contract what is registered by the plug-in, and how many tests there are of it at least."""


def test_a_plugin_keeps_the_contracts(places: list[str]) -> None:
    files = [str(TESTS / file) for file in CONTRACTS]
    names = " or ".join(name for name, _ in CONTRACTS.values())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "-p", "small_fieldwork", *files, "-k", names],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*places, *filter(None, sys.path)])},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = Counter(line.split("::")[0] for line in done.stdout.splitlines() if " PASSED" in line)
    for file, (_, least) in CONTRACTS.items():
        assert passed[f"tests/{file}"] >= least, done.stdout
