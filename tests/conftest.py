"""Fixtures that every room's tests may use."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is imported: on tensors this small a second thread costs more than it gives, and two test
# processes with two threads each would wait for each other. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

from small_archives import making
from terrasieve.processes import parallel

# No test measures time: on a busy machine an example may take as long as it takes.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[1]


def find_data() -> Path | None:
    """The folder with real Sentinel samples: $TERRASIEVE_DATA, else shared/data beside the checkout."""
    named = os.environ.get("TERRASIEVE_DATA")
    candidates = [Path(named)] if named else [ROOT.parent / "shared" / "data"]
    return next((c for c in candidates if (c / "la_texas_pairs").is_dir()), None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real Sentinel data, or skip with the reason."""
    found = find_data()
    if found is None:
        pytest.skip("no real Sentinel data: set TERRASIEVE_DATA to a folder that holds la_texas_pairs")
    return found


@pytest.fixture(autouse=True)
def _leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _processes_are_started_as_the_system_does() -> Iterator[None]:
    """Once a server was asked processes are started anew, which takes seconds each: for that file's tests alone."""
    yield
    parallel._start_method = None


@pytest.fixture(autouse=True, scope="module")
def _what_outlives_a_file_is_not_looked_through_again() -> Iterator[None]:
    """Libraries and their caches are millions of objects, which Python would look through for garbage ever again."""
    yield
    gc.collect()
    gc.freeze()


WriteTif = Callable[..., NDArray[Any]]


@pytest.fixture(scope="session")
def write_tif() -> WriteTif:
    """Write pixels (bands, height, width) as GeoTIFF in deflated blocks of 16 and give them back."""
    return making.write_tif


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
