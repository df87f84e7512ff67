"""The age of a feature does not decide whether its sample is drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from terrasieve.curation.balanced import BalancedClusters
from terrasieve.training.ageing import BLOCKS, PAIRS, as_of_today, spread_over_ages

SAMPLES, LENGTH, KEEP, STEPS = 2000, 32, 300, 60
CPU = torch.device("cpu")
# Below this lie 999 of 1,000 draws of thirds that are as likely as each other.
CHI_SQUARE = 13.8


class Drifting(NamedTuple):
    """Features of a long-tailed archive by an encoder that moved, fast at first."""

    old: NDArray[np.float16]
    today: NDArray[np.float16]
    steps: NDArray[np.int64]


def drifting(seed: int, again: float = 0) -> Drifting:
    """Features of the step that showed each sample last, with the noise of a view, and of today.

    Args:
        seed: Decides contents and encoder.
        again: Share of a second pass that shows a balanced pool.
    """
    random = np.random.default_rng(seed)
    classes = random.choice(10, SAMPLES, p=[0.7, 0.1, 0.06, 0.04, 0.03, 0.02, 0.02, 0.01, 0.01, 0.01])
    content = random.normal(0, 1.5, (10, 16))[classes] + random.normal(0, 0.5, (SAMPLES, 16))
    first, second = random.normal(0, 0.25, (2, 16, LENGTH))
    bias, moved = random.normal(0, (0.5, 1.0), (LENGTH, 2)).T

    def encode(steps: NDArray[Any], noise: float) -> NDArray[np.float16]:
        way = 2 * (1 - np.exp(-6 * steps / STEPS))[:, None]
        seen = content + noise * random.normal(0, 0.5, content.shape)
        features = np.maximum(seen @ first * (1 - way / 2) + seen @ second * way + bias + moved * way, 0) + 1e-6
        return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16)

    steps = random.permutation(SAMPLES) * STEPS // SAMPLES
    last = np.full(SAMPLES, STEPS)
    if again:
        pool = draw(encode(last, 0), int(again * SAMPLES))
        steps[pool] = STEPS + random.permutation(len(pool)) * STEPS // len(pool)
        last = 2 * last
    return Drifting(encode(steps, 1), encode(last, 0), steps)


def draw(vectors: NDArray[Any], keep: int = KEEP) -> NDArray[np.int64]:
    return BalancedClusters(precision="32", resampling_steps=1).select(vectors, keep, seed=0).indices


def mended(features: Drifting, share: float = 0.2) -> NDArray[Any]:
    rows = spread_over_ages(features.steps, int(share * SAMPLES), np.random.default_rng(0))
    fresh = torch.from_numpy(features.today[rows])
    return as_of_today(torch.from_numpy(features.old), features.steps, rows, fresh, CPU).numpy()


def thirds(chosen: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many were drawn of the oldest third, the middle one and the newest."""
    parts = np.array_split(np.argsort(steps, kind="stable"), 3)
    return np.array([np.isin(part, chosen).sum() for part in parts])


def chi_square(counts: NDArray[np.int64]) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_age_does_not_decide_what_is_drawn(seed: int) -> None:
    features = drifting(seed)
    assert chi_square(thirds(draw(features.today), features.steps)) < CHI_SQUARE, "content does not depend on age"
    assert chi_square(thirds(draw(features.old), features.steps)) > 1.3 * CHI_SQUARE, (
        "the encoder moves enough to matter"
    )
    assert chi_square(thirds(draw(mended(features)), features.steps)) < CHI_SQUARE


def test_content_that_depends_on_age_still_decides() -> None:
    """After a round new features are of a balanced pool, old ones of what it left, and a draw has to tell."""
    features = drifting(0, again=0.3)
    wanted = thirds(draw(features.today), features.steps)
    assert wanted[2] > 1.4 * wanted[0]
    assert np.abs(thirds(draw(features.old), features.steps) - wanted).max() > 0.25 * KEEP / 3
    assert np.abs(thirds(draw(mended(features)), features.steps) - wanted).max() < 0.25 * KEEP / 3


def test_samples_that_were_embedded_anew_are_drawn_more_nearly_as_often_as_others() -> None:
    shares = []
    for seed in range(3):
        features = drifting(seed)
        rows = spread_over_ages(features.steps, SAMPLES // 5, np.random.default_rng(0))
        beside = features.old.copy()
        beside[rows] = features.today[rows]
        shares.append([np.isin(draw(vectors), rows).mean() for vectors in (mended(features), beside)])
    found, beside_old = np.mean(shares, axis=0)
    assert abs(found - 0.2) < 0.06 < abs(beside_old - 0.2)


def test_an_affine_drift_is_undone() -> None:
    random = np.random.default_rng(0)
    today = torch.from_numpy(random.normal(0, 1, (400, 6)))
    ages = np.repeat([0, 1], 200)
    turns = [torch.from_numpy(np.linalg.qr(random.normal(0, 1, (6, 6)))[0]) for _ in range(2)]
    old = torch.cat([today[ages == age] @ turn * (age + 0.5) + age for age, turn in enumerate(turns)]).half()
    rows = spread_over_ages(ages, 2 * PAIRS, random)
    found = as_of_today(old, ages, rows, today[rows].half(), CPU)
    assert float((found - today).abs().mean()) < 0.15 < 0.5 < float((old - today).abs().mean())


def test_few_pairs_make_few_blocks_and_equal_features_a_constant() -> None:
    old, fresh = torch.ones(40, 4).half(), torch.rand(PAIRS, 4).half()
    rows = np.arange(PAIRS)
    found = as_of_today(old, np.arange(40), rows, fresh, CPU)
    torch.testing.assert_close(found, fresh.float().mean(dim=0).half().expand(40, -1), rtol=0, atol=2e-3)
    assert len(torch.unique(found, dim=0)) == 1 < BLOCKS


def test_features_that_are_no_numbers_change_no_others() -> None:
    features = drifting(0)
    rows = spread_over_ages(features.steps, 200, np.random.default_rng(0))
    old, fresh = torch.from_numpy(features.old.copy()), torch.from_numpy(features.today[rows])
    old[rows[3]], old[7] = torch.nan, torch.inf
    found = as_of_today(old, features.steps, rows, fresh, CPU)
    bad = (~torch.isfinite(found).all(dim=1)).nonzero().flatten().tolist()
    assert bad == sorted({7, int(rows[3])})


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_rows_are_spread_over_ages(count: int) -> None:
    ages = np.array([5] * 10 + [1] * 5 + [9] * 5)
    rows = spread_over_ages(ages, count, np.random.default_rng(3))
    assert len(np.unique(rows)) == len(rows) == count
    assert rows.tolist() == sorted(rows.tolist())
    if count == 7:
        assert np.bincount(ages[rows], minlength=10)[[1, 5, 9]].tolist() in ([2, 3, 2], [1, 4, 2], [2, 4, 1])
