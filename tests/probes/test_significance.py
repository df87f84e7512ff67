"""Comparisons equal SciPy's tests and brute force, and say in words no more than the numbers do."""

from __future__ import annotations

import json
import tracemalloc
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.probes.significance import (
    Comparison,
    compare_all,
    compare_paired,
    holm,
    paired_bootstrap,
    paired_rmse_bootstrap,
)
from terrasieve.probes.statements import as_record, read_comparisons, sentence, write_comparisons

probabilities = st.floats(0, 1, allow_nan=False)


def compare(differences: list[float], base: float = 0.5, **options: object) -> Comparison:
    second = np.full(len(differences), base)
    return compare_paired(second + differences, second, "A", "B", "bands", **options)  # type: ignore[arg-type]  # tests


def normal(n: int, seed: int, shift: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, n), rng.normal(0, 1, n)


@given(n=st.integers(2, 40), seed=st.integers(0, 10**6), scale=st.sampled_from([1e-6, 1.0, 1e6]))
@settings(deadline=None, max_examples=60)
def test_t_test_and_its_interval_equal_scipy(n: int, seed: int, scale: float) -> None:
    a, b = (scale * values for values in normal(n, seed))
    ours, oracle = compare_paired(a, b, "A", "B", "seeds"), stats.ttest_rel(a, b)
    assert ours.t is not None
    assert (ours.t.statistic, ours.t.p) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-6)
    interval = oracle.confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9 * scale)
    assert ours.difference == pytest.approx(a.mean() - b.mean(), abs=1e-9 * scale)
    assert ours.cohens_dz == pytest.approx((a - b).mean() / (a - b).std(ddof=1), rel=1e-6)


@pytest.mark.parametrize("n", [2, 5, 6, 13, 30, 50, 51, 90])
def test_wilcoxon_without_ties_equals_scipy_on_both_sides_of_the_exact_limit(n: int) -> None:
    for seed in range(5):
        a, b = normal(n, seed)
        ours, oracle = compare_paired(a, b, "A", "B", "seeds").wilcoxon, stats.wilcoxon(a, b)
        assert ours is not None
        assert (ours.statistic, ours.p) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-9)


def test_wilcoxon_of_many_tied_values_drops_zeros_as_scipy_does() -> None:
    steps = np.random.default_rng(4).integers(-3, 5, 120) / 100
    ours, oracle = compare(steps.tolist()).wilcoxon, stats.wilcoxon(np.round(steps, 6), zero_method="wilcox")
    assert ours is not None
    assert (ours.statistic, ours.p) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-9)


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=9).filter(any))
@settings(deadline=None, max_examples=50)
def test_wilcoxon_with_ties_and_zeros_equals_all_sign_flips(steps: list[int]) -> None:
    nonzero = np.array([step for step in steps if step])
    ranks = stats.rankdata(abs(nonzero))
    observed = ranks[nonzero > 0].sum()
    sums = np.array([ranks[np.array(signs)].sum() for signs in product([False, True], repeat=len(nonzero))])
    expected = min(1.0, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))
    ours = compare([step / 100 for step in steps])
    assert ours.wilcoxon is not None
    assert ours.wilcoxon.p == pytest.approx(expected)
    assert ours.nonzero == len(nonzero)
    assert ours.rank_biserial == pytest.approx((2 * observed - ranks.sum()) / ranks.sum())


def test_differences_that_are_equal_on_paper_are_ties_and_zeros() -> None:
    assert 0.3 - 0.2 != 0.8 - 0.7
    assert compare_paired([0.3, 0.8, 0.6], [0.2, 0.7, 0.5], "A", "B", "bands").t is None
    mixed = compare_paired([0.3, 0.7, 0.1 + 0.2], [0.2, 0.8, 0.3], "A", "B", "bands")
    assert mixed.nonzero == 2
    assert mixed.wilcoxon is not None
    assert mixed.wilcoxon.statistic == 1.5
    assert mixed.difference == 0


