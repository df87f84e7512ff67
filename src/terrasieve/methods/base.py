"""What every self-supervised method is: views in, loss out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from terrasieve.errors import ConfigError
from terrasieve.models.backbone import Encoder


class StepOutput(NamedTuple):
    """What one forward pass gives; a tuple, because data-parallel wrappers look for tensors inside tuples only.

    Attributes:
        loss: Scalar, float32, mean over the batch; what to differentiate.
        metrics: Detached scalars for the log.
        embedding: Detached float32 features ``(n, features)`` of the first view by the student's encoder, for
            monitors. One view only: two kinds of views that each collapsed to a point of their own would still
            vary when taken together.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor]
    embedding: Tensor


class Method(nn.Module, ABC):
    """A self-supervised method with its student and whatever it learns from.

    Per optimiser step: any number of ``forward`` and backward passes over micro-batches, the optimiser's step over
    the parameters that require a gradient, then ``after_step`` once.

    Attributes:
        encoder: The student's encoder: what training is for.
        view_count: How many views of a sample ``forward`` wants.
        metric_names: What ``StepOutput.metrics`` may hold; the columns of the log beside the loss.
    """

    view_count: int
    metric_names: tuple[str, ...] = ()

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

    @abstractmethod
    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        """The loss of views whose number is right; for subclasses to write, for ``forward`` to call."""

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
            ConfigError: Too few or too many views.
            BandError: A view has another number of bands than the encoder.
        """
        if len(views) != self.view_count:
            raise ConfigError(
                f"{type(self).__name__} compares {self.view_count} views of a sample, but was given {len(views)}. "
                f"Let the recipe's views make {self.view_count}, counting repeats."
            )
        assert len({len(view) for view in views}) == 1, "views are of different samples"
        return self.compare(views)
