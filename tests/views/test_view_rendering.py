"""Reading and rendering: the pixels of a view against independent oracles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come before torchvision)

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as oracle

from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.config import load_config, recipe_names
from terrasieve.errors import BandError, SampleError
from terrasieve.sensors import SENSORS, BandStatistics, Sensor
from terrasieve.views.plan import ViewPlan, ViewPlanner
from terrasieve.views.read import BatchReader
from terrasieve.views.recipe import Augmentation, BandPick, OneOf, Pick, ViewRecipe, ViewSpec
from terrasieve.views.render import Normaliser, blur_weights, render, resize_weights
from terrasieve.views.stored import Buffers, StoredBatch

PLAIN = Augmentation(
    crop_scale=(1, 1), horizontal_flip=0, vertical_flip=0, quarter_turn=0, blur=0, rotation=0, erase=0, grey=0
)
RNG = np.random.default_rng(0)


class FakeArchive(BaseArchive):
    """Two sensors in memory; remembers what was read."""

    sensors: Mapping[str, Sensor] = {"s2": SENSORS["s2-l2a"], "s1": SENSORS["s1"]}
    source: Mapping[str, Any] = {"layout": "fake"}
    ids: np.ndarray = np.empty(0)

    def __init__(self, samples: int = 8, size: int = 24) -> None:
        rng = np.random.default_rng(1)
        self.pixels: dict[str, Any] = {
            "s2": rng.integers(1, 9000, (samples, 12, size, size)).astype(np.uint16),
            "s1": rng.normal(-12, 3, (samples, 2, size, size)).astype(np.float32),
        }
        self.ids = np.array([f"tile-{i}" for i in range(samples)])
        self.calls: list[tuple[int, str, tuple[str, ...], Window]] = []

    def __len__(self) -> int:
        return len(self.ids)

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        height, width = self.pixels[sensor][index].shape[1:]
        return height, width

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> np.ndarray:
        assert window is not None
        names = self.sensors[sensor].names
        self.calls.append((index, sensor, tuple(names[position] for position in positions), window))
        if index == 5:
            raise SampleError("b/005.tif is cut short.")
        top, left, height, width = window
        return self.pixels[sensor][index][list(positions), top : top + height, left : left + width]

    def table(self) -> pa.Table:
        return pa.table({"id": self.ids.tolist()})


def statistics_for(archive: FakeArchive) -> dict[str, tuple[BandStatistics, ...]]:
    return {
        key: tuple(
            BandStatistics(band=name, count=1, mean=float(x.mean()), std=float(x.std()), minimum=0, maximum=1)
            for name, x in zip(sensor.names, archive.pixels[key].swapaxes(0, 1), strict=True)
        )
        for key, sensor in archive.sensors.items()
    }


def normaliser_for(archive: FakeArchive) -> Normaliser:
    return Normaliser(archive.sensors, statistics_for(archive))


def make_views(
    recipe: ViewRecipe, archive: FakeArchive, indices: Sequence[int] = (0, 1, 2, 3), step: int = 0
) -> list[Tensor]:
    planner = ViewPlanner(recipe, archive.sensors, seed=0)
    shapes = np.array([archive.shape(i, "s2") for i in indices])
    return render(read(archive, indices, planner, planner.plan(step, shapes)), normaliser_for(archive))


def read(
    archive: BaseArchive, indices: Sequence[int], planner: ViewPlanner, plans: Sequence[ViewPlan], parts: int = 1
) -> StoredBatch:
    return BatchReader(archive).read(plans, planner.channels, [np.array(indices)] * len(plans), parts)


def plain_plan(samples: int, size: int, channels: int, window: tuple[int, int, int, int]) -> ViewPlan:
    return ViewPlan(
        size=size,
        kernel=5,
        shapes=np.tile(np.add(window[:2], window[2:]), (samples, 1)),
        channels=np.tile(np.arange(channels), (samples, 1)),
        windows=np.tile(window, (samples, 1)),
        flips=np.zeros((samples, 2), dtype=bool),
        turns=np.zeros(samples, dtype=np.int64),
        sigmas=np.zeros(samples),
        angles=np.zeros(samples),
        grey=np.zeros(samples, dtype=bool),
        boxes=np.zeros((samples, 4), dtype=np.int64),
        times=np.zeros(samples),
    )


def render_tensor(pixels: Tensor, plan: ViewPlan) -> Tensor:
    """Render what is already standardised: channels of a sensor with mean 0 and std 1."""
    archive = TensorArchive(pixels)
    names = archive.sensors["x"].names
    unit = tuple(BandStatistics(band=name, count=1, mean=0, std=1, minimum=0, maximum=1) for name in names)
    plan = replace(plan, shapes=np.tile(pixels.shape[2:], (len(plan), 1)))
    batch = BatchReader(archive).read([plan], [tuple(("x", name) for name in names)], [np.arange(len(plan))])
    return render(batch, Normaliser(archive.sensors, {"x": unit}))[0]


class TensorArchive(BaseArchive):
    """One sensor whose pixels are given."""

    source: Mapping[str, Any] = {"layout": "tensor"}
    ids: np.ndarray = np.empty(0)
    sensors: Mapping[str, Sensor] = {}

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels.numpy()
        bands = tuple(
            SENSORS["s1-linear"].bands[0].model_copy(update={"name": f"b{i}", "valid_range": (-1e9, 1e9)})
            for i in range(pixels.shape[1])
        )
        self.sensors = {"x": Sensor(name="x", kind="optical", bands=bands)}
        self.ids = np.arange(len(pixels)).astype(str)

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        height, width = self.pixels[index].shape[1:]
        return height, width

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> np.ndarray:
        assert window is not None
        top, left, height, width = window
        return self.pixels[index][list(positions), top : top + height, left : left + width]

    def table(self) -> pa.Table:
        return pa.table({"id": self.ids.tolist()})


# ------------------------------------------------------------------------- oracles


@pytest.mark.parametrize("size", [7, 24, 32, 61])
def test_crops_equal_torchvision_s_antialiased_bicubic(size: int) -> None:
    windows = np.array(
        [[0, 0, 40, 33], [3, 5, 37, 21], [10, 2, 9, 30], [39, 32, 1, 1], [0, 3, 2, 30], [8, 1, size % 32 + 1, 24]]
    )
    whole = torch.from_numpy(RNG.normal(size=(len(windows), 2, 40, 33)).astype(np.float32))
    found = render_tensor(whole, replace(plain_plan(len(windows), size, 2, (0, 0, 40, 33)), windows=windows))
    for row, window in enumerate(windows.tolist()):
        expected = oracle.resized_crop(
            whole[row], *window, size=[size, size], interpolation=InterpolationMode.BICUBIC, antialias=True
        )
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kernel", "size"), [(3, 8), (5, 16), (23, 40), (9, 5)])
def test_blur_equals_torchvision_s(kernel: int, size: int) -> None:
    sigmas = np.array([0.1, 0.7, 2.0, 0.0, 5.0])
    pixels = torch.from_numpy(RNG.normal(size=(5, 2, size, size)).astype(np.float32))
    plan = replace(plain_plan(5, size, 2, (0, 0, size, size)), kernel=kernel, sigmas=sigmas)
    found = render_tensor(pixels, plan)
    for row, sigma in enumerate(sigmas.tolist()):
        expected = oracle.gaussian_blur(pixels[row], [kernel, kernel], [sigma, sigma]) if sigma else pixels[row]
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=0)


def test_blur_follows_the_resampling() -> None:
    pixels = torch.from_numpy(RNG.normal(size=(1, 1, 40, 30)).astype(np.float32))
    plan = replace(plain_plan(1, 16, 1, (0, 0, 40, 30)), sigmas=np.array([1.3]))
    crop = oracle.resized_crop(
        pixels, 0, 0, 40, 30, size=[16, 16], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    torch.testing.assert_close(
        render_tensor(pixels, plan), oracle.gaussian_blur(crop, [5, 5], [1.3, 1.3]), atol=1e-4, rtol=0
    )


def test_flips_then_quarter_turns_equal_flip_and_rot90() -> None:
    cases = [(v, h, k) for v in (False, True) for h in (False, True) for k in range(4)]
    pixels = torch.from_numpy(RNG.normal(size=(16, 2, 9, 9)).astype(np.float32))
    plan = replace(
        plain_plan(16, 9, 2, (0, 0, 9, 9)),
        flips=np.array([case[:2] for case in cases]),
        turns=np.array([case[2] for case in cases]),
    )
    found = render_tensor(pixels, plan)
    for row, (vertical, horizontal, turns) in enumerate(cases):
        expected = pixels[row].flip([axis for axis, yes in ((1, vertical), (2, horizontal)) if yes])
        torch.testing.assert_close(found[row], torch.rot90(expected, turns, (1, 2)), atol=1e-5, rtol=0)


def test_free_rotation_equals_quarter_turns_and_scipy_between_them() -> None:
    y, x = np.mgrid[:33, :33] / 16.0
    smooth = np.sin(x) + np.cos(1.3 * y) + 0.3 * np.sin(x + 2 * y)
    pixels = torch.from_numpy(np.tile(smooth, (4, 1, 1, 1)).astype(np.float32))
    plan = replace(plain_plan(4, 33, 1, (0, 0, 33, 33)), angles=np.array([90.0, 30.0, 0.0, -75.0]))
    found = render_tensor(pixels, plan)
    torch.testing.assert_close(found[0], torch.rot90(pixels[0], 1, (1, 2)), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[2], pixels[2], atol=1e-5, rtol=0)
    for row in (1, 3):
        expected = ndimage.rotate(smooth, plan.angles[row], reshape=False, order=3)
        assert np.abs(found[row, 0].numpy() - expected)[9:-9, 9:-9].max() < 0.01


def test_erased_rectangle_is_zero_and_the_rest_is_untouched() -> None:
    pixels = torch.from_numpy(RNG.normal(size=(2, 3, 12, 12)).astype(np.float32))
    plan = replace(plain_plan(2, 12, 3, (0, 0, 12, 12)), boxes=np.array([[2, 5, 4, 3], [0, 0, 0, 0]]))
    expected = pixels.clone()
    expected[0, :, 2:6, 5:8] = 0
    torch.testing.assert_close(render_tensor(pixels, plan), expected, atol=1e-5, rtol=0)


def test_grey_is_the_mean_of_the_three_bands() -> None:
    pixels = torch.from_numpy(RNG.normal(size=(2, 3, 8, 8)).astype(np.float32))
    found = render_tensor(pixels, replace(plain_plan(2, 8, 3, (0, 0, 8, 8)), grey=np.array([False, True])))
    torch.testing.assert_close(found[0], pixels[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], pixels[1].mean(0).expand(3, -1, -1), atol=1e-5, rtol=0)


def test_weights_sum_to_one_and_ignore_the_canvas_beyond_the_crop() -> None:
    weights = resize_weights(torch.tensor([0.0, 0.0]), torch.tensor([3.0, 40.0]), torch.tensor([1.0, 0.0]), 40, 16, 64)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 16))
    assert not weights[0, :, 3:].any()
    assert not weights[1, :, 40:].any()
    moved = resize_weights(torch.tensor([5.0, 24.0]), torch.tensor([3.0, 40.0]), torch.tensor([1.0, 0.0]), 40, 16, 64)
    assert torch.equal(moved[0, :, 5:], weights[0, :, :-5])
    assert torch.equal(moved[1, :, 24:], weights[1, :, :40])
    assert not moved[0, :, :5].any()
    assert not moved[1, :, :24].any()
    blur = blur_weights(torch.tensor([0.0, 1.0]), 7, 16)
    torch.testing.assert_close(blur.sum(-1), torch.ones(2, 16))
    assert torch.equal(blur[0], torch.eye(16))


def test_real_pixels_equal_torchvision_on_the_same_window(data_dir: Path) -> None:
    with rasterio.open(min((data_dir / "la_texas_pairs" / "s2").glob("*.tif"))) as scene:
        pixels = torch.from_numpy(scene.read(window=((100, 164), (200, 264)))).float()[None] / 255
    found = render_tensor(pixels, plain_plan(1, 32, 3, (7, 3, 50, 58)))
    expected = oracle.resized_crop(
        pixels, 7, 3, 50, 58, size=[32, 32], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


# --------------------------------------------------------------------- normalising


@pytest.mark.parametrize(
    "picks",
    [
        (BandPick(sensor="s1"), BandPick(sensor="s2", bands="rs-byol", count=2)),
        (OneOf(one_of=(BandPick(sensor="s1", count=2), BandPick(sensor="s2", bands="rs-byol", count=2))),),
    ],
)
def test_each_sample_is_normalised_by_the_statistics_of_its_own_bands(picks: tuple[Pick, ...]) -> None:
    archive = FakeArchive()
    recipe = ViewRecipe(branches=(ViewSpec(name="mixed", picks=picks, size=24, augmentation=PLAIN),))
    planner = ViewPlanner(recipe, archive.sensors, seed=3)
    (plan,) = planner.plan(0, np.full((4, 2), 24))
    (found,) = render(read(archive, range(4), planner, [plan]), normaliser_for(archive))
    assert len(np.unique(plan.channels, axis=0)) > 1
    assert {planner.channels[0][pick][0] for pick in plan.channels.ravel()} == {"s1", "s2"}
    for row, drawn in enumerate(plan.channels):
        for place, (key, band) in enumerate(planner.channels[0][pick] for pick in drawn):
            number = archive.sensors[key].indices([band])[0]
            every = archive.pixels[key][:, number].astype(np.float64)
            expected = (every[row] - every.mean()) / every.std()
            np.testing.assert_allclose(found[row, place].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0])
def test_missing_pixels_count_as_the_mean_and_do_not_spread(bad: float) -> None:
    one = SENSORS["s2-l1c"].select("B04")
    assert one.nodata == 0
    row = (BandStatistics(band="B04", count=1, mean=500, std=100, minimum=0, maximum=1),)
    normaliser = Normaliser({"s2": one}, {"s2": row})
    pixels = torch.full((1, 1, 8, 8), 700.0)
    pixels[0, 0, 2, 3] = bad
    standard = normaliser(pixels, [("s2", "B04")])
    expected = torch.full((1, 1, 8, 8), 2.0)
    expected[0, 0, 2, 3] = 0
    torch.testing.assert_close(standard, expected)
    archive = FakeArchive()
    archive.pixels["s2"] = pixels.repeat(1, 12, 1, 1).numpy()
    plan = plain_plan(1, 8, 1, (0, 0, 8, 8))
    (view,) = render(BatchReader(archive).read([plan], [(("s2", "B04"),)], [np.zeros(1, dtype=np.int64)]), normaliser)
    torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)


def test_values_are_clipped_to_the_valid_range_and_the_input_is_left_alone() -> None:
    row = (BandStatistics(band="VV", count=1, mean=-10, std=4, minimum=0, maximum=1),)
    pixels = torch.tensor([-80.0, -10.0, 90.0]).view(1, 1, 1, 3)
    before = pixels.clone()
    standard = Normaliser({"s1": SENSORS["s1"]}, {"s1": row})(pixels, [("s1", "VV")])
    assert standard.flatten().tolist() == [-10.0, 0.0, 10.0]
    assert torch.equal(pixels, before)


def test_statistics_are_found_by_name_and_a_missing_one_is_an_error() -> None:
    archive = FakeArchive()
    known = statistics_for(archive)
    shuffled = Normaliser(archive.sensors, {**known, "s2": known["s2"][::-1]})
    pixels = torch.rand(1, 2, 4, 4) * 4000
    channels = [("s2", "B8A"), ("s2", "B02")]
    assert torch.equal(shuffled(pixels, channels), normaliser_for(archive)(pixels, channels))
    without = Normaliser(archive.sensors, {"s2": known["s2"][:3]})
    with pytest.raises(BandError, match=r"no statistics of band 'B12' of sensor 's2'"):
        without(pixels[:, :1], [("s2", "B12")])
    with pytest.raises(BandError, match="B99"):
        without(pixels[:, :1], [("s2", "B99")])
    with pytest.raises(BandError, match="Did you mean 's2'"):
        without(pixels[:, :1], [("s22", "B02")])


def test_a_band_without_spread_is_only_centred() -> None:
    row = (BandStatistics(band="VV", count=1, mean=-10, std=0, minimum=-10, maximum=-10),)
    standard = Normaliser({"s1": SENSORS["s1"]}, {"s1": row})(torch.full((1, 1, 2, 2), -9.5), [("s1", "VV")])
    assert standard.flatten().tolist() == [0.5] * 4


# ------------------------------------------------------------------------- reading


def test_only_the_bands_and_windows_of_the_plan_are_read_once_a_sensor() -> None:
    archive = FakeArchive()
    picks = (BandPick(sensor="s1", count=3, fill=True), BandPick(sensor="s2", bands="rs-byol", count=2))
    spec = ViewSpec(name="v", picks=picks, size=8, augmentation=Augmentation(crop_scale=(0.1, 0.3)))
    planner = ViewPlanner(ViewRecipe(branches=(spec,)), archive.sensors, seed=0)
    (plan,) = planner.plan(0, np.full((3, 2), 24))
    indices = [4, 0, 2]
    batch = read(archive, indices, planner, [plan])
    (part,) = batch.parts
    planes = dict(zip(("s1", "s2"), (batch.planes(part, section).numpy() for section in part.sections), strict=True))
    assert {key: found.dtype.name for key, found in planes.items()} == {"s1": "float32", "s2": "uint16"}
    assert sorted((index, sensor) for index, sensor, *_ in archive.calls) == [(i, s) for i in (0, 2, 4) for s in planes]
    for index, sensor, bands, window in archive.calls:
        row = indices.index(index)
        wanted = [band for key, band in (planner.channels[0][i] for i in plan.channels[row]) if key == sensor]
        assert bands == tuple(dict.fromkeys(wanted))
        assert tuple(window) == tuple(plan.windows[row])
        top, left, height, width = window
        for band in bands:
            expected = archive.pixels[sensor][index][archive.sensors[sensor].names.index(band)]
            expected = expected[top : top + height, left : left + width]
            assert any(np.array_equal(plane[:height, :width], expected) for plane in planes[sensor])
    assert len(planes["s2"]) == 6
    assert len(planes["s1"]) == 6, "a copy of a band is no other plane"


def test_what_several_views_show_is_read_once_in_the_window_that_holds_them_all() -> None:
    archive = FakeArchive()
    small = Augmentation(crop_scale=(0.1, 0.3))
    branches = tuple(
        ViewSpec(
            name=f"v{size}", picks=(BandPick(sensor="s2", bands="rs-byol"),), size=size, count=2, augmentation=small
        )
        for size in (8, 12)
    )
    planner = ViewPlanner(ViewRecipe(branches=branches), archive.sensors, seed=0)
    plans = planner.plan(0, np.full((4, 2), 24))
    batch = read(archive, (6, 0, 7, 2), planner, plans)
    assert [(index, sensor) for index, sensor, *_ in archive.calls] == [(i, "s2") for i in (0, 2, 6, 7)]
    for index, _, bands, (top, left, height, width) in archive.calls:
        row = [6, 0, 7, 2].index(index)
        shown = [channels[plan.channels[row, 0]][1] for plan, channels in zip(plans, planner.channels, strict=True)]
        assert sorted(bands) == sorted(set(shown))
        windows = np.array([plan.windows[row] for plan in plans])
        (first, begin), (last, end) = windows[:, :2].min(axis=0), (windows[:, :2] + windows[:, 2:]).max(axis=0)
        assert (top, top + height) == (first, last)
        # Of most columns all are read, since whole rows lie in one piece.
        assert (left, left + width) == ((0, 24) if end - begin >= 18 else (begin, end))
    assert {width == 24 for *_, (_, _, _, width) in archive.calls} == {True, False}
    count = sum(len(bands) for *_, bands, _ in archive.calls)
    (part,) = batch.parts
    # Both begin at multiples of 64 bytes.
    assert len(batch.data) < 4 * part.parameters + 2 * count * part.canvas[0] * part.canvas[1] + 128


BUSY_RECIPE = ViewRecipe(
    branches=(
        ViewSpec(
            name="v",
            picks=(BandPick(sensor="s2", count=3),),
            size=16,
            count=2,
            augmentation=Augmentation(rotation=0.5, blur=0.5, grey=0.5, erase=0.5),
        ),
        ViewSpec(name="w", picks=(OneOf(one_of=(BandPick(sensor="s1"), BandPick(sensor="s2"))),), size=8, count=3),
        ViewSpec(name="x", picks=(BandPick(sensor="s1", bands="VV"),), size=10, count=2),
    )
)


def test_micro_batches_and_single_samples_render_to_their_part_of_the_views() -> None:
    archive = FakeArchive()
    planner = ViewPlanner(BUSY_RECIPE, archive.sensors, seed=0)
    plans, indices = planner.plan(0, np.full((6, 2), 24)), np.array([3, 0, 7, 2, 1, 4])
    normaliser = normaliser_for(archive)
    whole = render(read(archive, indices.tolist(), planner, plans), normaliser)
    for parts in (2, 3, 6):
        batch = read(archive, indices.tolist(), planner, plans, parts)
        assert [part.samples for part in batch.parts] == [6 // parts] * parts
        found = [render(batch, normaliser, part) for part in range(parts)]
        for view, pieces in zip(whole, zip(*found, strict=True), strict=True):
            torch.testing.assert_close(torch.cat(pieces), view, atol=1e-5, rtol=0)


def test_threads_and_memory_that_is_used_again_change_nothing() -> None:
    archive = FakeArchive()
    planner = ViewPlanner(BUSY_RECIPE, archive.sensors, seed=0)
    buffers, indices = Buffers(), [np.array([3, 0, 7, 2, 1, 4])] * 7
    reader, normaliser = BatchReader(archive, buffers), normaliser_for(archive)
    with ThreadPoolExecutor(3) as pool:
        for step in range(4):
            plans = planner.plan(step, np.full((6, 2), 24))
            alone = render(BatchReader(archive).read(plans, planner.channels, indices), normaliser)
            batch = reader.read(plans, planner.channels, indices, pool=pool)
            assert all(map(torch.equal, render(batch, normaliser), alone))
            place = batch.data.data_ptr()
            held = batch
            del batch
            other = buffers.take(64)
            assert other.data_ptr() != place, "memory that somebody holds is not given away"
            del held, other


def test_a_sample_of_another_type_does_not_lose_digits() -> None:
    archive = FakeArchive()
    whole = archive.pixels["s2"]
    kept, archive.pixels["s2"] = whole, [*whole[:3], whole[3].astype(np.float32) + 0.25, *whole[4:]]  # type: ignore[assignment]
    spec = ViewSpec(name="v", picks=(BandPick(sensor="s2", bands="B04"),), size=24, augmentation=PLAIN)
    planner = ViewPlanner(ViewRecipe(branches=(spec,)), archive.sensors, seed=0)
    plans = planner.plan(0, np.full((3, 2), 24))
    batch = read(archive, (0, 3, 4), planner, plans)
    (section,) = batch.parts[0].sections
    assert section.dtype == torch.float32
    band = archive.sensors["s2"].names.index("B04")
    found = sorted(batch.planes(batch.parts[0], section)[:, 0, 0].tolist())
    assert found == sorted([kept[0, band, 0, 0], kept[3, band, 0, 0] + 0.25, kept[4, band, 0, 0]])


def test_a_sample_that_cannot_be_read_is_named() -> None:
    recipe = ViewRecipe(branches=(ViewSpec(name="v", picks=(BandPick(sensor="s2"),), size=8),))
    with pytest.raises(SampleError, match=r"tile-5, sensor s2: b/005.tif is cut short"):
        make_views(recipe, FakeArchive(), indices=(4, 5))


def test_sensors_on_different_grids_are_refused_rather_than_mixed() -> None:
    archive = FakeArchive()
    archive.pixels["s1"] = archive.pixels["s1"].repeat(2, axis=2).repeat(2, axis=3)
    recipe = ViewRecipe(branches=(ViewSpec(name="v", picks=(BandPick(sensor="s1"),), size=8),))
    with pytest.raises(SampleError, match=r"tile-0 has 48x48 pixels of sensor s1.*24x24"):
        make_views(recipe, archive)


# ------------------------------------------------------------- recipes end to end


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_makes_views_of_an_archive_with_both_sensors(name: str) -> None:
    config = load_config(name, ["views.branches.*.size=16"])
    views = make_views(config.views, FakeArchive())
    count = sum(branch.count for branch in config.views.branches)
    assert [tuple(view.shape) for view in views] == [(4, config.model.channels, 16, 16)] * count
    for view in views:
        assert view.dtype == torch.float32
        assert view.is_contiguous()
        assert view.isfinite().all()
        assert view.std() > 0.1


def test_multi_crop_gives_global_and_local_views() -> None:
    def crops(name: str, size: int, count: int, scale: tuple[float, float]) -> ViewSpec:
        pick = BandPick(sensor="s1", bands="VV")
        return ViewSpec(name=name, picks=(pick,), size=size, count=count, augmentation=Augmentation(crop_scale=scale))

    recipe = ViewRecipe(branches=(crops("global", 16, 2, (0.4, 1)), crops("local", 8, 4, (0.05, 0.14))))
    archive = FakeArchive()
    views = make_views(recipe, archive)
    assert [tuple(view.shape) for view in views] == [(4, 1, 16, 16)] * 2 + [(4, 1, 8, 8)] * 4
    assert not torch.equal(views[0], views[1])
    planner = ViewPlanner(recipe, archive.sensors, seed=0)
    areas = [plan.windows[:, 2:].prod(axis=1) / 24**2 for plan in planner.plan(0, np.full((4, 2), 24))]
    assert np.min(areas[:2]) > 0.35
    assert np.max(areas[2:]) < 0.2


BUSY = {
    "crop_scale": (0.3, 0.9),
    "blur": 0.5,
    "blur_sigma": (0.5, 1.0),
    "rotation": 0.5,
    "grey": 0.5,
    "erase": 0.5,
}


def busy(count: int = 1, size: int = 16, **changed: Any) -> list[Tensor]:
    augmentation = Augmentation(**{**BUSY, **changed})
    spec = ViewSpec(
        name="v", picks=(BandPick(sensor="s2", count=3),), size=size, count=count, augmentation=augmentation
    )
    return make_views(ViewRecipe(branches=(spec,)), FakeArchive(), indices=(0, 1, 2, 3, 4, 6, 7))


def test_same_seed_same_views() -> None:
    assert torch.equal(busy()[0], busy()[0])


CHANGES = [
    ("crop_scale", (0.5, 0.9)),
    ("crop_ratio", (1.0, 1.0)),
    ("horizontal_flip", 0.0),
    ("vertical_flip", 0.0),
    ("quarter_turn", 0.0),
    ("blur", 1.0),
    ("blur_sigma", (1.0, 2.0)),
    ("blur_kernel", 0.5),
    ("rotation", 1.0),
    ("rotation_degrees", 10.0),
    ("grey", 1.0),
    ("erase", 1.0),
    ("erase_area", (0.5, 0.6)),
    ("erase_ratio", (1.0, 1.0)),
]


def test_no_setting_is_left_out() -> None:
    assert [setting for setting, _ in CHANGES] == list(Augmentation.model_fields)


@pytest.mark.parametrize(("setting", "value"), CHANGES)
def test_every_setting_changes_the_view(setting: str, value: Any) -> None:
    assert not torch.allclose(busy()[0], busy(**{setting: value})[0], atol=1e-3)


def test_size_and_count_are_honoured() -> None:
    assert [view.shape[-1] for view in busy(count=3, size=20)] == [20, 20, 20]


def test_without_augmentation_a_view_is_the_normalised_sample() -> None:
    archive = FakeArchive()
    spec = ViewSpec(name="v", picks=(BandPick(sensor="s1", count=2),), size=24, augmentation=PLAIN)
    (view,) = make_views(ViewRecipe(branches=(spec,)), archive)
    pixels = torch.from_numpy(archive.pixels["s1"][:4])
    expected = normaliser_for(archive)(pixels, [("s1", "VV"), ("s1", "VH")])
    torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)


def test_autocast_and_gradients_do_not_reach_the_views() -> None:
    plain = busy()[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = busy()[0]
    assert torch.equal(plain, cast)
    assert not cast.requires_grad
    assert not cast.is_inference()