@given(n=st.integers(1, 60), seed=st.integers(0, 10**6), decimals=st.integers(1, 9), up=st.booleans())
@settings(deadline=None, max_examples=60)
def test_swapping_the_models_flips_signs_and_keeps_p_and_the_sentence(
    n: int, seed: int, decimals: int, up: bool
) -> None:
    a, b = (values.round(decimals) for values in normal(n, seed))
    one = compare_paired(a, b, "A", "B", "bands", higher_is_better=up)
    other = compare_paired(b, a, "B", "A", "bands", higher_is_better=up)
    assert one.difference == -other.difference
    if one.t and other.t and one.wilcoxon and other.wilcoxon and one.low is not None:
        assert (one.t.p, one.wilcoxon) == (other.t.p, other.wilcoxon)
        assert (one.t.statistic, one.low) == (-other.t.statistic, -other.high)  # type: ignore[operator]  # not None with low
    if one.rank_biserial is not None:
        assert one.rank_biserial == -other.rank_biserial  # type: ignore[operator]  # not None with the first
    if one.difference:
        assert sentence(one) == sentence(other)


@given(st.lists(probabilities, min_size=1, max_size=7))
@settings(deadline=None, max_examples=100)
def test_holm_equals_closed_testing_with_bonferroni(p_values: list[float]) -> None:
    """A hypothesis is rejected where every family that holds it is, by Bonferroni: the definition Holm shortens."""
    count = len(p_values)
    families = [chosen for size in range(1, count + 1) for chosen in combinations(range(count), size)]
    expected = [
        max(min(1.0, len(family) * min(p_values[i] for i in family)) for family in families if index in family)
        for index in range(count)
    ]
    assert holm(p_values) == pytest.approx(expected)


@given(st.lists(st.none() | probabilities | st.just(float("nan")), max_size=8), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_holm_follows_permutations_and_leaves_out_missing_tests(p_values: list[float | None], random: object) -> None:
    order = list(range(len(p_values)))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    adjusted = holm(p_values)
    assert holm([p_values[i] for i in order]) == tuple(adjusted[i] for i in order)
    made = [p is not None and p == p for p in p_values]
    assert [q is not None for q in adjusted] == made
    kept = [p for p, there in zip(p_values, made, strict=True) if there]
    assert holm(kept) == tuple(q for q in adjusted if q is not None)


def test_holm_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.2, 1.5])


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_bootstrap_equals_resampling_the_samples_themselves(kind: str) -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(0.2, 1, 300), rng.normal(0, 1, 300)
    if kind == "binary":
        a, b = a > 0, b > 0.3
    ours = paired_bootstrap(a, b, resamples=6000)
    rows = rng.integers(0, 300, (6000, 300))
    slow = np.percentile(a[rows].mean(axis=1) - b[rows].mean(axis=1), [2.5, 97.5])
    assert ours.difference == pytest.approx(a.mean() - b.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(slow), abs=0.06 * (slow[1] - slow[0]))


def test_bootstrap_of_rmse_equals_resampling_the_samples_themselves() -> None:
    rng = np.random.default_rng(7)
    hard = rng.gamma(2, 1, 300)  # what is hard to predict is so for both models
    a, b = hard * rng.normal(0.1, 1, 300), hard * rng.normal(0, 1.3, 300)
    ours = paired_rmse_bootstrap(a, b, resamples=6000)
    rows = rng.integers(0, 300, (6000, 300))
    one, other = (np.sqrt(np.mean(errors[rows] ** 2, axis=1)) for errors in (a, b))
    slow = np.percentile(one - other, [2.5, 97.5])
    assert ours.difference == pytest.approx(np.sqrt(np.mean(a**2)) - np.sqrt(np.mean(b**2)))
    assert (ours.low, ours.high) == pytest.approx(tuple(slow), abs=0.06 * (slow[1] - slow[0]))
    # Twice each error is twice the RMSE, in every resample alike.
    doubled = paired_rmse_bootstrap(2 * a, 2 * b, resamples=6000)
    assert (doubled.low, doubled.high) == pytest.approx((2 * ours.low, 2 * ours.high))


def test_bootstrap_keeps_the_pairs_together() -> None:
    a = np.random.default_rng(1).normal(0, 100, 500)
    ours = paired_bootstrap(a, a - 1)
    assert (ours.low, ours.high) == pytest.approx((1, 1), abs=1e-9)


def test_bootstrap_is_seeded() -> None:
    for a, b in (normal(200, 0), (normal(200, 0)[0] > 0, normal(200, 0)[1] > 0)):
        assert paired_bootstrap(a, b, 200, seed=3) == paired_bootstrap(a, b, 200, seed=3)
        assert paired_bootstrap(a, b, 200, seed=3).low != paired_bootstrap(a, b, 200, seed=4).low


