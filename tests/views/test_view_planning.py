"""Recipes, band policies and plans: what is drawn, from what, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from terrasieve.errors import BandError
from terrasieve.sensors import SENSORS
from terrasieve.views.plan import ViewPlan, ViewPlanner, draw_boxes
from terrasieve.views.recipe import Augmentation, BandPick, OneOf, Pick, ViewRecipe, ViewSpec

SENSORS_HERE = {"s2": SENSORS["s2-l2a"], "s1": SENSORS["s1"]}
SHAPES = np.full((64, 2), 48)
ARRAYS = ("shapes", "channels", "windows", "flips", "turns", "sigmas", "angles", "grey", "boxes", "times")


def view(*picks: Pick, name: str = "one", size: int = 16, count: int = 1, **augmentation: Any) -> ViewSpec:
    return ViewSpec(name=name, picks=picks, size=size, count=count, augmentation=Augmentation(**augmentation))


def optical(count: int = 1, bands: str | tuple[str, ...] = "rs-byol") -> BandPick:
    return BandPick(sensor="optical", bands=bands, count=count)


def planner(*views: ViewSpec, distinct: bool = False, seed: int = 0) -> ViewPlanner:
    return ViewPlanner(ViewRecipe(branches=views, distinct_bands=distinct), SENSORS_HERE, seed)


def bands_shown(one: ViewPlanner, shapes: np.ndarray = SHAPES, step: int = 0) -> list[np.ndarray]:
    """Of each view the names ``(n, c)`` of the bands."""
    return [
        np.array([f"{key}:{band}" for key, band in channels])[plan.channels]
        for plan, channels in zip(one.plan(step, shapes), one.channels, strict=True)
    ]


def same(first: ViewPlan, second: ViewPlan) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ARRAYS)


# ------------------------------------------------------------------------- bands


def test_drawn_bands_are_distinct_and_every_band_and_pair_is_as_likely() -> None:
    (shown,) = bands_shown(planner(view(optical(2))), np.full((9000, 2), 8))
    assert (shown[:, 0] != shown[:, 1]).all()
    pairs, counts = np.unique([f"{a} {b}" for a, b in shown], return_counts=True)
    assert len(pairs) == 90
    assert stats.chisquare(counts).pvalue > 0.001


def test_two_optical_views_of_a_sample_never_show_the_same_band() -> None:
    views = (view(optical(), name="first"), view(optical(), name="second"))
    first, second = bands_shown(planner(*views, distinct=True), np.full((4500, 2), 8))
    assert (first != second).all()
    _, counts = np.unique(np.char.add(first, second), return_counts=True)
    assert len(counts) == 90
    assert stats.chisquare(counts).pvalue > 0.001
    first, second = bands_shown(planner(*views, distinct=False), np.full((4500, 2), 8))
    assert 0.05 < (first == second).mean() < 0.15


def test_all_bands_of_a_set_keep_the_order_of_the_set() -> None:
    (shown,) = bands_shown(planner(view(optical(3, "rgb"))))
    assert (shown == ["s2:B04", "s2:B03", "s2:B02"]).all()


def test_fill_shows_both_polarisations_and_a_random_copy_of_one() -> None:
    (shown,) = bands_shown(planner(view(BandPick(sensor="radar", count=3, fill=True))), np.full((2000, 2), 8))
    assert (shown[:, :2] == ["s1:VV", "s1:VH"]).all()
    assert 0.45 < (shown[:, 2] == "s1:VV").mean() < 0.55


def test_picks_of_several_sensors_are_stacked_in_order() -> None:
    mixed = view(BandPick(sensor="radar"), optical(2, "rs-byol-non-rgb"))
    (shown,) = bands_shown(planner(mixed), np.full((500, 2), 8))
    assert set(shown[:, 0]) == {"s1:VV", "s1:VH"}
    assert set(shown[:, 1:].ravel()) == {f"s2:{band}" for band in SENSORS["s2-l2a"].sets["rs-byol-non-rgb"]}


def test_overlapping_picks_of_one_view_share_no_band() -> None:
    (shown,) = bands_shown(planner(view(optical(1), optical(3, "rgb"))), np.full((500, 2), 8))
    assert (shown[:, 1:] == ["s2:B04", "s2:B03", "s2:B02"]).all()
    assert not np.isin(shown[:, 0], shown[0, 1:]).any()


@pytest.mark.parametrize(
    ("views", "distinct", "message"),
    [
        ([view(BandPick(sensor="radar", count=3))], False, r"s1:VV, s1:VH, which are only 2.*fill"),
        ([view(BandPick(sensor="optcal"))], False, "optcal"),
        ([view(optical(1, "rs-biol"))], False, "Did you mean 'rs-byol'"),
        ([view(optical(1, ("B04", "B99")))], False, "B99"),
        ([view(optical(1, ()))], False, "empty"),
        ([view(optical(2, "rgb"), name="a"), view(optical(2, "rgb"), name="b")], True, "distinct_bands to false"),
        ([view(optical(3, "rgb"), optical(1, "rgb"))], False, "may leave only"),
        ([view(optical(), count=11)], True, "may leave only 0"),
    ],
)
def test_what_cannot_be_shown_is_an_error_when_the_planner_is_built(
    views: list[ViewSpec], distinct: bool, message: str
) -> None:
    with pytest.raises(BandError, match=message):
        planner(*views, distinct=distinct)


def test_a_sensor_that_holds_a_part_of_its_bands_offers_only_those() -> None:
    sensors = {"s2": SENSORS["s2-l2a"].select("B04", "B03", "B02")}
    recipe = ViewRecipe(branches=(view(optical(2, "rgb")),))
    assert ViewPlanner(recipe, sensors, 0).channels == ((("s2", "B04"), ("s2", "B03"), ("s2", "B02")),)
    with pytest.raises(BandError, match="rs-byol"):
        ViewPlanner(ViewRecipe(branches=(view(optical()),)), sensors, 0)


# ------------------------------------------------------------- one of several sensors


def either(count: int = 1, weights: tuple[float, ...] | None = None) -> OneOf:
    return OneOf(one_of=(optical(count), BandPick(sensor="radar", count=count, fill=True)), weights=weights)


@pytest.mark.parametrize(("weights", "share"), [(None, 0.5), ((3.0, 1.0), 0.75), ((0.1, 0.9), 0.1)])
def test_sensors_are_drawn_in_the_shares_stated_and_their_bands_evenly(
    weights: tuple[float, ...] | None, share: float
) -> None:
    (shown,) = bands_shown(planner(view(either(weights=weights))), np.full((20_000, 2), 8))
    from_optical = np.char.startswith(shown[:, 0], "s2:")
    assert stats.binomtest(int(from_optical.sum()), 20_000, share).pvalue > 0.001
    for of_one, bands in ((shown[from_optical], 10), (shown[~from_optical], 2)):
        _, counts = np.unique(of_one, return_counts=True)
        assert len(counts) == bands
        assert stats.chisquare(counts).pvalue > 0.001


def test_all_bands_of_a_drawn_pick_are_of_its_sensor() -> None:
    (shown,) = bands_shown(planner(view(either(3))), np.full((500, 2), 8))
    radar = np.char.startswith(shown, "s1:")
    assert (radar.all(axis=1) | ~radar.any(axis=1)).all()
    assert 0.4 < radar[:, 0].mean() < 0.6
    assert (shown[radar[:, 0], :2] == ["s1:VV", "s1:VH"]).all()
    assert all(len(set(row)) == 3 for row in shown[~radar[:, 0]])


def test_each_view_draws_its_own_sensor() -> None:
    first, second = bands_shown(planner(view(either(), count=2)), np.full((4000, 2), 8))
    both = [f"{a[:2]} {b[:2]}" for a, b in zip(first[:, 0], second[:, 0], strict=True)]
    assert stats.chisquare(np.unique(both, return_counts=True)[1]).pvalue > 0.001


@given(seed=st.integers(0, 2**32), weights=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), distinct=st.booleans())
@settings(max_examples=30, deadline=None)
def test_no_band_is_shown_twice_where_sensors_are_drawn(
    seed: int, weights: tuple[float, float], distinct: bool
) -> None:
    pair = OneOf(one_of=(optical(2, "rgb"), BandPick(sensor="radar", count=2)), weights=weights)
    views = (view(pair, optical(1), name="a"), view(optical(3), name="b"))
    one = planner(*views, distinct=distinct, seed=seed)
    first, second = bands_shown(one)
    again = bands_shown(planner(*views, distinct=distinct, seed=seed))
    assert np.array_equal(first, again[0])
    assert np.array_equal(second, again[1])
    for row, other in zip(first, second, strict=True):
        assert len({*row}) == 3
        assert len({*other}) == 3
        assert not distinct or len({*row, *other}) == 6


def test_drawing_a_sensor_leaves_crops_and_augmentation_as_they_were() -> None:
    (plain,), (drawn,) = planner(view(optical())).plan(3, SHAPES), planner(view(either())).plan(3, SHAPES)
    assert {name for name in ARRAYS if not np.array_equal(getattr(plain, name), getattr(drawn, name))} == {"channels"}


@pytest.mark.parametrize(
    ("picks", "message"),
    [
        ((OneOf(one_of=(optical(), BandPick(sensor="radar", bands="HH"))),), "HH"),
        ((OneOf(one_of=(optical(3), BandPick(sensor="radar", count=3))),), "only 2.*fill"),
        ((OneOf(one_of=(optical(2, "rgb"), BandPick(sensor="radar", count=2))), optical(2, "rgb")), "may leave only 1"),
    ],
)
def test_every_sensor_that_may_be_drawn_has_to_do(picks: tuple[Pick, ...], message: str) -> None:
    with pytest.raises(BandError, match=message):
        planner(view(*picks))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"one_of": (optical(),)}, "two or more"),
        ({"one_of": (optical(1), optical(2))}, "counts 1, 2; give all the same"),
        ({"one_of": (optical(), optical()), "weights": (1.0,)}, "2 picks, but 1 weights"),
        ({"one_of": (optical(), optical()), "weights": (1.0, 0.0)}, "weights"),
        ({"one_of": (optical(), optical()), "weights": (1.0, float("inf"))}, "weights"),
    ],
)
def test_draws_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OneOf(**wrong)


# --------------------------------------------------------------------------- times


def test_a_time_is_drawn_for_each_sample_and_view_and_moves_nothing_else() -> None:
    timed = view(optical(), count=2).model_copy(update={"time": "other"})
    still, moving = planner(view(optical(), count=2)).plan(5, SHAPES), planner(timed).plan(5, SHAPES)
    for before, after in zip(still, moving, strict=True):
        assert {name for name in ARRAYS if not np.array_equal(getattr(before, name), getattr(after, name))} == {"times"}
        assert not before.times.any()
    assert (moving[0].times != moving[1].times).all()
    assert (moving[0].times != planner(timed).plan(6, SHAPES)[0].times).all()
    (many, _) = planner(timed).plan(0, np.full((4000, 2), 48))
    assert stats.kstest(many.times, "uniform").pvalue > 0.001


# ----------------------------------------------------------------- pure function


@given(order=st.permutations(range(4)), seed=st.integers(0, 2**63))
@settings(max_examples=20, deadline=None)
def test_a_plan_depends_on_seed_and_step_alone(order: list[int], seed: int) -> None:
    views = (view(optical(2), name="a", grey=0, rotation=0.5), view(BandPick(sensor="radar"), name="b", count=2))
    once = planner(*views, seed=seed)
    drawn = {step: once.plan(step, SHAPES) for step in order}
    for step, plans in drawn.items():
        again = planner(*views, seed=seed).plan(step, SHAPES)
        assert len(plans) == 3
        assert all(same(a, b) for a, b in zip(plans, again, strict=True))


def test_seeds_steps_and_views_draw_differently() -> None:
    twice = view(optical(), count=2)
    first, second = planner(twice).plan(0, SHAPES)
    others = [second, planner(twice).plan(1, SHAPES)[0], planner(twice, seed=1).plan(0, SHAPES)[0]]
    for other in others:
        assert (first.windows != other.windows).any(axis=1).mean() > 0.9
        assert (first.channels != other.channels).any()


def test_a_slice_of_a_plan_is_what_a_rank_plans_without_the_shapes_of_others() -> None:
    shapes = np.random.default_rng(0).integers(20, 60, (64, 2))
    one = planner(view(optical(3), rotation=0.5, grey=0.5, erase=0.5, blur=0.5))
    (whole,) = one.plan(7, shapes)
    unknown = np.full_like(shapes, 33)
    unknown[16:32] = shapes[16:32]
    (own,) = one.plan(7, unknown)
    assert len(own[16:32]) == 16
    assert same(whole[16:32], own[16:32])
    assert whole[16:32].size == whole.size
    assert whole[16:32].kernel == whole.kernel


# ---------------------------------------------------------------------- rectangles


@st.composite
def ranges(draw: st.DrawFn, low: float, high: float) -> tuple[float, float]:
    first, second = sorted([draw(st.floats(low, high)), draw(st.floats(low, high))])
    return first, second


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    area=ranges(0.001, 1.0),
    ratio=ranges(0.1, 10.0),
    seed=st.integers(0, 999),
)
@settings(max_examples=200, deadline=None)
def test_rectangles_lie_inside_and_their_area_is_in_range_up_to_rounding(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], seed: int
) -> None:
    shapes = np.tile([[height, width]], (50, 1))
    top, left, rows, columns = draw_boxes(np.random.default_rng(seed), shapes, area, ratio).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (rows >= 1).all()
    assert (columns >= 1).all()
    assert (top + rows <= height).all()
    assert (left + columns <= width).all()
    # Rounding moves each side by at most half a pixel, except up to the single pixel that is always left.
    low, high = area[0] * height * width, area[1] * height * width
    assert ((rows + 0.5) * (columns + 0.5) >= low - 1e-6).all()
    single = (rows == 1) | (columns == 1)
    assert (((rows - 0.5) * (columns - 0.5) <= high + 1e-6) | single).all()


def test_area_is_uniform_and_ratio_log_uniform_where_all_fits() -> None:
    shapes = np.full((4000, 2), 10_000)
    box = draw_boxes(np.random.default_rng(0), shapes, (0.1, 0.4), (0.5, 2.0))
    area, ratio = box[:, 2] * box[:, 3] / 1e8, box[:, 3] / box[:, 2]
    assert stats.kstest(area, stats.uniform(0.1, 0.3).cdf).pvalue > 0.001
    assert stats.kstest(np.log2(ratio), stats.uniform(-1, 2).cdf).pvalue > 0.001
    assert stats.kstest(box[:, 0] / (10_000 - box[:, 2]), "uniform").pvalue > 0.001
    assert stats.kstest(box[:, 1] / (10_000 - box[:, 3]), "uniform").pvalue > 0.001


def test_area_stays_uniform_where_many_ratios_do_not_fit() -> None:
    shapes = np.full((4000, 2), 10_000)
    box = draw_boxes(np.random.default_rng(0), shapes, (0.2, 1.0), (0.5, 2.0))
    assert stats.kstest(box[:, 2] * box[:, 3] / 1e8, stats.uniform(0.2, 0.8).cdf).pvalue > 0.001


# ------------------------------------------------------------------------ settings


def plan(samples: int = 2000, size: int = 40, count: int = 1, **augmentation: Any) -> ViewPlan:
    views = view(optical(3, "rgb"), size=size, count=count, **augmentation)
    return planner(views).plan(0, np.full((samples, 2), 64))[0]


@pytest.mark.parametrize(
    ("setting", "happens"),
    [
        ("vertical_flip", lambda p: p.flips[:, 0]),
        ("horizontal_flip", lambda p: p.flips[:, 1]),
        ("blur", lambda p: p.sigmas > 0),
        ("rotation", lambda p: p.angles != 0),
        ("grey", lambda p: p.grey),
        ("erase", lambda p: p.boxes[:, 2] > 0),
    ],
)
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_each_happens_as_often_as_set(setting: str, happens: Any, probability: float) -> None:
    assert happens(plan(**{setting: probability})).mean() == pytest.approx(
        probability, abs=0.03 * (0 < probability < 1)
    )


def test_quarter_turns_are_evenly_spread_and_as_often_as_set() -> None:
    assert not plan(quarter_turn=0).turns.any()
    assert stats.chisquare(np.bincount(plan(quarter_turn=1).turns)).pvalue > 0.001
    half = np.bincount(plan(quarter_turn=0.5).turns) / 2000
    assert half == pytest.approx([0.625, 0.125, 0.125, 0.125], abs=0.03)


def test_ranges_are_kept_and_used() -> None:
    drawn = plan(blur=1, blur_sigma=(0.5, 1.5), rotation=1, rotation_degrees=20, erase=1, erase_area=(0.1, 0.3))
    assert stats.kstest(drawn.sigmas, stats.uniform(0.5, 1.0).cdf).pvalue > 0.001
    assert stats.kstest(drawn.angles, stats.uniform(-20, 40).cdf).pvalue > 0.001
    share = drawn.boxes[:, 2] * drawn.boxes[:, 3] / 40**2
    assert 0.09 < share.min() < 0.12
    assert 0.28 < share.max() < 0.32
    tall = plan(erase=1, erase_area=(0.1, 0.1), erase_ratio=(0.25, 0.26)).boxes
    assert (tall[:, 2] > 3 * tall[:, 3]).all()
    wide = plan(crop_scale=(0.1, 0.1), crop_ratio=(3.9, 4.0)).windows
    assert (wide[:, 3] > 3 * wide[:, 2]).all()
    assert (plan(crop_scale=(1, 1)).windows == [0, 0, 64, 64]).all()


@pytest.mark.parametrize(
    ("setting", "value", "touched"),
    [
        ("crop_scale", (0.5, 0.6), {"windows"}),
        ("crop_ratio", (0.5, 0.6), {"windows"}),
        ("horizontal_flip", 0.1, {"flips"}),
        ("vertical_flip", 0.1, {"flips"}),
        ("quarter_turn", 0.1, {"turns"}),
        ("blur", 0.9, {"sigmas"}),
        ("blur_sigma", (3.0, 4.0), {"sigmas"}),
        ("rotation", 0.9, {"angles"}),
        ("rotation_degrees", 5.0, {"angles"}),
        ("grey", 0.9, {"grey"}),
        ("erase", 0.9, {"boxes"}),
        ("erase_area", (0.5, 0.6), {"boxes"}),
        ("erase_ratio", (1.0, 1.0), {"boxes"}),
    ],
)
def test_a_setting_moves_what_it_names_and_nothing_else(setting: str, value: Any, touched: set[str]) -> None:
    base = {"rotation": 0.5, "grey": 0.5, "blur": 0.5, "erase": 0.5}
    before, after = plan(200, **base), plan(200, **{**base, setting: value})
    assert {name for name in ARRAYS if not np.array_equal(getattr(before, name), getattr(after, name))} == touched


def test_size_count_and_kernel_reach_the_plans() -> None:
    local = view(optical(), name="local", size=96, count=3, blur_kernel=0.2)
    plans = planner(view(optical(), name="global", size=224, count=2), local).plan(0, SHAPES)
    assert [p.size for p in plans] == [224, 224, 96, 96, 96]
    assert [p.kernel for p in plans] == [23, 23, 19, 19, 19]
    assert view(optical(), size=8).kernel == 3


# -------------------------------------------------------------------------- schema


@pytest.mark.parametrize(
    "wrong",
    [
        {"blur": 1.5},
        {"erase": -0.1},
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 1.1)},
        {"crop_ratio": (2.0, 1.0)},
        {"blur_sigma": (-1.0, 1.0)},
        {"erase_ratio": (1.0, float("inf"))},
        {"rotation_degrees": 200.0},
        {"jitter": 0.5},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_grey_is_for_three_bands_and_names_are_unique() -> None:
    with pytest.raises(ValidationError, match="needs three bands"):
        view(optical(), grey=0.2)
    with pytest.raises(ValidationError, match="'one'"):
        ViewRecipe(branches=(view(optical()), view(optical())))


def test_a_recipe_survives_the_way_through_plain_values() -> None:
    picks = (optical(2, ("B02", "B03")), either(weights=(1, 2)))
    recipe = ViewRecipe(branches=(view(*picks, erase=0.7),), distinct_bands=True)
    values = recipe.model_dump(mode="json")
    assert set(values["branches"][0]["augmentation"]) == set(Augmentation.model_fields)
    assert ViewRecipe.model_validate(values) == recipe
