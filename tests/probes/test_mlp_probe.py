"""The MLP probe is the paper's head, seeded, standardised on train."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from terrasieve.probes import standardising
from terrasieve.probes.mlp import MlpProbe


def rings(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = 1.0 + 2.0 * labels + 0.2 * rng.normal(size=n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), labels.astype(np.int64)


def test_learns_what_no_linear_probe_can() -> None:
    result = MlpProbe(epochs=40, batch_size=64).fit(*rings(0, 400)).score(*rings(1, 200))
    assert result.metrics["accuracy"] > 0.95


def test_head_is_the_papers() -> None:
    head = MlpProbe(epochs=1).fit(*rings(0, 50)).head_
    assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert head[0].out_features == 128
    assert MlpProbe().epochs == 100


def test_same_seed_same_weights_and_the_global_generator_is_untouched() -> None:
    before = torch.get_rng_state()
    first, second = (MlpProbe(epochs=2, seed=3).fit(*rings(0, 50)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.head_.parameters(), second.head_.parameters(), strict=True))
    other = MlpProbe(epochs=2, seed=4).fit(*rings(0, 50))
    assert not torch.equal(first.head_[0].weight, other.head_[0].weight)


def test_predicting_changes_nothing_and_uses_the_train_standardisation() -> None:
    x, y = rings(0, 80)
    probe = MlpProbe(epochs=2).fit(x, y)
    state = {key: value.clone() for key, value in probe.head_.state_dict().items()}
    far = 1000 * x + 5
    one_by_one = np.concatenate([probe.predict(row[None]) for row in far])
    assert np.array_equal(probe.predict(far), one_by_one)
    assert np.array_equal(probe.scaler_.mean_, x.mean(axis=0))
    assert all(torch.equal(value, state[key]) for key, value in probe.head_.state_dict().items())


def test_a_remainder_of_one_sample_does_not_stop_batch_norm() -> None:
    probe = MlpProbe(epochs=1, batch_size=16).fit(*rings(0, 33))
    assert probe.predict(rings(1, 5)[0]).shape == (5,)


def test_vectors_standardised_in_chunks_give_the_same_head_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    train, (far, _) = rings(0, 80), rings(1, 60)
    whole = MlpProbe(epochs=3).fit(*train)
    expected = whole.predict(far)
    monkeypatch.setattr(standardising, "ROWS_AT_ONCE", 7)
    parts = MlpProbe(epochs=3).fit(*train)
    assert np.allclose(parts.scaler_.scale_, train[0].std(axis=0), rtol=1e-12)
    assert all(
        torch.allclose(a, b, atol=1e-5) for a, b in zip(parts.head_.parameters(), whole.head_.parameters(), strict=True)
    )
    assert np.array_equal(whole.predict(far), expected)
