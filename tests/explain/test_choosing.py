"""The samples that are shown are what they are said to be."""

from __future__ import annotations

import numpy as np

from terrasieve.explain.subject import right_and_wrong


def test_right_ones_then_the_most_confidently_wrong() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    predicted = np.array([0, 1, 1, 1, 0, 1, 1, 1])
    confidence = np.array([0.9, 0.6, 0.99, 0.7, 0.5, 0.9, 0.9, 0.9])
    chosen = right_and_wrong(labels, predicted, confidence, 2, seed=0)
    assert sorted(chosen[:2].tolist()) == [0, 4]
    assert chosen[2:4].tolist() == [2, 3]
    assert labels[chosen[4:]].tolist() == predicted[chosen[4:]].tolist() == [1, 1]
