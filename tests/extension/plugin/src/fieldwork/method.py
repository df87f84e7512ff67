"""SimSiam: predict one view's projection from another's, without a teacher (Chen and He 2021, arXiv 2011.10566)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional

from terrasieve.methods.base import Method, MethodSpec, StepOutput
from terrasieve.models.backbone import Encoder
from terrasieve.models.heads import mlp_head
from terrasieve.models.layers import pass_views, split_batchnorm


class SimSiamSpec(MethodSpec):
    """Settings of SimSiam.

    Attributes:
        name: Marks the method.
        hidden: Length between the two layers of projector and predictor.
        output: Length of projections and predictions.
    """

    name: Literal["simsiam"] = "simsiam"
    hidden: int = Field(default=64, ge=1)
    output: int = Field(default=64, ge=1)

    citations = ("@misc{chen2021simsiam,\n  note = {arXiv:2011.10566},\n}",)

    def build(self, encoder: Encoder, views: Sequence[int], seed: int) -> SimSiam:
        """SimSiam around an encoder."""
        generator = Generator().manual_seed(seed + 1)
        projector = mlp_head(encoder.features, self.hidden, self.output, generator)
        return SimSiam(encoder, projector, mlp_head(self.output, self.hidden, self.output, generator))


class SimSiam(Method):
    """An encoder with a projector and a predictor, and no second copy of them."""

    view_count = 2
    metric_names = ("cosine",)

    def __init__(self, encoder: Encoder, projector: nn.Module, predictor: nn.Module) -> None:
        super().__init__(encoder)
        self.projector = projector
        self.predictor = predictor
        split_batchnorm(self)

    @property
    def target_encoder(self) -> Encoder:
        """The one encoder that there is."""
        return self.encoder

    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        """Minus the mean cosine between each view's prediction and the other's projection."""
        features = pass_views(self.encoder, views)
        projections = pass_views(self.projector, features)
        first, second = pass_views(self.predictor, projections)
        cosine = (_cosine(first, projections[1]) + _cosine(second, projections[0])) / 2
        return StepOutput(-cosine, {"cosine": cosine.detach()}, features[0].detach().float())

    def after_step(self, progress: float) -> None:
        """Nothing moves but what the optimiser moves."""


def _cosine(prediction: Tensor, projection: Tensor) -> Tensor:
    return functional.cosine_similarity(prediction.float(), projection.detach().float()).mean()
