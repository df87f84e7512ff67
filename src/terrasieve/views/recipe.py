"""What a method sees of a sample, as data: which bands, how many views, which augmentation.

The variants of RS-BYOL (Jain et al. 2022) and the multi-crop of DINO (Caron et al. 2021) are values of
:class:`ViewRecipe`; nothing else in this package tells them apart. A :class:`BandPolicy` draws which bands each view of
each sample shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from terrasieve.errors import BandError
from terrasieve.schema import Spec
from terrasieve.sensors import Sensor, find_sensor

Channel = tuple[str, str]
"""A sensor's key in the archive, and the name of one of its bands."""


def _is_positive_range(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0 < low <= high < float("inf"):
        raise ValueError(f"a range is two positive numbers, the lower first, not [{low:g}, {high:g}]")
    return value


def _is_share_range(value: tuple[float, float]) -> tuple[float, float]:
    if value[1] > 1:
        raise ValueError(f"a share of an area is at most 1, not {value[1]:g}")
    return _is_positive_range(value)


Probability = Annotated[float, Field(ge=0, le=1)]
PositiveRange = Annotated[tuple[float, float], AfterValidator(_is_positive_range)]
ShareRange = Annotated[tuple[float, float], AfterValidator(_is_share_range)]


class BandPick(Spec):
    """Bands of one sensor that a view shows, drawn anew for every sample.

    Attributes:
        sensor: Key, name or kind of the sensor: ``s2``, ``s2-l2a`` or ``optical``.
        bands: What to draw from: ``all``, the name of a band set of the sensor, one band, or a list of bands.
        count: How many distinct bands to draw. As many as there are: all of them, in the order given.
        fill: Where ``count`` is more than there are, take all in order and then copies of randomly chosen ones;
            without it, that is an error.
    """

    sensor: str = Field(min_length=1)
    bands: str | tuple[str, ...] = "all"
    count: int = Field(default=1, ge=1)
    fill: bool = False


class Augmentation(Spec):
    """How a view differs from the pixels read, in the order in which it is applied.

    RS-BYOL (Jain et al. 2022, section IV-B) names the operations, without colour jitter; no strength or
    probability is published. Where a source is given below the value is its, all others are ours.

    Attributes:
        crop_scale: Share of the sample's area in the crop, uniform in this range.
        crop_ratio: Width over height of the crop in pixels, log-uniform in this range.
        horizontal_flip: Probability, 0 to 1, of exchanging left and right.
        vertical_flip: Probability, 0 to 1, of exchanging top and bottom.
        quarter_turn: Probability of a turn by 0, 90, 180 or 270 degrees, each as likely.
        blur: Probability, 0 to 1, of a Gaussian blur.
        blur_sigma: Its standard deviation in pixels of the view, uniform in this range (Grill et al. 2020,
            appendix B).
        blur_kernel: Its width as a share of the view's size, rounded down to an odd number of pixels, at least 3;
            0.1 gives the 23 pixels at size 224 of Grill et al. 2020.
        rotation: Probability, 0 to 1, of a rotation by any angle about the centre.
        rotation_degrees: Largest angle of that rotation in degrees, to either side; angles are uniform.
        grey: Probability of showing the mean of the three bands in each of them; for views of three bands only.
        erase: Probability of erasing a rectangle, that is setting it to the mean of the band.
        erase_area: Share of the view's area that is erased, uniform in this range.
        erase_ratio: Width over height of the rectangle, log-uniform in this range (Zhong et al. 2020).
    """

    crop_scale: ShareRange = (0.2, 1.0)
    crop_ratio: PositiveRange = (3 / 4, 4 / 3)
    horizontal_flip: Probability = 0.5
    vertical_flip: Probability = 0.5
    quarter_turn: Probability = 1.0
    blur: Probability = 0.2
    blur_sigma: PositiveRange = (0.1, 2.0)
    blur_kernel: Annotated[float, Field(gt=0, le=1)] = 0.1
    rotation: Probability = 0.0
    rotation_degrees: Annotated[float, Field(gt=0, le=180)] = 45.0
    grey: Probability = 0.0
    erase: Probability = 0.2
    erase_area: ShareRange = (0.02, 0.2)
    erase_ratio: PositiveRange = (0.3, 3.3)


class ViewSpec(Spec):
    """One kind of view of a sample.

    Attributes:
        name: For messages, plots and settings such as ``views.branches.local.size``.
        picks: Bands, stacked in this order along the channel axis.
        size: Height and width of the rendered view in pixels.
        count: Number of such views of a sample, each with its own draw of bands, crop and augmentation.
        augmentation: How these views differ from the pixels read.
    """

    name: str = Field(min_length=1)
    picks: tuple[BandPick, ...] = Field(min_length=1)
    size: int = Field(ge=4)
    count: int = Field(default=1, ge=1)
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _grey_needs_three_bands(self) -> Self:
        if self.augmentation.grey > 0 and self.channels != 3:
            raise ValueError(
                f"view {self.name!r} has augmentation.grey={self.augmentation.grey:g}, which needs three bands, "
                f"but shows {self.channels}; set grey to 0"
            )
        return self

    @property
    def channels(self) -> int:
        """Number of channels of the rendered view."""
        return sum(pick.count for pick in self.picks)

    @property
    def kernel(self) -> int:
        """Width of the blur in pixels; odd, and at most one more than ``size``."""
        return max(3, int(self.augmentation.blur_kernel * self.size) // 2 * 2 + 1)


class ViewRecipe(Spec):
    """All views of a sample.

    Attributes:
        branches: The kinds of view, in the order in which the method receives them.
        distinct_bands: No two views of a sample show the same band.
    """

    branches: tuple[ViewSpec, ...] = Field(min_length=1)
    distinct_bands: bool = False

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [branch.name for branch in self.branches]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"several views are called {doubled[0]!r}; give each its own name")
        return self

    @property
    def views(self) -> tuple[ViewSpec, ...]:
        """One entry per rendered view: each branch as often as it counts."""
        return tuple(branch for branch in self.branches for _ in range(branch.count))


# ----------------------------------------------------------------- band policy


@dataclass(frozen=True)
class _Slot:
    """One pick of one rendered view, resolved against the archive.

    Attributes:
        view: Position of the rendered view that it belongs to, from 0.
        name: The view's name, for messages.
        columns: The channels of the view that it fills.
        pool: The bands that it draws from, each once.
        count: How many distinct members it draws; the rest of its columns are copies.
    """

    view: int
    name: str
    columns: slice
    pool: tuple[Channel, ...]
    count: int

    @property
    def copies(self) -> int:
        """Number of columns that repeat a member."""
        return int(self.columns.stop - self.columns.start) - self.count


class BandPolicy:
    """Draws the bands of all views of a batch.

    Within a view no band appears twice, except as a copy that ``fill`` asked for. With ``distinct_bands`` the
    same holds over all views of a sample.

    Args:
        recipe: Which bands each view picks from, and whether the views of a sample share any.
        sensors: The archive's sensors by their key in the archive.

    Attributes:
        channels: For each rendered view, every band that it may show.
        names: Every band that any view may show, each once.

    Raises:
        BandError: The archive lacks a sensor or band, or a pick cannot be met for every sample.
    """

    def __init__(self, recipe: ViewRecipe, sensors: Mapping[str, Sensor]) -> None:
        views = recipe.views
        slots = [slot for i, view in enumerate(views) for slot in _slots(i, view, sensors)]
        self.channels: tuple[tuple[Channel, ...], ...] = tuple(
            tuple(dict.fromkeys(channel for slot in slots if slot.view == i for channel in slot.pool))
            for i in range(len(views))
        )
        self.names: tuple[Channel, ...] = tuple(dict.fromkeys(channel for view in self.channels for channel in view))
        self._widths = [view.channels for view in views]
        self._distinct = recipe.distinct_bands
        # Those with the least choice draw first, so that others do not take what they cannot do without.
        self._slots = sorted(slots, key=lambda slot: len(slot.pool) - slot.count)
        self._check()

    def draw(self, rng: np.random.Generator, samples: int) -> tuple[NDArray[np.int64], ...]:
        """Bands of every view.

        Args:
            rng: Draws every slot of all samples in turn, so that a sample's bands depend on how many there are.
            samples: Samples of the batch, over all processes.

        Returns:
            For each rendered view an array ``(samples, channels)`` of positions in ``self.channels[view]``.
        """
        drawn = [np.zeros((samples, width), dtype=np.int64) for width in self._widths]
        # What each view of each sample shows already; with distinct bands all views share the first table.
        taken = [np.zeros((samples, len(self.names)), dtype=bool) for _ in self._widths]
        for slot in self._slots:
            used = taken[0 if self._distinct else slot.view]
            everywhere = _positions(slot.pool, self.names)
            members = _draw_members(rng, used[:, everywhere], slot.count)
            np.put_along_axis(used, everywhere[members], values=True, axis=1)
            copied = rng.integers(0, slot.count, (samples, slot.copies))
            members = np.concatenate([members, np.take_along_axis(members, copied, axis=1)], axis=1)
            drawn[slot.view][:, slot.columns] = _positions(slot.pool, self.channels[slot.view])[members]
        return tuple(drawn)

    def _check(self) -> None:
        for i, slot in enumerate(self._slots):
            # The worst case: those that draw before take all that they can of this pool.
            rivals = [rival for rival in self._slots[:i] if self._distinct or rival.view == slot.view]
            left = len(slot.pool) - sum(min(rival.count, len({*rival.pool} & {*slot.pool})) for rival in rivals)
            if left < slot.count:
                raise BandError(
                    f"View {slot.name!r} wants {slot.count} of {_listed(slot.pool)}, but the other picks "
                    f"{'and views ' if self._distinct else ''}may leave only {max(left, 0)}. "
                    f"Lower a count{', set distinct_bands to false' if self._distinct else ''} or widen bands."
                )


def _slots(index: int, view: ViewSpec, sensors: Mapping[str, Sensor]) -> Iterator[_Slot]:
    start = 0
    for pick in view.picks:
        pool = _resolve(pick, view.name, sensors)
        yield _Slot(index, view.name, slice(start, start + pick.count), pool, min(pick.count, len(pool)))
        start += pick.count


def _resolve(pick: BandPick, view: str, sensors: Mapping[str, Sensor]) -> tuple[Channel, ...]:
    key = find_sensor(sensors, pick.sensor)
    pool = tuple((key, band) for band in sensors[key].resolve(pick.bands))
    if not pool:
        raise BandError(f"View {view!r} picks from an empty list of bands of {key!r}; name at least one, or 'all'.")
    if pick.count > len(pool) and not pick.fill:
        raise BandError(
            f"View {view!r} wants {pick.count} distinct bands of {_listed(pool)}, which are only {len(pool)}. "
            "Lower count, widen bands, or set fill to true to repeat some at random."
        )
    return pool


def _listed(pool: Sequence[Channel]) -> str:
    return ", ".join(f"{key}:{band}" for key, band in pool)


def _positions(pool: Sequence[Channel], table: Sequence[Channel]) -> NDArray[np.int64]:
    return np.array([table.index(channel) for channel in pool], dtype=np.int64)


def _draw_members(rng: np.random.Generator, taken: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Positions ``(n, count)`` of distinct members not ``taken`` ``(n, pool)``; every such draw is as likely."""
    samples, size = taken.shape
    # Members go by random keys below 1; those taken already have a higher one and come last.
    keys = np.where(taken, 2.0, rng.random((samples, size)))
    # All of them, in the order given. The keys are drawn all the same, so that later draws do not depend on this.
    if count == size:
        return np.tile(np.arange(size), (samples, 1))
    return np.argsort(keys, axis=1)[:, :count]
