"""How a run curates its pool: the values under ``curation:`` in a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from terrasieve.curation.balanced import BalancedClusters
from terrasieve.curation.curators import CuratorSpec
from terrasieve.curation.plan import CurationPlan
from terrasieve.schema import Spec


class CleanPass(Spec):
    """Features of a pass over the archive without augmentation, by the slow encoder.

    Attributes:
        name: Marks the source.
        share: Share of the archive that is embedded in each round, drawn anew; the rest cannot be in that pool.
    """

    name: Literal["clean"] = "clean"
    share: float = Field(default=1.0, gt=0, le=1)


class FeatureBank(Spec):
    """The last features that training itself computed of each sample, by the student, from its first view.

    They cost nothing, but each saw one random crop (and band) through weights of another step.

    Attributes:
        name: Marks the source.
        refresh: Share of the archive, the oldest features first, that is embedded anew before each round; more where
            fewer samples have features than the pool is to hold.
    """

    name: Literal["bank"] = "bank"
    refresh: float = Field(default=0.1, ge=0, le=1)


Features = Annotated[CleanPass | FeatureBank, Field(discriminator="name")]


class CurationSpec(CurationPlan):
    """When the pool is drawn anew, from which features, and by what rule.

    Attributes:
        curator: The rule.
        features: Where the features come from.
        inputs: What the encoder is shown in a pass over the archive, such as ``s2:B03``; the vectors of several are
            joined. Null takes, for each sensor that the views show, the first bands that fill the encoder.
        size: Height and width in pixels that samples are resized to in that pass; null takes the size of the first
            view, at which the encoder is trained.
        batch_size: Samples of one forward pass.
    """

    curator: CuratorSpec = BalancedClusters()
    features: Features = CleanPass()
    inputs: tuple[str, ...] | None = Field(default=None, min_length=1)
    size: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=256, ge=1)

    @field_validator("curator", "features", mode="before")
    @classmethod
    def _the_default_variant_needs_no_name(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping) or "name" in value:
            return value
        return {**value, "name": "balanced" if info.field_name == "curator" else "clean"}

    @model_validator(mode="after")
    def _the_pool_fits_what_is_embedded(self) -> Self:
        if isinstance(self.features, CleanPass) and self.features.share < self.keep:
            raise ValueError(
                f"keep is {self.keep:g}, but a round embeds only a share of {self.features.share:g} of the archive; "
                "raise curation.features.share or lower curation.keep"
            )
        if isinstance(self.features, FeatureBank) and self.warmup == 0:
            raise ValueError("the feature bank is empty before training begins; give a curation.warmup above 0")
        return self
