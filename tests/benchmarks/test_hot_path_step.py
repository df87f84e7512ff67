"""The bytes of the loss are counted as they are defined, and are few."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from hot_path_step import MINIMUM, Traffic, loss_bytes_vs_min, loss_traffic_vs_min


def test_bytes_are_those_that_operations_read_and_write() -> None:
    large, small = torch.zeros(100), torch.zeros(10)
    with Traffic(cache=0) as everything:
        large.view(10, 10).t()[2:]
        torch.empty(7)
        assert everything.moved == 0
        large.add_(1)
        assert everything.moved == 800
        large + large
        assert everything.moved == 800 + 1200
    with Traffic(cache=40) as memory:
        small + small
        assert memory.moved == 0
        large[:10] + small
        assert memory.moved == 40, "a piece of a large tensor lies in memory, what is made of it does not"


def test_the_loss_moves_at_most_three_times_the_least() -> None:
    assert MINIMUM == 4_456_448
    assert 1 < loss_traffic_vs_min() <= 3
    assert loss_traffic_vs_min() < loss_bytes_vs_min() < 10, "what stays in the cache is counted apart"
