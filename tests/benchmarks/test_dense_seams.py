"""The figure of seams tells a map with seams from one without."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from dense import scene_pixels, seam_ratio
from terrasieve.embeddings.scene_maps.dense_cells import DenseSettings


def test_a_step_at_every_border_of_tiles_is_seen() -> None:
    grid = DenseSettings(stride=8, tile=128).grid(1024, 1024, native=8)
    vectors = np.random.default_rng(0).normal(size=(128, 128, 16)).astype(np.float32)
    assert seam_ratio(vectors, grid, 1) == pytest.approx(1, abs=0.02)
    # Half a tile is eight cells: each such square of cells has a level of its own.
    squares = np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32)
    assert seam_ratio(vectors + np.kron(squares, np.ones((8, 8, 1), np.float32)), grid, 1) > 1.3


def test_cells_finer_than_those_of_the_network_are_compared_at_the_same_place() -> None:
    grid = DenseSettings(stride=8, tile=64).grid(512, 512, native=16)
    coarse = np.random.default_rng(0).normal(size=(32, 32, 16))
    vectors = np.kron(coarse, np.ones((2, 2, 1))).astype(np.float32)
    assert seam_ratio(vectors, grid, 2) == pytest.approx(1, abs=0.05)
    assert seam_ratio(vectors, grid, 1) > 1.5


def test_without_data_the_scene_is_made(tmp_path: Path) -> None:
    pixels = scene_pixels(tmp_path, 300, 0)
    assert (pixels.shape, pixels.dtype) == ((3, 300, 300), np.uint8)
    assert pixels.std() > 20
