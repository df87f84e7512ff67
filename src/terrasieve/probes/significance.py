"""Is one model better than another: paired bootstrap, and paired tests with Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from terrasieve.console import track
from terrasieve.errors import ConfigError, nearest
from terrasieve.probes.metrics import RESAMPLES, SEED
from terrasieve.streams import Stream, generator

ALPHA = 0.05
"""A (corrected) p value below this counts as a difference."""

_EXACT_UP_TO = 50
_FEW_VALUES = 100
_DRAWS_AT_ONCE = 2**17
_SLOW_DRAWS = 10**8


@dataclass(frozen=True)
class Difference:
    """Difference of two models with its bootstrap 95 % percentile interval, in the unit of their scores."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """A two-sided test of paired values.

    Attributes:
        statistic: t, or the smaller of the two Wilcoxon rank sums.
        p: p value of this test alone.
        adjusted: p value after Holm's correction over the family; ``p`` for a comparison by itself.
        family: Number of tests in the family.
    """

    statistic: float
    p: float
    adjusted: float
    family: int = 1


@dataclass(frozen=True)
class Comparison:
    """Two models over the same conditions; all values are in the metric's own unit, not yet scaled.

    Attributes:
        name_a: Name of the first model.
        name_b: Name of the second model.
        over: What the conditions are, in the plural: ``bands``, ``seeds``.
        n: Number of conditions that both models were measured on.
        nonzero: Number of conditions in which the models differ; the Wilcoxon test uses these only.
        mean_a: Mean of the first model.
        mean_b: Mean of the second model.
        difference: Mean of a - b.
        low: Lower bound of the 95 % t-interval of the difference; None with fewer than two or equal differences.
        high: Upper bound of the same.
        t: Paired t-test; None with fewer than two differences, or where all are equal but not zero, so that t is
            infinite.
        wilcoxon: Wilcoxon signed-rank test; None with fewer than two differences.
        cohens_dz: Mean over standard deviation of the differences (Cohen 1988, section 2.3.5); 0 where all are zero,
            None with fewer than two or equal differences.
        rank_biserial: Matched-pairs rank-biserial correlation from -1 to 1: rank sum in favour of a minus that in
            favour of b, over their total (Kerby 2014); 0 where all are zero, None with fewer than two differences.
        unit: Unit that sentences write.
        scale: Factor from the metric's own unit to that one; 100 from a share to points.
        higher_is_better: Whether larger values are better, as of an accuracy and not of an error.
    """

    name_a: str
    name_b: str
    over: str
    n: int
    nonzero: int
    mean_a: float
    mean_b: float
    difference: float
    low: float | None
    high: float | None
    t: PairedTest | None
    wilcoxon: PairedTest | None
    cohens_dz: float | None
    rank_biserial: float | None
    unit: str
    scale: float
    higher_is_better: bool

    @property
    def significant(self) -> bool | None:
        """Whether the t-test, or Wilcoxon where there is no t-test, finds a difference; None without any test."""
        test = self.t or self.wilcoxon
        return None if test is None else test.adjusted < ALPHA


def paired_bootstrap(a: ArrayLike, b: ArrayLike, resamples: int = RESAMPLES, seed: int = SEED) -> Difference:
    """Difference of the means of two models on the same test samples (Efron & Tibshirani 1993, chapter 13).

    Samples are drawn with replacement, each with the scores of both models; memory does not grow with the number
    of resamples. With a single sample the interval has no width.

    Args:
        a: Score of each sample under the first model, such as 0/1 for wrong/correct, shape ``(n,)``.
        b: Score of each sample under the second model, shape ``(n,)``.
        resamples: Number of resamples, 1 or more.
        seed: Seed of the draws.

    Raises:
        ValueError: The scores differ in shape, are empty or not finite, or there is no resample.
    """
    left, right = _pairs(a, b)
    gain = left - right
    rng = _draws_of(resamples, seed)
    values, counts = np.unique(gain, return_counts=True)
    if len(values) <= _FEW_VALUES:  # the mean depends only on how often each value is drawn
        means = rng.multinomial(len(gain), counts / len(gain), size=resamples) @ values / len(gain)
    else:
        means = _resampled_means(gain, resamples, rng)
    return _with_interval(float(gain.mean()), means)


def paired_rmse_bootstrap(a: ArrayLike, b: ArrayLike, resamples: int = RESAMPLES, seed: int = SEED) -> Difference:
    """Difference of the root mean square errors of two models on the same test samples, as :func:`paired_bootstrap`.

    Args:
        a: Error of each sample under the first model, of either sign, shape ``(n,)``.
        b: Error of each sample under the second model, shape ``(n,)``.
        resamples: Number of resamples, 1 or more.
        seed: Seed of the draws.

    Raises:
        ValueError: The errors differ in shape, are empty or not finite, or there is no resample.
    """
    squares = np.stack(_pairs(a, b), axis=1) ** 2
    means = _resampled_means(squares, resamples, _draws_of(resamples, seed))
    ours, theirs = np.sqrt(squares.mean(axis=0))
    return _with_interval(float(ours - theirs), np.subtract(*np.sqrt(means).T))


def compare_paired(
    a: ArrayLike,
    b: ArrayLike,
    name_a: str,
    name_b: str,
    over: str,
    unit: str = "points",
    scale: float = 100.0,
    higher_is_better: bool = True,
) -> Comparison:
    """Compare two models over the same conditions by the paired t-test and the Wilcoxon signed-rank test, two-sided.

    The Wilcoxon test drops differences of zero (SciPy's ``zero_method="wilcox"``), gives ties their mean rank, is
    exact up to 50 differences, ties included, and otherwise uses the normal approximation with tie correction.

    Args:
        a: Value of the first model in each condition, shape ``(n,)``.
        b: Value of the second model in the same conditions, shape ``(n,)``.
        name_a: Name of the first model.
        name_b: Name of the second model.
        over: What the conditions are, in the plural: ``bands``, ``seeds``.
        unit: Unit that sentences write.
        scale: Factor from the unit of the values to ``unit``.
        higher_is_better: Whether larger values are better, as of an accuracy and not of an error.

    Raises:
        ValueError: The values differ in shape, are empty or not finite.
    """
    left, right = _pairs(a, b)
    differences = _differences(left, right)
    testable, varies = len(differences) > 1, bool(np.ptp(differences) > 0)
    zero = not differences.any()
    t, low, high = _t_test(differences) if testable and (varies or zero) else (None, None, None)
    wilcoxon, rank_biserial = _wilcoxon(differences) if testable else (None, None)
    return Comparison(
        name_a,
        name_b,
        over,
        n=len(differences),
        nonzero=int(np.count_nonzero(differences)),
        mean_a=float(left.mean()),
        mean_b=float(right.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        t=t,
        wilcoxon=wilcoxon,
        cohens_dz=None if t is None else t.statistic / math.sqrt(len(differences)),
        rank_biserial=rank_biserial,
        unit=unit,
        scale=scale,
        higher_is_better=higher_is_better,
    )


def compare_all(
    table: Mapping[str, Sequence[float]],
    reference: str | None,
    over: str,
    unit: str = "points",
    scale: float = 100.0,
    higher_is_better: bool = True,
) -> tuple[Comparison, ...]:
    """Compare every pair of models, or each with a reference; each test is Holm-corrected within this family.

    Args:
        table: Values of each model over the same conditions in the same order.
        reference: The model that all others are compared with, as the first of each pair; None for every pair.
        over: What the conditions are, in the plural: ``bands``, ``seeds``.
        unit: Unit that sentences write.
        scale: Factor from the unit of the values to ``unit``.
        higher_is_better: Whether larger values are better, as of an accuracy and not of an error.

    Raises:
        ConfigError: The reference is not among the models.
        ValueError: The values differ in number, are empty or not finite.
    """
    if reference is not None and reference not in table:
        raise ConfigError(f"There is no model {reference!r} to compare the others with.{nearest(reference, table)}")
    pairs: Iterable[tuple[str, str]] = combinations(table, 2)
    if reference is not None:
        pairs = [(reference, name) for name in table if name != reference]
    alone = [
        compare_paired(table[one], table[other], one, other, over, unit, scale, higher_is_better)
        for one, other in pairs
    ]
    tests = zip(_corrected([c.t for c in alone]), _corrected([c.wilcoxon for c in alone]), strict=True)
    return tuple(replace(c, t=t, wilcoxon=wilcoxon) for c, (t, wilcoxon) in zip(alone, tests, strict=True))


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Adjust the p values of a family by the step-down procedure of Holm (1979).

    The i-th smallest of m becomes ``max over j <= i of min(1, (m - j + 1) p_j)``; rejecting what is then below a
    level holds the chance of any false rejection below that level, however the tests depend on each other.

    Args:
        p_values: From 0 to 1; None or NaN stands for a test that was not made and does not count.

    Returns:
        Adjusted values in the order given, None for tests that were not made.

    Raises:
        ValueError: A value is outside 0 to 1.
    """
    made = {index: p for index, p in enumerate(p_values) if p is not None and not math.isnan(p)}
    if not all(0 <= p <= 1 for p in made.values()):
        raise ValueError(f"p values lie from 0 to 1: got {list(made.values())}")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(made, key=made.__getitem__)):
        largest = max(largest, min(1.0, (len(made) - rank) * made[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or not left.size:
        raise ValueError(f"need as many values of one model as of the other, at least one: {left.shape}, {right.shape}")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("values to compare must be finite: leave out the conditions that one model lacks")
    return left, right


def _draws_of(resamples: int, seed: int) -> np.random.Generator:
    if resamples < 1:
        raise ValueError(f"need at least one resample: got {resamples}")
    return generator(Stream.BOOTSTRAP, seed)


def _with_interval(difference: float, resampled: NDArray[np.float64]) -> Difference:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Difference(difference, float(low), float(high))


def _resampled_means(values: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Mean over the first axis of each resample, shape ``(resamples, ...)``."""
    n = len(values)
    rows = max(1, _DRAWS_AT_ONCE // n)
    sizes: Iterable[int] = [min(rows, resamples - done) for done in range(0, resamples, rows)]
    if n * resamples > _SLOW_DRAWS:
        sizes = track(sizes, "Bootstrap", total=math.ceil(resamples / rows))
    return np.concatenate([values[rng.integers(n, size=(size, n))].mean(axis=1) for size in sizes])


def _differences(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    # 0.81 - 0.80 and 0.71 - 0.70 differ in their last bits; without rounding they would not be ties.
    largest = float(max(np.abs(left).max(), np.abs(right).max()))
    if not largest:
        return np.zeros(left.shape)
    decade = 10.0 ** math.ceil(math.log10(largest))
    return np.asarray(np.round((left - right) / decade, 12) * decade, dtype=np.float64)


def _t_test(differences: NDArray[np.float64]) -> tuple[PairedTest, float | None, float | None]:
    if not differences.any():
        return PairedTest(0.0, 1.0, 1.0), None, None
    result = stats.ttest_1samp(differences, 0.0)
    interval = result.confidence_interval(0.95)
    p = float(result.pvalue)
    return PairedTest(float(result.statistic), p, p), float(interval.low), float(interval.high)


def _wilcoxon(differences: NDArray[np.float64]) -> tuple[PairedTest, float]:
    nonzero = differences[differences != 0]
    if not nonzero.size:
        return PairedTest(0.0, 1.0, 1.0), 0.0
    ranks = stats.rankdata(np.abs(nonzero))
    for_a, for_b = float(ranks[nonzero > 0].sum()), float(ranks[nonzero < 0].sum())
    smaller = min(for_a, for_b)
    if len(nonzero) <= _EXACT_UP_TO:
        p = _exact_p(ranks, smaller)
    else:
        p = float(stats.wilcoxon(nonzero, zero_method="wilcox", correction=False).pvalue)
    return PairedTest(smaller, p, p), (for_a - for_b) / (for_a + for_b)


def _exact_p(ranks: NDArray[np.float64], smaller: float) -> float:
    # SciPy's exact distribution knows no ties, and its permutation test of 13 tied differences takes seconds.
    # Each rank is added with chance 1/2; mean ranks are multiples of 1/2, so twice the sum is a whole number.
    chance = np.ones(1)
    for double in np.rint(2 * ranks).astype(int):
        without, added = np.pad(chance, (0, double)), np.pad(chance, (double, 0))
        chance = (without + added) / 2
    return min(1.0, 2 * float(chance[: round(2 * smaller) + 1].sum()))


def _corrected(tests: Sequence[PairedTest | None]) -> list[PairedTest | None]:
    # A test left out because t is infinite has p = 0; Holm gives the others the same values with or without it.
    made = [test for test in tests if test is not None]
    adjusted = holm([None if test is None else test.p for test in tests])
    return [
        None if test is None or p is None else replace(test, adjusted=p, family=len(made))
        for test, p in zip(tests, adjusted, strict=True)
    ]
