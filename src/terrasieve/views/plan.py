"""Everything that chance decides about the views of a batch, before a pixel is read.

A plan is a pure function of recipe, seed and step. Nothing has to be stored to resume, worker processes need no
state, and every rank plans the batch of all ranks and takes its slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from terrasieve.sensors import Sensor
from terrasieve.streams import Stream, generator
from terrasieve.views.band_policy import BandPolicy, Channel
from terrasieve.views.recipe import ViewRecipe, ViewSpec


@dataclass(frozen=True)
class ViewPlan:
    """How to make one view of each of ``n`` samples.

    Attributes:
        size: Height and width of the view in pixels.
        kernel: Width of the blur in pixels of the view; an odd number.
        shapes: ``(n, 2)`` height and width in pixels that the samples are taken to have.
        channels: ``(n, c)`` positions in the planner's ``channels`` of this view.
        windows: ``(n, 4)`` top, left, height and width of the crop in pixels of the sample.
        flips: ``(n, 2)`` whether to exchange top and bottom, and left and right.
        turns: ``(n,)`` quarter turns counter-clockwise, 0 to 3, after the flips.
        sigmas: ``(n,)`` standard deviation of the blur in pixels of the view; 0 for none.
        angles: ``(n,)`` free rotation counter-clockwise in degrees; 0 for none.
        grey: ``(n,)`` whether all channels show their mean.
        boxes: ``(n, 4)`` top, left, height and width of what is erased in pixels of the view; all 0 for none.
        times: ``(n,)`` which of the acquisitions that the view may show, as a share of their number from 0 up to but
            not including 1; 0 where the view shows the sample itself.
    """

    size: int
    kernel: int
    shapes: NDArray[np.int64]
    channels: NDArray[np.int64]
    windows: NDArray[np.int64]
    flips: NDArray[np.bool_]
    turns: NDArray[np.int64]
    sigmas: NDArray[np.float64]
    angles: NDArray[np.float64]
    grey: NDArray[np.bool_]
    boxes: NDArray[np.int64]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.windows)

    def __getitem__(self, samples: slice) -> ViewPlan:
        """The plan of some of the samples."""
        arrays = [field.name for field in fields(self) if field.name not in ("size", "kernel")]
        return replace(self, **{name: getattr(self, name)[samples] for name in arrays})


class ViewPlanner:
    """Plans the views of a recipe for an archive.

    Args:
        recipe: Which views to make of a sample, and how they vary.
        sensors: The archive's sensors by their key in the archive.
        seed: The run's seed, from 0 to ``2**64 - 1``; another seed draws every view anew.

    Attributes:
        channels: For each rendered view, every band that it may show; plans hold positions in it.
        names: Every band that any view may show, each once, in the order in which the recipe comes to it.

    Raises:
        BandError: The archive lacks a sensor or band, or a pick cannot be met for every sample.
    """

    def __init__(self, recipe: ViewRecipe, sensors: Mapping[str, Sensor], seed: int) -> None:
        self.recipe = recipe
        self.seed = seed
        self._policy = BandPolicy(recipe, sensors)
        self.channels: tuple[tuple[Channel, ...], ...] = self._policy.channels
        self.names: tuple[Channel, ...] = self._policy.names

    def plan(self, step: int, shapes: NDArray[np.int64]) -> tuple[ViewPlan, ...]:
        """Plan a batch.

        What is drawn for a row depends on seed, step, the row and the number of rows, not on the shapes of other
        rows: a rank that does not know the shapes of the others' samples may put any in their place.

        Args:
            step: Optimiser step, from 0.
            shapes: Height and width in pixels of each sample of all ranks, ``(n, 2)``; the same for every sensor, and
                for every acquisition of a place.

        Returns:
            One plan per rendered view, in the order of the recipe.
        """
        # Streams of their own, so that a change of the band policy leaves crops and augmentation as they were.
        bands = self._policy.draw(generator(Stream.VIEW_BANDS, self.seed, step), len(shapes))
        return tuple(
            _plan_view(
                view, generator(Stream.VIEW, self.seed, step, i), channels, shapes, self._times(step, i, len(shapes))
            )
            for i, (view, channels) in enumerate(zip(self.recipe.views, bands, strict=True))
        )

    def _times(self, step: int, view: int, samples: int) -> NDArray[np.float64]:
        if self.recipe.views[view].time is None:
            return np.zeros(samples)
        return generator(Stream.VIEW_TIME, self.seed, step, view).random(samples)


def draw_boxes(
    rng: np.random.Generator,
    shapes: NDArray[np.int64],
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> NDArray[np.int64]:
    """Random rectangles inside larger ones.

    Area is uniform and aspect ratio log-uniform, as in Szegedy et al. 2015 (section 6). Instead of drawing again
    until a rectangle fits, which favours small areas, the ratio is drawn from the part of its range that fits
    with the area; where none does, it is the nearest ratio that fits.

    Args:
        rng: Draws four numbers a rectangle.
        shapes: ``(n, 2)`` heights and widths in pixels of what the rectangles lie in.
        area: Lowest and highest share of the area that a rectangle covers, in (0, 1].
        ratio: Lowest and highest width over height of a rectangle in pixels, above 0.

    Returns:
        ``(n, 4)`` top, left, height and width in whole pixels, at least 1 by 1 and inside.
    """
    heights, widths = shapes.astype(np.float64).T
    first, second, third, fourth = rng.random((4, len(shapes)))
    target = (area[0] + first * (area[1] - area[0])) * heights * widths
    # Aspect ratios at which a rectangle of that area is as high, or as wide, as what it lies in.
    least, most = target / heights**2, widths**2 / target
    low, high = np.log(np.clip(ratio[0], least, most)), np.log(np.clip(ratio[1], least, most))
    aspect = np.exp(low + second * (high - low))
    height = np.clip(np.rint(np.sqrt(target / aspect)), 1, heights)
    width = np.clip(np.rint(np.sqrt(target * aspect)), 1, widths)
    # Uniform over the whole positions that fit, of which there is always one.
    top = np.floor(third * (heights - height + 1))
    left = np.floor(fourth * (widths - width + 1))
    return np.stack([top, left, height, width], axis=1).astype(np.int64)


def _plan_view(
    view: ViewSpec,
    rng: np.random.Generator,
    channels: NDArray[np.int64],
    shapes: NDArray[np.int64],
    times: NDArray[np.float64],
) -> ViewPlan:
    # Each setting takes the same share of the stream whatever its value, so that changing one leaves what the
    # others draw as it was. That share is drawn in this order.
    augmentation, samples, most = view.augmentation, len(shapes), view.augmentation.rotation_degrees
    windows = draw_boxes(rng, shapes, augmentation.crop_scale, augmentation.crop_ratio)
    flips = rng.random((samples, 2)) < (augmentation.vertical_flip, augmentation.horizontal_flip)
    turns = _happens(rng, augmentation.quarter_turn, samples) * rng.integers(0, 4, samples)
    sigmas = _happens(rng, augmentation.blur, samples) * _uniform(rng, augmentation.blur_sigma, samples)
    angles = _happens(rng, augmentation.rotation, samples) * _uniform(rng, (-most, most), samples)
    grey = _happens(rng, augmentation.grey, samples)
    erased = _happens(rng, augmentation.erase, samples)
    whole = np.full((samples, 2), view.size)
    boxes = erased[:, None] * draw_boxes(rng, whole, augmentation.erase_area, augmentation.erase_ratio)
    return ViewPlan(view.size, view.kernel, shapes, channels, windows, flips, turns, sigmas, angles, grey, boxes, times)


def _happens(rng: np.random.Generator, probability: float, samples: int) -> NDArray[np.bool_]:
    return rng.random(samples) < probability


def _uniform(rng: np.random.Generator, limits: tuple[float, float], samples: int) -> NDArray[np.float64]:
    return limits[0] + rng.random(samples) * (limits[1] - limits[0])