def test_bootstrap_covers_the_true_difference_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(300):
        a, b = normal(120, trial)
        interval = paired_bootstrap(a, b, resamples=400, seed=trial)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.91 <= covered / 300 <= 0.985


def test_bootstrap_memory_is_that_of_one_resample() -> None:
    a, b = normal(200_000, 0)
    tracemalloc.start()
    paired_bootstrap(a, b, resamples=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * a.nbytes


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, float("nan")], [1.0, 2.0], "finite"),
        ([1.0, 2.0], [1.0, float("inf")], "finite"),
        ([1.0, 2.0], [1.0], "as many values"),
        ([], [], "at least one"),
    ],
)
def test_unusable_values_are_refused(a: list[float], b: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_paired(a, b, "A", "B", "bands")
    for bootstrap in (paired_bootstrap, paired_rmse_bootstrap):
        with pytest.raises(ValueError, match=message):
            bootstrap(a, b)


def test_one_condition_is_no_test() -> None:
    ours = compare([0.021])
    assert (ours.t, ours.wilcoxon, ours.low, ours.cohens_dz, ours.significant) == (None, None, None, None, None)
    assert sentence(ours) == "A is above B by 2.1 points, n = 1 bands: too few for a test."
    assert sentence(compare([0.0])) == "A and B have the same mean, n = 1 bands: too few for a test."


def test_equal_models_have_p_of_one() -> None:
    ours = compare([0.0] * 5)
    assert ours.t is not None
    assert ours.wilcoxon is not None
    assert (ours.t.p, ours.wilcoxon.p, ours.cohens_dz, ours.rank_biserial, ours.significant) == (1, 1, 0, 0, False)
    assert sentence(ours) == "A and B are equal in each of 5 bands, p = 1."


def test_differences_that_are_all_equal_have_no_t_test() -> None:
    ours = compare([0.02] * 10)
    assert (ours.t, ours.low, ours.cohens_dz, ours.rank_biserial) == (None, None, None, 1.0)
    assert sentence(ours) == (
        "A is above B by 2.0 points in each of 10 bands: every difference is equal, so a t-test does not apply; "
        "p = 0.002 (Wilcoxon signed-rank)."
    )
    assert "p = 0.25 (Wilcoxon signed-rank); the Wilcoxon test needs 6 differences" in sentence(compare([0.02] * 3))


FAR = [0.01, 0.02, 0.03, 0.015, 0.025, 0.02, 0.018, 0.022, 0.03, 0.01]
NEAR = [-0.02, 0.01, 0.05]


def test_a_difference_in_words() -> None:
    assert sentence(compare(FAR)) == (
        "A is above B by 2.00 points (95 % interval 1.49 to 2.51), p < 0.001 (paired t), n = 10 bands."
    )


def test_an_error_in_words_is_better_below() -> None:
    ours = compare(FAR, unit="m", scale=1.0, higher_is_better=False)
    assert sentence(ours) == (
        "B is below A by 0.0200 m (lower is better; 95 % interval 0.0149 to 0.0251), p < 0.001 (paired t), "
        "n = 10 bands."
    )
    assert "B is below A by 0.0200 (lower" in sentence(compare(FAR, unit="", scale=1.0, higher_is_better=False))


def test_no_difference_in_words() -> None:
    assert sentence(compare(NEAR)) == (
        "A and B cannot be told apart over 3 bands: A is above B by 1.3 points (95 % interval -7.4 to 10.1), "
        "p = 0.58 (paired t); the Wilcoxon test needs 6 differences other than zero to reach 0.05 and has 3."
    )
    assert sentence(compare([-0.2, 0.1, 0.1, -0.1, -0.1, 0.1, 0.1])) == (
        "A and B cannot be told apart over 7 bands: A and B have the same mean (95 % interval -12 to 12), "
        "p = 1.00 (paired t)."
    )


def test_too_few_differences_for_wilcoxon_are_said() -> None:
    five, six = [0.01, 0.02, 0.04, 0.0, 0.05, 0.03], [0.01, 0.02, 0.04, 0.01, 0.05, 0.03]
    assert sentence(compare(five)).endswith(
        "n = 6 bands; the Wilcoxon test needs 6 differences other than zero to reach 0.05 and has 5."
    )
    assert sentence(compare(six)).endswith("n = 6 bands.")


def test_a_wilcoxon_test_that_disagrees_is_said() -> None:
    ours = compare([0.01, 0.011, 0.012, 0.013, 0.014, 0.3])
    assert sentence(ours).endswith("p = 0.27 (paired t); the Wilcoxon test disagrees, p = 0.031.")


def test_p_just_below_the_level_is_not_written_as_the_level() -> None:
    differences = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    low, high = -4.0, 0.0  # p grows with a shift downwards
    for _ in range(60):
        middle = (low + high) / 2
        ours = compare((differences + middle).tolist(), base=0.0)
        assert ours.t is not None
        low, high = (middle, high) if ours.t.p > 0.0496 else (low, middle)
    assert "p = 0.0496 (paired t), n = 7 bands" in sentence(ours)


def test_every_pair_is_compared_and_each_test_corrected_within_its_family() -> None:
    rng = np.random.default_rng(9)
    table = {name: (rng.normal(level, 0.05, 10)).tolist() for name, level in [("A", 0.8), ("B", 0.7), ("C", 0.71)]}
    made = compare_all(table, None, "bands")
    assert [(c.name_a, c.name_b) for c in made] == [("A", "B"), ("A", "C"), ("B", "C")]
    for of in ("t", "wilcoxon"):
        tests = [getattr(c, of) for c in made]
        alone = [getattr(compare_paired(table[c.name_a], table[c.name_b], "", "", ""), of) for c in made]
        assert [t.p for t in tests] == [t.p for t in alone]
        assert tuple(t.adjusted for t in tests) == holm([t.p for t in alone])
        assert {t.family for t in tests} == {3}
    assert "(paired t, Holm-corrected over 3 comparisons), n = 10 bands" in sentence(made[0])


def test_significance_is_that_of_the_corrected_p() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, (7, 8))
    table: dict[str, list[float]] = {f"m{i}": (0.5 + row).tolist() for i, row in enumerate(noise)}
    made = compare_all(table, None, "seeds")
    tests = [c.t for c in made if c.t is not None]
    assert any(t.p < 0.05 <= t.adjusted for t in tests)
    assert [c.significant for c in made] == [t.adjusted < 0.05 for t in tests]
    undone = [c for c in made if c.t is not None and c.t.p < 0.05 and c.t.adjusted >= 0.1]
    assert undone
    for c in undone:
        assert c.t is not None
        assert "cannot be told apart" in sentence(c)
        assert f"p = {c.t.adjusted:.2f} (paired t, Holm-corrected over 21 comparisons)" in sentence(c)


