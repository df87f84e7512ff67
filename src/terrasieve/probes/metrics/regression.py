"""Errors of predicted numbers, as oceanography states them, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from terrasieve.probes.metrics.classification import RESAMPLES, SEED
from terrasieve.streams import Stream, generator

Numbers = NDArray[np.float64]


def regression_metrics(truth: Numbers, predicted: Numbers) -> dict[str, float]:
    """RMSE, MAE, bias, scatter index and R2 of predictions, each of shape ``(n,)``.

    The bias is the mean of prediction less truth. The scatter index is the standard deviation of that error,
    divided by the mean of the truth: the error that is left when the bias is taken off, relative to what is measured.
    R2 is one less the ratio of the squared errors to the squared deviations of the truth from its mean; below 0, the
    mean would have been the better prediction. A scatter index of values around 0 and R2 of constant truth are NaN.

    Raises:
        ValueError: The arrays differ in shape or are empty.
    """
    if truth.shape != predicted.shape or truth.ndim != 1 or not truth.size:
        raise ValueError(f"need as many predictions as values, at least one: got {predicted.shape} and {truth.shape}")
    means = _moments(truth, predicted).mean(axis=1)
    return {name: float(value[0]) for name, value in _from_means(means[:, None]).items()}


def regression_intervals(
    truth: Numbers, predicted: Numbers, resamples: int = RESAMPLES, seed: int = SEED
) -> Mapping[str, tuple[float, float]]:
    """Bootstrap 95 % percentile interval of every metric (Efron & Tibshirani 1993, chapter 13).

    Every metric depends on six means over the samples, so only these are resampled.

    Args:
        truth: Shape ``(n,)``.
        predicted: Shape ``(n,)``.
        resamples: Number of resamples.
        seed: Seed of the draws; the same for every probe, so that equal predictions have equal intervals.
    """
    moments, rng = _moments(truth, predicted), generator(Stream.BOOTSTRAP, seed)
    n = len(truth)
    drawn = [moments[:, rng.integers(n, size=n)].mean(axis=1) for _ in range(resamples)]
    with np.errstate(invalid="ignore", divide="ignore"):
        values = _from_means(np.stack(drawn, axis=1))
    return {name: _bounds(value) for name, value in values.items()}


def _moments(truth: Numbers, predicted: Numbers) -> Numbers:
    """Of each sample: error, its square, its size, the truth less its mean, the square of that, and the truth."""
    error, centred = predicted - truth, truth - truth.mean()
    return np.stack([error, error**2, np.abs(error), centred, centred**2, truth]).astype(np.float64)


def _from_means(means: Numbers) -> dict[str, Numbers]:
    bias, squared, absolute, centred, centred_squared, level = means
    spread = np.sqrt(np.maximum(squared - bias**2, 0))
    variance = centred_squared - centred**2
    return {
        "rmse": np.sqrt(squared),
        "mae": absolute,
        "bias": bias,
        "scatter_index": np.divide(spread, level, out=np.full_like(spread, np.nan), where=level > 0),
        "r2": 1 - np.divide(squared, variance, out=np.full_like(squared, np.nan), where=variance > 0),
    }


def _bounds(values: Numbers) -> tuple[float, float]:
    if not np.isfinite(values).any():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
