"""What every registered probe promises, whoever wrote it.

A probe of another distribution is tested by the same file, in an environment where it is installed. What a probe
promises beside this stands in a test of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from terrasieve.errors import ConfigError
from terrasieve.probes.metrics import Task
from terrasieve.probes.probe import PROBES, Labelled, Probe, probes_named

LEARNT: Mapping[Task, tuple[str, float]] = {
    "classification": ("accuracy", 0.9),
    "multilabel": ("micro_map", 0.75),
    "regression": ("r2", 0.7),
}
"""Of each kind of target a metric, and what whoever learnt anything reaches on :func:`drawn`."""

every_probe = pytest.mark.parametrize("name", list(PROBES))


def drawn(task: Task, seed: int, n: int = 120) -> Labelled:
    """Vectors of eight numbers of very different scales, of which the targets are a function but for noise."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 3, n)
    centres = 4 * np.random.default_rng(99).standard_normal((3, 8))
    plain = centres[codes] + 0.5 * generator.standard_normal((n, 8))
    features = (plain * np.logspace(-1, 1, 8) + 3).astype(np.float32)
    if task == "classification":
        return Labelled(features, codes.astype(np.int64))
    if task == "multilabel":
        return Labelled(features, np.stack([codes == 0, codes != 1, codes == 2], axis=1))
    return Labelled(features, 20 + plain[:, 0] + 0.5 * plain[:, 1])


def fitted(name: str, seed: int = 0) -> Probe:
    probe = PROBES[name]()
    return probe.fit(*drawn(probe.task, seed), validation=drawn(probe.task, seed + 50))


@every_probe
def test_it_is_found_by_its_name_in_any_case(name: str) -> None:
    task, short = name.split(".", 1)
    (found,) = probes_named([short.upper()], task)
    assert type(found) is PROBES[name]
    with pytest.raises(ConfigError, match=f"no probe '{short}x' for {task}. Did you mean '{short}'"):
        probes_named([f"{short}x"], task)


@every_probe
def test_fitting_gives_the_probe_itself_and_it_learns(name: str) -> None:
    probe = PROBES[name]()
    train, test = drawn(probe.task, 0), drawn(probe.task, 1)
    assert probe.fit(*train, validation=drawn(probe.task, 50)) is probe
    result = probe.score(*test)
    metric, least = LEARNT[probe.task]
    assert result.metrics[metric] > least
    assert result.predicted.shape == (test.labels.shape if probe.task == "multilabel" else (len(test.labels),))
    for key, (low, high) in result.ci95.items():
        assert low <= result.metrics[key] <= high
    assert metric in result.ci95


@every_probe
def test_its_protocol_says_in_one_line_how_it_measures(name: str) -> None:
    probe = fitted(name)
    protocol = probe.protocol
    assert protocol.name == probe.name
    assert protocol.version >= 1
    assert protocol.settings == PROBES[name]().settings
    assert protocol.settings.strip()
    assert "\n" not in str(protocol)
    assert probe.score(*drawn(probe.task, 1)).protocol == protocol


@every_probe
def test_the_same_vectors_give_the_same_probe(name: str) -> None:
    test = drawn(PROBES[name].task, 1)
    first, again = (fitted(name).score(*test) for _ in range(2))
    np.testing.assert_array_equal(first.predicted, again.predicted)
    assert first.metrics == again.metrics
    assert first.ci95 == again.ci95


@every_probe
def test_it_learns_nothing_from_what_it_predicts(name: str) -> None:
    probe = fitted(name)
    test = drawn(probe.task, 1)
    before = probe.predict(test.features)
    shifted = test.features * 5 + 100
    probe.score(shifted, test.labels)
    np.testing.assert_array_equal(probe.predict(test.features), before)
    # Nor from the other rows: whatever it standardises by comes from the train split.
    beside = probe.predict(np.concatenate([test.features[:7], shifted]))[:7]
    np.testing.assert_allclose(np.asarray(beside, float), np.asarray(before[:7], float), rtol=1e-4, atol=1e-5)


@every_probe
def test_it_leaves_vectors_and_targets_alone(name: str) -> None:
    task = PROBES[name].task
    parts = [drawn(task, seed) for seed in (0, 50, 1)]
    copies = [(part.features.copy(), part.labels.copy()) for part in parts]
    for part in parts:
        part.features.flags.writeable = part.labels.flags.writeable = False
    train, validation, test = parts
    PROBES[name]().fit(*train, validation=validation).score(*test)
    for part, (features, labels) in zip(parts, copies, strict=True):
        np.testing.assert_array_equal(part.features, features)
        np.testing.assert_array_equal(part.labels, labels)


@every_probe
@pytest.mark.parametrize("what", ["NaN", "one row less", "one axis", "nothing"])
def test_vectors_that_cannot_be_fitted_are_refused(name: str, what: str) -> None:
    probe = PROBES[name]()
    features, labels = drawn(probe.task, 0)
    broken: Mapping[str, Any] = {
        "NaN": np.where(np.arange(8) == 3, np.nan, features),
        "one row less": features[1:],
        "one axis": features[:, 0],
        "nothing": features[:0],
    }
    with pytest.raises(ConfigError):
        probe.fit(broken[what], labels[:0] if what == "nothing" else labels)
