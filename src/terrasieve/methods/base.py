"""What every self-supervised method is: views in, loss out; and which methods there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from terrasieve.errors import ConfigError
from terrasieve.methods.collapse import CollapseSign
from terrasieve.models.backbone import Encoder
from terrasieve.registry import Registry
from terrasieve.schema import Spec


class StepOutput(NamedTuple):
    """What one forward pass gives; a tuple, because data-parallel wrappers look for tensors inside tuples only.

    Attributes:
        loss: Scalar, float32, mean over the batch; what to differentiate.
        metrics: Detached scalars for the log, by names that are among ``Method.metric_names``.
        embedding: Detached float32 features ``(n, features)`` of the first view by the student's encoder, for
            monitors. One view only: two kinds of views that each collapsed to a point of their own would still
            vary when taken together.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor]
    embedding: Tensor


class Method(nn.Module, ABC):
    """A self-supervised method with its student and whatever it learns from.

    Per optimiser step: any number of ``forward`` and backward passes over micro-batches, ``before_step`` once, the
    optimiser's step over the parameters that require a gradient, then ``after_step`` once.

    Attributes:
        encoder: The student's encoder: what training is for.
        view_count: How many views of a sample ``forward`` wants.
        metric_names: What ``StepOutput.metrics`` may hold; the columns of the log beside the loss.
        collapse_signs: What the metrics show when the method has collapsed, of which a run warns.
        mixes_samples: Whether the loss compares the samples of a micro-batch with each other, so that it is not the
            mean over its micro-batches even where no batch normalisation mixes them.
        draws_in_forward: What ``forward`` draws on the host, as the end of a sentence, for which it cannot be compiled;
            None where it is a pure function of weights and pixels.
    """

    view_count: int
    metric_names: tuple[str, ...] = ()
    collapse_signs: tuple[CollapseSign, ...] = ()
    mixes_samples: bool = False
    draws_in_forward: str | None = None

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def exported(self) -> Encoder:
        """The encoder that a run exports and probes: the student's, unless the method's source evaluates another."""
        return self.encoder

    @property
    @abstractmethod
    def target_encoder(self) -> Encoder:
        """The encoder that moves slowest, whose features curation sorts the archive by."""

    @property
    def counterpart(self) -> tuple[str, Encoder] | None:
        """``student`` or ``teacher``, whichever is not exported, and its encoder; None where there is no teacher."""
        roles = {"student": self.encoder, "teacher": self.target_encoder}
        return next((one for one in roles.items() if one[1] is not self.exported), None)

    @abstractmethod
    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        """The loss of views whose number is right; for subclasses to write, for ``forward`` to call.

        Args:
            views: One batch a view, ``(n, c, height, width)``, as many as :meth:`forward` takes.
        """

    def before_step(self, progress: float) -> None:
        """What is done to the gradients of a step before they are clipped and taken; nothing, unless overridden.

        A parameter whose gradient is set to None here stays where it is: it is not decayed, and the optimiser's state
        knows nothing of the step.

        Args:
            progress: Share of the run that is done before this step, from 0 up to but not including 1.
        """

    @abstractmethod
    def after_step(self, progress: float) -> None:
        """What moves once per optimiser step, such as a teacher.

        Args:
            progress: Share of the run that is done, from 0 to 1.
        """

    def forward(self, views: Sequence[Tensor]) -> StepOutput:
        """The loss of a batch; subclasses write ``compare`` instead.

        Args:
            views: ``view_count`` tensors ``(n, channels, height, width)``, normalised; row by row the same samples.

        Raises:
            ConfigError: ``views`` are not ``view_count`` in number.
            BandError: A view has another number of bands than the encoder.
        """
        if len(views) != self.view_count:
            raise ConfigError(
                f"{type(self).__name__} compares {self.view_count} views of a sample, but was given {len(views)}. "
                f"Let the recipe's views make {self.view_count}, counting repeats."
            )
        assert len({len(view) for view in views}) == 1, "views are of different samples"
        return self.compare(views)


class MethodSpec(Spec):
    """The settings of a method, as a recipe states them, which build it.

    A subclass narrows ``name`` to its one name, ``name: Literal["byol"] = "byol"``.

    Attributes:
        name: The name that a recipe states.
        citations: BibTeX entries of the papers to cite, in the order in which a model's card shows them.
    """

    name: str
    citations: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, encoder: Encoder, views: Sequence[int], seed: int) -> Method:
        """The method around an encoder, with untrained heads.

        Args:
            encoder: Becomes the student's encoder; a teacher gets a copy.
            views: How many views of a sample each branch of the recipe makes, in the order in which they come to
                ``forward``.
            seed: Decides the heads' initial weights; not negative.

        Raises:
            ConfigError: The method cannot compare that many views.
        """

    def memory(self, steps: int) -> NDArray[np.float64] | None:
        """Share of its initial weights that the teacher holds before the first step and after each, ``(steps + 1,)``.

        Args:
            steps: How many optimiser steps the run has, 1 or more.

        Returns:
            None, as here, where there is no teacher.
        """
        return None

    def paced(self, steps: int, use: int) -> Self:
        """The same settings with those adapted that depend on the length of the run; as here, itself if there are none.

        Args:
            steps: How many optimiser steps the run has, 1 or more.
            use: The first step after which the teacher's features are used: a round of curation, or the last step.
        """
        return self

    def warning(self, steps: int, use: int) -> str | None:
        """What is unusual about a run of that length, as a sentence; None, as here, where nothing is.

        Args:
            steps: How many optimiser steps the run has, 1 or more.
            use: The first step after which the teacher's features are used: a round of curation, or the last step.
        """
        return None


METHODS: Registry[MethodSpec] = Registry(
    kind="method",
    base=MethodSpec,
    places=("terrasieve.methods",),
    group="terrasieve.methods",
    name_of=lambda spec: str(spec.model_fields["name"].default),
)
"""Every method that a recipe can name."""
