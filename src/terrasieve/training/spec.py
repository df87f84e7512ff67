"""How a model is trained: the values under ``train:`` and ``curation:`` in a recipe."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator, model_validator

from terrasieve.curation.balanced import BalancedClusters
from terrasieve.curation.curator import CuratorSpec
from terrasieve.curation.pacing import CurationPlan
from terrasieve.device import TrainingPrecision
from terrasieve.schema import Spec
from terrasieve.training.logs import LoggerName
from terrasieve.training.schedules import Timeline, cosine, off_boundary_warning, warm_restarts


class LearningRates(Spec):
    """How the learning rate goes through a run."""

    @abstractmethod
    def build(self, high: float, low: float, timeline: Timeline) -> NDArray[np.float64]:
        """The learning rate of every step, shape ``(steps,)``.

        Args:
            high: Highest rate, above 0.
            low: Lowest rate, 0 or more.
            timeline: The steps of the run.
        """

    def warning(self, epochs: float) -> str | None:
        """What is unusual about a run of that many passes, as a sentence; None, as here, where nothing is."""
        return None


class Cosine(LearningRates):
    """Cosine decay over the whole run after a linear warm-up.

    Attributes:
        name: The name that chooses this schedule in a recipe.
        warmup_epochs: Length of the linear warm-up in passes over the pool, 0 or more.
        warmup_steps: The same in optimiser steps, which then counts; for runs on pools of different sizes that are
            to have the same schedule.
    """

    name: Literal["cosine"] = "cosine"
    warmup_epochs: float = Field(default=0, ge=0)
    warmup_steps: int | None = Field(default=None, ge=0)

    def build(self, high: float, low: float, timeline: Timeline) -> NDArray[np.float64]:
        """See :meth:`LearningRates.build`."""
        stated = self.warmup_steps
        warmup = timeline.nearest_step(self.warmup_epochs) if stated is None else stated
        return cosine(high, low, timeline.steps, warmup=warmup)


class WarmRestarts(LearningRates):
    """Cosine annealing with warm restarts, as RS-BYOL trains (Jain et al. 2022, section IV-C).

    Attributes:
        name: The name that chooses this schedule in a recipe.
        first_epochs: Length of the first cycle in passes over the pool, above 0.
        multiplier: How many times longer each cycle is than the one before, 1 or more.
    """

    name: Literal["warm-restarts"] = "warm-restarts"
    first_epochs: float = Field(default=10, gt=0)
    multiplier: int = Field(default=2, ge=1)

    def build(self, high: float, low: float, timeline: Timeline) -> NDArray[np.float64]:
        """See :meth:`LearningRates.build`."""
        return warm_restarts(high, low, timeline.epochs[:-1], self.first_epochs, self.multiplier)

    def warning(self, epochs: float) -> str | None:
        """Whether the run ends within a cycle, with the learning rate not annealed."""
        return off_boundary_warning(epochs, self.first_epochs, self.multiplier)


Schedule = Annotated[Cosine | WarmRestarts, Field(discriminator="name")]


class Optimising(Spec):
    """Which optimiser moves the weights, and how far."""

    @abstractmethod
    def build(self, groups: Sequence[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        """The optimiser, at its highest learning rate.

        One kernel moves all parameters (``fused``) where the device has it and is the faster for it. In 16 bits it
        leaves out the step of an overflow without asking the device whether there was one.

        Args:
            groups: Parameter groups as torch takes them, each with its ``weight_decay``.
            device: Where the parameters are when it steps.
        """


class Sgd(Optimising):
    """Stochastic gradient descent with momentum.

    Attributes:
        name: The name that chooses this optimiser in a recipe.
        lr: The highest learning rate, after the warm-up; above 0.
        lr_batch: Batch size that ``lr`` is stated for, 1 or more: with another ``train.batch_size`` the highest rate
            grows or shrinks in proportion (Goyal et al. 2017, arXiv 1706.02677). Null takes ``lr`` as it stands.
        lr_end: The lowest learning rate, at the end of the schedule or of a cycle, whatever the batch; 0 or more.
        momentum: Momentum; RS-BYOL does not state it, 0.9 is the common value.
        weight_decay: Factor of the L2 penalty on weights, 0 or more.
        weight_decay_end: The same at the end of the run, reached on a cosine; null keeps it constant.
        layer_decay: Factor, above 0 and at most 1, from the learning rate of each layer of the encoder to that of the
            layer before it (Bao et al. 2022, arXiv 2106.08254); for pretrained weights. The last layer and the heads
            move at the full rate. Null moves all at the full rate.
    """

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.2, gt=0)
    lr_batch: int | None = Field(default=None, ge=1)
    lr_end: float = Field(default=0.002, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-5, ge=0)
    weight_decay_end: float | None = Field(default=None, ge=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1)

    def build(self, groups: Sequence[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        """See :meth:`Optimising.build`."""
        # On a CPU the fused kernel copies weights that are channels last: 22 ms a step of a ResNet18, against 8.
        fused = device.type == "cuda" or None
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=fused)


class AdamW(Optimising):
    """AdamW (Loshchilov and Hutter 2019).

    Attributes:
        name: The name that chooses this optimiser in a recipe.
        lr: The highest learning rate, after the warm-up; above 0.
        lr_batch: Batch size that ``lr`` is stated for, as in :class:`Sgd`; null takes ``lr`` as it stands.
        lr_end: The lowest learning rate, at the end of the schedule or of a cycle, whatever the batch; 0 or more.
        weight_decay: Factor of the decoupled weight decay, 0 or more.
        weight_decay_end: The same at the end of the run, reached on a cosine (Caron et al. 2021, appendix C); null
            keeps it constant.
        layer_decay: Factor, above 0 and at most 1, from the learning rate of each layer of the encoder to that of the
            layer before it, as in :class:`Sgd`; null moves all at the full rate.
    """

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    lr_batch: int | None = Field(default=None, ge=1)
    lr_end: float = Field(default=1e-6, ge=0)
    weight_decay: float = Field(default=0.04, ge=0)
    weight_decay_end: float | None = Field(default=None, ge=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1)

    def build(self, groups: Sequence[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        """See :meth:`Optimising.build`."""
        # That copying included, 19 ms a step of a ResNet18 on a CPU, against 46.
        fused = device.type in ("cpu", "cuda") or None
        return torch.optim.AdamW(groups, lr=self.lr, fused=fused)


Optimiser = Annotated[Sgd | AdamW, Field(discriminator="name")]


class TrainSpec(Spec):
    """Length, optimiser, precision and the periodic jobs of a run.

    Attributes:
        epochs: Passes over the pool; need not be whole. With curation, over the pool of the moment.
        steps: Length in optimiser steps instead of epochs, for runs that are compared at equal cost; null takes
            ``epochs``.
        batch_size: Samples of one optimiser step, over all processes and micro-batches.
        accumulate: Micro-batches that make one optimiser step; must divide ``batch_size``.
        clip_norm: Largest norm of the whole gradient, over all parameters together; null never clips it.
        clip_parameter_norm: Largest norm of the gradient of each parameter by itself, as DINO's published code clips;
            null never clips it. Only one of the two can be set.
        optimiser: The optimiser and its learning rates, SGD or AdamW.
        schedule: How the learning rate goes from its highest to its lowest value.
        precision: ``bf16`` and ``16`` run under autocast with float32 weights; ``auto`` is ``bf16`` where the device
            has fast instructions for it, else ``32``. Products in ``32`` are of true float32, without TF32. Weights and
            views lie channels last in memory in each.
        sync_batchnorm: Whether batch normalisation takes its statistics over the samples of all processes, which only
            GPUs can; else each process has those of its own samples.
        compile: Whether the method's forward pass is compiled to one graph, once, at the first step, and its backward
            pass with it. Worth while on a GPU in a long run; refused for methods that draw numbers in it.
        seed: Decides initial weights, batches, views and rounds; 0 or more.
        workers: How many threads, or processes where the archive has to be decoded, read ahead; 0 reads in line.
            ``auto`` measures the first steps and says what it chose.
        log_every: Steps between two lines of the log; the loss is checked for NaN as often.
        evaluate_every: Epochs between two runs of the online kNN; null only at the end.
        evaluate_steps: The same in optimiser steps, for runs that are compared at equal cost; it goes before
            ``evaluate_every``.
        checkpoint_minutes: Minutes between two checkpoints; one is always written at the end.
        loggers: The logs that numbers go to besides ``log.csv``.
        timeout_minutes: How long a process waits for the others before it ends the run; above 0.
        keep_checkpoints: How many of the last checkpoints stay on disk.
        collapse_std: Feature standard deviation below which the embedding counts as collapsed.
        collapse_rank: Effective rank below which it counts as collapsed.
    """

    epochs: float = Field(default=400, gt=0)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=2)
    accumulate: int = Field(default=1, ge=1)
    clip_norm: float | None = Field(default=None, gt=0)
    clip_parameter_norm: float | None = Field(default=None, gt=0)
    optimiser: Optimiser = Sgd()
    schedule: Schedule = WarmRestarts()
    precision: TrainingPrecision = "auto"
    sync_batchnorm: bool = False
    compile: bool = False
    seed: int = Field(default=0, ge=0)
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = 0
    log_every: int = Field(default=20, ge=1)
    evaluate_every: float | None = Field(default=None, gt=0)
    evaluate_steps: int | None = Field(default=None, ge=1)
    checkpoint_minutes: float = Field(default=10, gt=0)
    timeout_minutes: float = Field(default=30, gt=0)
    loggers: tuple[LoggerName, ...] = ()
    keep_checkpoints: int = Field(default=2, ge=1)
    collapse_std: float = Field(default=0.02, ge=0)
    collapse_rank: float = Field(default=2.0, ge=0)

    @model_validator(mode="after")
    def _micro_batches_divide(self) -> Self:
        if self.batch_size % self.accumulate or self.batch_size // self.accumulate < 2:
            raise ValueError(
                f"batch_size {self.batch_size} does not split into {self.accumulate} micro-batches of two or more; "
                "set train.accumulate to a divisor of train.batch_size"
            )
        return self

    @model_validator(mode="after")
    def _gradients_are_clipped_once(self) -> Self:
        if self.clip_norm is not None and self.clip_parameter_norm is not None:
            raise ValueError(
                f"clip_norm is {self.clip_norm:g} and clip_parameter_norm is {self.clip_parameter_norm:g}; set "
                "train.clip_norm=null to clip each parameter, or train.clip_parameter_norm=null to clip the whole"
            )
        return self


# -------------------------------------------------------------------- curation


class CleanPass(Spec):
    """Features of a pass over the archive without augmentation, by the slow encoder.

    Attributes:
        name: The name that chooses this source in a recipe.
        share: Share of the archive that is embedded in each round, drawn anew; the rest cannot be in that pool.
    """

    name: Literal["clean"] = "clean"
    share: float = Field(default=1.0, gt=0, le=1)


class FeatureBank(Spec):
    """The last features that training itself computed of each sample, by the student, from its first view.

    They cost nothing, but each saw one random crop (and band) through weights of another step. What the weights have
    changed since is estimated from samples of every age that are embedded anew
    (:mod:`terrasieve.training.ageing`), so that the age of features does not decide what is drawn. A new run needs a
    warm-up of a whole pass, after which every sample has features.

    Attributes:
        name: The name that chooses this source in a recipe.
        refresh: Share of the archive that is embedded anew before each round, 16 samples at least; the more, the
            closer the estimate.
    """

    name: Literal["bank"] = "bank"
    refresh: float = Field(default=0.2, ge=0, le=1)


Features = Annotated[CleanPass | FeatureBank, Field(discriminator="name")]


class CurationSpec(CurationPlan):
    """When the pool is drawn anew, from which features, and by what rule.

    Attributes:
        curator: The rule by which a pool is chosen.
        features: The source of the features that it is chosen by.
        inputs: What the encoder is shown in a pass over the archive, such as ``s2:B03``; the vectors of several are
            joined. Null takes, for each sensor that the views show, the first bands that fill the encoder.
        size: Height and width in pixels that samples are resized to in that pass; null takes the size of the first
            view, at which the encoder is trained.
        batch_size: How many samples pass through the encoder at once, 1 or more.
    """

    curator: CuratorSpec = BalancedClusters()
    features: Features = CleanPass()
    inputs: tuple[str, ...] | None = Field(default=None, min_length=1)
    size: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=256, ge=1)

    @field_validator("curator", "features", mode="before")
    @classmethod
    def _the_default_variant_needs_no_name(cls, value: Any, info: ValidationInfo) -> Any:
        # ``curation.features.share=0.5`` alone is to change the default, which a union of variants cannot know.
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
