"""A band that is not used loses nothing; the band that carries a class loses it."""

from __future__ import annotations

import numpy as np
import pytest

from terrasieve.explain.attribution import permutation_importance, recalls


def content(n: int = 600, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Band 0 holds the class as a constant image, band 1 noise, band 2 whether the class is 3."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    values = np.stack([labels, rng.normal(size=n), labels == 3], axis=1)
    return np.broadcast_to(values[:, :, None, None], (n, 3, 2, 2)).astype(np.float32), labels


def by_first(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, 0].mean(axis=(1, 2)).round().astype(np.int64)


def test_the_carrier_loses_all_but_chance_and_the_others_nothing() -> None:
    pixels, labels = content()
    found = permutation_importance(by_first, pixels, labels, 4, repeats=20, seed=0)
    assert found.loss.shape == found.deviation.shape == (4, 3)
    assert found.loss[:, 0] == pytest.approx(np.full(4, 0.75), abs=4 * 0.04 / np.sqrt(20))
    assert (found.loss[:, 1:] == 0).all()
    assert (found.deviation[:, 1:] == 0).all()
    assert (found.deviation[:, 0] > 0).all()


def test_only_the_class_that_a_band_carries_is_lost() -> None:
    pixels, labels = content()

    def predict(shown: np.ndarray) -> np.ndarray:
        return np.where(shown[:, 2, 0, 0] > 0.5, 3, by_first(shown) % 3)

    found = permutation_importance(predict, pixels, labels, 4, repeats=5, seed=1)
    assert found.loss[3, 2] == pytest.approx(0.75, abs=0.1)
    assert found.loss[3, 0] == 0
    assert found.loss[1, 0] == pytest.approx(1 - 1 / 4, abs=0.1)


def test_whole_contents_move_between_samples_and_nothing_else() -> None:
    pixels, labels = content(40)
    pixels = pixels + np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2) / 100
    kept, seen = pixels.copy(), []

    def predict(shown: np.ndarray) -> np.ndarray:
        seen.append(shown.copy())
        return by_first(shown)

    permutation_importance(predict, pixels, labels, 4, repeats=2, seed=3)
    assert np.array_equal(pixels, kept)
    assert len(seen) == 1 + 2 * 3
    for run, shown in enumerate(seen[1:]):
        band = run % 3
        others = [one for one in range(3) if one != band]
        assert np.array_equal(shown[:, others], kept[:, others])
        assert not np.array_equal(shown[:, band], kept[:, band])
        order = [np.lexsort(one[:, band].reshape(40, 4).T) for one in (shown, kept)]
        assert np.array_equal(shown[order[0], band], kept[order[1], band])


def test_same_seed_same_numbers() -> None:
    pixels, labels = content(80)
    first, again, other = (permutation_importance(by_first, pixels, labels, 4, 3, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.loss, again.loss)
    assert not np.array_equal(first.loss, other.loss)


def test_recall_of_each_class_and_of_one_without_samples() -> None:
    labels, predicted = np.array([0, 0, 0, 0, 2, 2]), np.array([0, 0, 0, 1, 2, 0])
    assert recalls(labels, predicted, 4) == pytest.approx([0.75, np.nan, 0.5, np.nan], nan_ok=True)
