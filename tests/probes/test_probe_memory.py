"""No probe holds a copy in float64 of all the vectors that it is fitted on."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.linear.multilabel import MultilabelLogistic
from terrasieve.probes.linear.ridge import RidgeProbe
from terrasieve.probes.mlp import MlpProbe
from terrasieve.probes.probe import Labelled, Probe

N, LENGTH = 30_000, 128


def labelled(n: int, task: str) -> Labelled:
    rng = np.random.default_rng(n)
    features = rng.normal(size=(n, LENGTH)).astype(np.float32)
    if task == "regression":
        return Labelled(features, features[:, 0].astype(np.float64) + rng.normal(size=n))
    if task == "multilabel":
        return Labelled(features, features[:, :3] + rng.normal(size=(n, 3)) > 0)
    return Labelled(features, (features[:, 0] > 0).astype(np.int64))


@pytest.mark.parametrize(
    ("make", "float32_copies"),
    [
        (lambda: RidgeProbe([1.0]), 0),
        (lambda: MlpProbe(epochs=1), 1),
        (lambda: LogisticProbe([0.01]), 1),
        (lambda: MultilabelLogistic([0.01]), 1),
    ],
    ids=["ridge", "mlp", "logistic", "multilabel"],
)
def test_numpy_holds_no_float64_copy_of_all_vectors(make: Callable[[], Probe], float32_copies: int) -> None:
    probe = make()
    train, held = labelled(N, probe.task), labelled(1000, probe.task)
    tracemalloc.start()
    try:
        probe.fit(*train, validation=held).predict(train.features)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A copy in float64 alone would be twice as much as the vectors.
    assert peak < (float32_copies + 0.75) * train.features.nbytes
