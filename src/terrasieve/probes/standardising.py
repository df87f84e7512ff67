"""Standardise vectors by the train split, some rows at a time: in float64 there are never more of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from terrasieve.probes.probe import Features

ROWS_AT_ONCE = 2048
"""Vectors that are held in float64 at once; or features, where all vectors are but some features of each."""


def fit_scaler(features: Features) -> StandardScaler:
    """Mean and standard deviation of each feature, measured in float64.

    Args:
        features: Vectors of the train split, shape ``(n, features)``.
    """
    scaler = StandardScaler()
    for rows in chunks(len(features)):
        scaler.partial_fit(features[rows].astype(np.float64))
    return scaler


def standardise_chunks(scaler: StandardScaler, features: Features) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Standardised vectors in float64, of so many rows at a time, with where these rows are.

    Args:
        scaler: Of the train split, from :func:`fit_scaler`.
        features: Vectors, shape ``(n, features)``.
    """
    for rows in chunks(len(features)):
        yield rows, scaler.transform(features[rows].astype(np.float64))


def standardise(scaler: StandardScaler, features: Features) -> NDArray[np.float32]:
    """Standardised vectors in float32, shape ``(n, features)``.

    Args:
        scaler: Of the train split, from :func:`fit_scaler`.
        features: Vectors, shape ``(n, features)``.
    """
    scaled = np.empty(features.shape, dtype=np.float32)
    for rows, part in standardise_chunks(scaler, features):
        scaled[rows] = part
    return scaled


def chunks(count: int) -> Iterator[slice]:
    """Slices of :data:`ROWS_AT_ONCE` that cover so many rows; the last may have fewer."""
    return (slice(first, first + ROWS_AT_ONCE) for first in range(0, count, ROWS_AT_ONCE))
