"""What a method sees of a sample, as data: which bands, how many views, which augmentation.

The variants of RS-BYOL (Jain et al. 2022) and the multi-crop of DINO (Caron et al. 2021) are values of
:class:`ViewRecipe`; nothing else in this package tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from terrasieve.schema import Spec


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


Time = Literal["other", "any"]
"""``other``: another acquisition of a sample's place than the sample itself. ``any``: one of them all."""


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

    @property
    def alternatives(self) -> tuple[BandPick, ...]:
        """What may be shown, of which each sample shows one: this pick alone."""
        return (self,)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the samples, above 0 and at most 1, that shows each alternative; they sum to 1."""
        return (1.0,)


class OneOf(Spec):
    """Bands of one of several sensors, which is drawn anew for every sample and view.

    Attributes:
        one_of: What is drawn from, two or more; each fills as many channels as the others.
        weights: How often each is drawn, relative to the others; null draws all as often.
    """

    one_of: tuple[BandPick, ...]
    weights: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = None

    @model_validator(mode="after")
    def _alternatives_are_alike(self) -> Self:
        counts = [pick.count for pick in self.one_of]
        if len(counts) < 2:
            raise ValueError("one_of draws from two or more picks; add another, or write the one pick alone")
        if len(set(counts)) > 1:
            raise ValueError(f"one_of has counts {', '.join(map(str, counts))}; give all the same")
        if self.weights is not None and len(self.weights) != len(counts):
            raise ValueError(f"one_of has {len(counts)} picks, but {len(self.weights)} weights; give each its weight")
        return self

    @property
    def alternatives(self) -> tuple[BandPick, ...]:
        """What may be shown, of which each sample shows one."""
        return self.one_of

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the samples, above 0 and at most 1, that shows each alternative; they sum to 1."""
        weights = self.weights or (1.0,) * len(self.one_of)
        return tuple(weight / sum(weights) for weight in weights)

    @property
    def count(self) -> int:
        """Number of channels that it fills."""
        return self.one_of[0].count


def _kind_of_pick(value: Any) -> str:
    drawn = "one_of" in value if isinstance(value, Mapping) else isinstance(value, OneOf)
    return OneOf.__name__ if drawn else BandPick.__name__


# Told apart beforehand, so that errors are those of the one that is meant.
Pick = Annotated[
    Annotated[BandPick, Tag(BandPick.__name__)] | Annotated[OneOf, Tag(OneOf.__name__)], Discriminator(_kind_of_pick)
]


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
        picks: Bands, stacked in this order along the channel axis; of one sensor each, or of one of several.
        size: Height and width of the rendered view in pixels.
        count: Number of such views of a sample, each with its own draw of bands, crop and augmentation.
        augmentation: How these views differ from the pixels read.
        time: Which acquisition of the sample's place these views show, drawn anew for every sample and view; null shows
            the sample itself. A place that has no other acquisition is shown as it is.
    """

    name: str = Field(min_length=1)
    picks: tuple[Pick, ...] = Field(min_length=1)
    size: int = Field(ge=4)
    count: int = Field(default=1, ge=1)
    augmentation: Augmentation = Augmentation()
    time: Time | None = None

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
    def draws_source(self) -> bool:
        """Whether the samples of a batch may show other sensors, or other times of their places, than each other."""
        return self.time is not None or any(len(pick.alternatives) > 1 for pick in self.picks)

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
