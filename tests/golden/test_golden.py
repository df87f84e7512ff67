"""Results of a small run of everything are those that were recorded, and what older trees wrote still opens.

Everything is made by ``record.py`` in a process of its own, whose environment fixes what else the processor would
decide. Where processor and libraries are those of the recording, every bit must be the same; elsewhere floats may
differ by :data:`RELATIVE`, since libraries add in another order there, and with them the side of a boundary that a
pixel of a map falls to. Other whole numbers, names and choices are the same everywhere.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""Kernels for AVX-512 in place of AVX2 change losses and weights of the runs by less than a tenth of it."""

COUNTS, FEW = "/confusion/", 6
"""Where pixels of maps are counted, and how many of them may fall to the other side of a boundary elsewhere."""

EXACT_ONLY = "bytes_sha256"
"""Key of a digest that holds on the recording machine alone."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("golden")
    command = [sys.executable, str(HERE / "record.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (out / "machine.json").is_file(), done.stderr[-4000:]
    return out


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def differences(expected: Any, found: Any, exact: bool, where: str = "") -> Iterator[str]:
    """What differs, a line each; new keys do not count."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected:
            if exact or key != EXACT_ONLY:
                yield from differences(expected[key], found.get(key, "nothing"), exact, f"{where}/{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for position, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one, other, exact, f"{where}/{position}")
    elif type(expected) is not type(found) or not (expected == found or (not exact and near(expected, found, where))):
        yield f"{where}: {expected!r} was recorded, {found!r} found"


def near(expected: Any, found: Any, where: str) -> bool:
    """Whether two numbers of the same place differ as little as they may on another machine."""
    if COUNTS in where:
        return abs(expected - found) <= FEW
    return isinstance(expected, float) and math.isclose(expected, found, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def compare(section: str, made: Path) -> None:
    recorded = HERE / "expected"
    exact = read(recorded, "machine") == read(made, "machine")
    found = read(made, section)
    assert "failed" not in found, found["failed"]
    wrong = list(differences(read(recorded, section), found, exact))
    assert not wrong, f"{len(wrong)} differences (exact: {exact})\n" + "\n".join(wrong[:20])


@pytest.mark.parametrize("section", ["stores", "byol", "dino", "embeddings", "probes", "selections", "catalogue"])
def test_results_are_those_recorded(section: str, made: Path) -> None:
    compare(section, made)


def test_what_an_old_tree_wrote_opens_and_goes_on(made: Path) -> None:
    compare("reopened", made)


@pytest.mark.parametrize(
    ("found", "anywhere"),
    [
        ({"indices": [1, 3], "weights": {"bytes_sha256": "a", "some": [0.5]}}, True),
        ({"indices": [1, 2], "weights": {"bytes_sha256": "b", "some": [0.5]}}, False),
        ({"indices": [1, 2], "weights": {"bytes_sha256": "a", "some": [0.5 + 2**-50]}}, False),
        ({"indices": [1, 2], "weights": {"bytes_sha256": "b", "some": [0.502]}}, True),
        ({"indices": [1], "weights": {"bytes_sha256": "a", "some": [0.5]}}, True),
        ({"indices": [1, 2]}, True),
    ],
)
def test_a_change_is_found(found: Any, anywhere: bool) -> None:
    expected = {"indices": [1, 2], "weights": {"bytes_sha256": "a", "some": [0.5]}}
    assert list(differences(expected, found, exact=True))
    assert bool(list(differences(expected, found, exact=False))) == anywhere
    assert not list(differences(expected, expected | {"new": 1}, exact=True))
