"""The benchmark of the hot path on small patches: what it counts, and that a blocking copy does not escape it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from hot_path import RECIPES, Operations, Way, make_store, window_vs_map


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_crosses_once_in_the_bytes_of_its_patches(recipe: str, tmp_path: Path) -> None:
    archive = make_store(recipe, 4, tmp_path, size=128)
    figures = Way(recipe, archive, 4).figures(torch.device("meta"))
    assert figures["blocking_copies"] == 0
    assert figures["bytes_vs_patch"] <= 1.1
    assert 20 < figures["render_ops"] <= 96
    assert figures["read_vs_patch"] > 0


def test_the_ratio_of_windows_is_of_the_same_pixels(tmp_path: Path) -> None:
    assert window_vs_map(make_store("rs-byol-1", 4, tmp_path, size=96), "s2", rounds=1, count=8) > 0


def test_operations_are_counted_without_views_and_blocking_copies_are_seen() -> None:
    values = torch.ones(4, 4)
    with Operations() as counted:
        (values.view(2, 8).T + 1).mul_(2)
    assert (counted.count, counted.blocking) == (2, 0)
    with Operations() as counted:
        values.to("meta", non_blocking=True)
        values.to("meta")
        torch.empty(4, 4, device="meta").copy_(values)
        values.sum().item()
    assert counted.blocking == 3