def test_all_against_a_reference() -> None:
    table = {"random init": [0.5, 0.6, 0.55], "A": [0.7, 0.9, 0.8], "B": [0.6, 0.7, 0.65]}
    made = compare_all(table, "random init", "bands")
    assert [(c.name_a, c.name_b) for c in made] == [("random init", "A"), ("random init", "B")]
    assert made[0].t is not None
    assert made[1].t is None  # B is above by the same in every band
    assert made[0].t.family == 1
    with pytest.raises(ConfigError, match=r"'random int'.*Did you mean 'random init'"):
        compare_all(table, "random int", "bands")


@pytest.mark.parametrize("differences", [[0.1], [0.0, 0.0], [0.1] * 4, FAR, NEAR])
def test_a_record_is_json_with_the_verdict_and_the_words(differences: list[float]) -> None:
    ours = compare(differences)
    record = json.loads(json.dumps(as_record(ours), allow_nan=False))
    assert (record["sentence"], record["significant"]) == (sentence(ours), ours.significant)
    assert record["difference"] == ours.difference
    assert (record["t"] or {}).get("p") == (ours.t.p if ours.t else None)


def test_comparisons_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    few = compare_paired([0.5], [0.4], "A", "B", "seeds")
    equal = compare_paired([0.5, 0.6], [0.4, 0.5], "A", "B", "seeds")
    some = compare([0.01, 0.02, -0.005, 0.03, 0.01, 0.02, 0.01])
    path = tmp_path / "comparisons.json"
    write_comparisons([few, equal, some], path)
    assert read_comparisons(path) == (few, equal, some)
    assert json.loads(path.read_text())[2]["sentence"] == sentence(some)


@pytest.mark.parametrize("text", ["{", "[1]", '[{"name_a": "A"}]', "null"])
def test_damaged_comparisons_are_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "comparisons.json"
    path.write_text(text)
    with pytest.raises(ArchiveError, match=r"comparisons\.json holds no comparisons"):
        read_comparisons(path)
