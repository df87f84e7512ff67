"""A small archive of three bands and a small encoder of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import terrasieve as ts
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.console import console

TINY = {
    "train__steps": 2,
    "train__batch_size": 4,
    "train__precision": "32",
    "views__branches__optical__size": 16,
    "views__branches__radar__size": 16,
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before, console.quiet = console.quiet, True
    yield
    console.quiet = before


@pytest.fixture(scope="session")
def archive() -> Archive:
    """40 labelled samples of simulated land."""
    return open_archive("simulated:0:40")


@pytest.fixture(scope="session")
def run(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> ts.Run:
    """Two steps of a run."""
    out: Path = tmp_path_factory.mktemp("runs") / "first"
    return ts.pretrain("rs-byol-1-small", archive, out, device="cpu", **TINY)


@pytest.fixture
def pixels(rng: np.random.Generator) -> NDArray[np.uint16]:
    """Six samples of three bands."""
    return rng.integers(1, 5000, (6, 3, 16, 16), dtype=np.uint16)
