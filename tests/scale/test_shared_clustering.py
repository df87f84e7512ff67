"""Two processes that hold a share of the vectors each cluster and choose as one that holds all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import distributed

from apart import run_ranks
from scale.clustering import found, shared, vectors
from terrasieve.curation.kmeans import KMeans
from terrasieve.curation.rows import Rows

SHARES = (0.3, 0.7)
"""The last process of a run holds more or less than the others."""


def _find(folder: Path) -> None:
    distributed.init_process_group("gloo")
    rank, rows = distributed.get_rank(), vectors()
    finite = rows[np.isfinite(rows).all(axis=1)]
    results = dict(found(shared(rows, SHARES), shared(finite, SHARES)))
    # A process that has no row at all.
    alone = shared(finite, (0.0, 1.0))
    assert Rows.of(alone, "cpu").held == (0, len(finite))[rank]
    results["alone"] = KMeans(25, seed=1, precision="32").fit(alone).centroids_.numpy()
    np.savez(folder / f"{rank}.npz", **results)


@pytest.mark.slow
def test_two_processes_cluster_and_choose_as_one(tmp_path: Path) -> None:
    run_ranks(_find, tmp_path)
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    rows = vectors()
    finite = rows[np.isfinite(rows).all(axis=1)]
    expected = dict(found(rows, finite))
    expected["alone"] = expected["centroids None"]
    assert sorted(first) == sorted(second) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        if value.dtype.kind == "f":
            # Sums over two processes are those of one but for the order of their terms.
            np.testing.assert_allclose(first[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(first[name], value, err_msg=name)
