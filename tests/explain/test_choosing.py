"""The samples that are shown are what they are said to be."""

from __future__ import annotations

import numpy as np

from terrasieve.explain.subject import a_few_of_each, right_and_wrong, stratified


def test_stratified_keeps_proportions() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    drawn = stratified(labels, 100, seed=4)
    assert np.bincount(labels[drawn]).tolist() == [60, 30, 10]
    assert len(np.unique(drawn)) == 100
    assert np.array_equal(drawn, stratified(labels, 100, seed=4))
    assert not np.array_equal(drawn, stratified(labels, 100, seed=5))
    assert np.array_equal(stratified(labels, 1000, seed=4), np.arange(1000))


def test_a_few_of_each_class() -> None:
    labels = np.array([2, 0, 0, 2, 2, 0, 5])
    drawn = a_few_of_each(labels, 2, seed=0)
    assert labels[drawn].tolist() == [0, 0, 2, 2, 5]
    assert len(set(drawn.tolist())) == 5


def test_right_ones_then_the_most_confidently_wrong() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    predicted = np.array([0, 1, 1, 1, 0, 1, 1, 1])
    confidence = np.array([0.9, 0.6, 0.99, 0.7, 0.5, 0.9, 0.9, 0.9])
    chosen = right_and_wrong(labels, predicted, confidence, 2, seed=0)
    assert sorted(chosen[:2].tolist()) == [0, 4]
    assert chosen[2:4].tolist() == [2, 3]
    assert labels[chosen[4:]].tolist() == predicted[chosen[4:]].tolist() == [1, 1]
