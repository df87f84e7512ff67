"""BYOL: predict what a slow copy of oneself sees in another view (Grill et al. 2020, arXiv 2006.07733).

RS-BYOL (Jain et al. 2022, arXiv 2205.02049) is this method with an optical and a radar view of one place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.methods.base import Method, StepOutput
from terrasieve.methods.collapse import CollapseSign, feature_std
from terrasieve.methods.multi_crop import count_views
from terrasieve.methods.taught import TaughtSpec
from terrasieve.models.backbone import Encoder
from terrasieve.models.heads import mlp_head
from terrasieve.models.layers import pass_views, split_batchnorm
from terrasieve.models.teacher import Teacher, momentum_at
from terrasieve.streams import Stream, torch_generator

_RS_BYOL = """@article{jain2022selfsupervised,
  author  = {Jain, Pallavi and Schoen-Phelan, Bianca and Ross, Robert},
  title   = {Self-Supervised Learning for Invariant Representations From Multi-Spectral and {SAR} Images},
  journal = {IEEE Journal of Selected Topics in Applied Earth Observations and Remote Sensing},
  volume  = {15},
  pages   = {7797--7808},
  year    = {2022},
}"""


class ByolSpec(TaughtSpec):
    """Settings of BYOL; the defaults are those of RS-BYOL (Jain et al. 2022, section IV-C).

    Attributes:
        name: ``byol``, by which a recipe chooses this method.
        hidden: Length between the two layers of projector and predictor.
        output: Length of the vectors that projector and predictor give.
        momentum: Share of itself that the teacher keeps at each step, 0 to 1, at the start of the run.
        global_branches: How many branches of the views, from the first, are global; all others are local, which the
            teacher does not see. Null takes all: Grill et al. and Jain et al. know no local views.
    """

    name: Literal["byol"] = "byol"
    hidden: int = Field(default=256, ge=1)
    output: int = Field(default=256, ge=1)
    momentum: float = Field(default=0.9, ge=0, le=1)
    global_branches: int | None = Field(default=None, ge=1)

    citations = (_RS_BYOL,)

    def build(self, encoder: Encoder, views: Sequence[int], seed: int) -> Byol:
        """BYOL around an encoder; see :meth:`MethodSpec.build`.

        Raises:
            ConfigError: There are fewer than two global views, or fewer branches than ``global_branches``.
        """
        counts = count_views("BYOL", views, self.global_branches or len(views))
        # A stream of its own: the encoder may have been drawn with the same seed.
        generator = torch_generator(Stream.HEAD_WEIGHTS, seed)
        projector = mlp_head(encoder.features, self.hidden, self.output, generator)
        predictor = mlp_head(self.output, self.hidden, self.output, generator)
        return Byol(encoder, projector, predictor, self.momentum, self.momentum_end, *counts)


class Byol(Method):
    """Student (encoder, projector, predictor) and teacher (slow copies of encoder and projector).

    Args:
        encoder: Gives the features that training is for.
        projector: Maps features ``(n, encoder.features)`` to projections ``(n, d)``.
        predictor: Maps the student's projections ``(n, d)`` to the teacher's ``(n, d)``.
        momentum: Share of itself that the teacher keeps at each step, 0 to 1, at the start of the run.
        momentum_end: The same share at the end of the run, reached on a cosine; None keeps ``momentum`` constant.
        global_views: Number of views that are global, at least 2; they come first.
        local_views: Number of views that are local, 0 or more.

    Attributes:
        teacher: Slow copies of encoder and projector, which move in ``after_step`` only.
    """

    metric_names = ("cosine", "target_std")
    collapse_signs = (CollapseSign("the teacher projects all inputs to nearly one vector", {"target_std": (0, 0.02)}),)

    def __init__(
        self,
        encoder: Encoder,
        projector: nn.Module,
        predictor: nn.Module,
        momentum: float = 0.9,
        momentum_end: float | None = None,
        global_views: int = 2,
        local_views: int = 0,
    ) -> None:
        super().__init__(encoder)
        self.global_views = global_views
        self.view_count = global_views + local_views
        self.projector = projector
        self.predictor = predictor
        split_batchnorm(self)
        self.teacher = Teacher(self._student())
        self.momentum = momentum
        self.momentum_end = momentum if momentum_end is None else momentum_end

    @property
    def target_encoder(self) -> Encoder:
        """The teacher's encoder."""
        # nn.Module types the attributes of a copy as tensors and modules.
        encoder: Encoder = self.teacher.model.encoder  # type: ignore[assignment]
        return encoder

    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        """The loss of a batch: every view predicts every global view but itself.

        It is twice the mean over these pairs: with two views the sum over both directions (Grill et al. 2020,
        equation 2), and of the same size with any number of views.

        Args:
            views: The global views, then the local ones, ``(n, channels, height, width)`` each, normalised; their
                sizes may differ.
        """
        features = pass_views(self.encoder, views)
        predictions = pass_views(self.predictor, pass_views(self.projector, features))
        targets = pass_views(self.teacher, views[: self.global_views])
        pairs = [(i, j) for i in range(len(views)) for j in range(len(targets)) if i != j]
        loss = torch.stack([byol_loss(predictions[i], targets[j]) for i, j in pairs]).sum() * (2 / len(pairs))
        metrics = {
            "cosine": 1 - loss.detach() / 4,
            "target_std": torch.stack([feature_std(target) for target in targets]).mean(),
        }
        return StepOutput(loss, metrics, features[0].detach().float())

    def after_step(self, progress: float) -> None:
        """Move the teacher.

        Args:
            progress: Share of the run that is done, from 0 to 1.
        """
        self.teacher.update(self._student(), momentum_at(progress, self.momentum, self.momentum_end))

    def _student(self) -> nn.Sequential:
        return nn.Sequential(OrderedDict(encoder=self.encoder, projector=self.projector))


def byol_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean of ``2 - 2 cos`` between predictions and targets (Grill et al. 2020, equation 2).

    Args:
        predictions: What the student predicts, ``(n, d)``.
        targets: What the teacher projects, ``(n, d)``; no gradient flows into them.

    Returns:
        Scalar from 0 (parallel) to 4 (opposite), float32 whatever the precision of the vectors.
    """
    predictions = functional.normalize(predictions.float(), dim=-1)
    targets = functional.normalize(targets.detach().float(), dim=-1)
    return 2 - 2 * (predictions * targets).sum(dim=-1).mean()
