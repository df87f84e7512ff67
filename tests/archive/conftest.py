from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from terrasieve.archive.quality.limits import Problem, Rejection
from terrasieve.sensors import BandStatistics


@pytest.fixture
def read_quarantine() -> Callable[[Path], list[Rejection]]:
    """The rejections that a quarantine list names."""

    def read(path: Path) -> list[Rejection]:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [Rejection(**{**r, "problem": Problem(r["problem"]), "samples": int(r["samples"])}) for r in rows]

    return read


@pytest.fixture
def assert_same_statistics() -> Callable[..., None]:
    """Fail unless statistics are the same but for the order of sums in float64, which has 16 digits."""

    def check(found: Mapping[str, Sequence[BandStatistics]], expected: Mapping[str, Sequence[BandStatistics]]) -> None:
        assert found.keys() == expected.keys()
        for key, rows in expected.items():
            assert [(one.band, one.count) for one in found[key]] == [(one.band, one.count) for one in rows]
            np.testing.assert_allclose(*([_numbers(one) for one in side] for side in (found[key], rows)), rtol=1e-12)

    return check


def _numbers(one: BandStatistics) -> list[float]:
    return [one.mean, one.std, one.minimum, one.maximum]
