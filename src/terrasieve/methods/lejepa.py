"""LeJEPA: views of a sample agree, and all of them together look normal (Balestriero and LeCun 2025).

There is no teacher, no predictor, no stopped gradient and no temperature (arXiv 2511.08544). That vectors are
distributed normally in every direction keeps them from collapsing, so that one weight is all there is to set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from terrasieve.device import send
from terrasieve.methods.base import Method, MethodSpec, StepOutput
from terrasieve.methods.multi_crop import MultiCrop, count_views
from terrasieve.methods.sigreg import sigreg
from terrasieve.methods.step_seed import StepSeed
from terrasieve.models.backbone import Encoder
from terrasieve.models.heads import deep_mlp_head
from terrasieve.models.layers import pass_views, split_batchnorm
from terrasieve.streams import Stream, generator, torch_generator

_LEJEPA = """@article{balestriero2025lejepa,
  author  = {Balestriero, Randall and LeCun, Yann},
  title   = {{LeJEPA}: Provable and Scalable Self-Supervised Learning Without the Heuristics},
  journal = {arXiv preprint arXiv:2511.08544},
  year    = {2025},
}"""


class LejepaSpec(MethodSpec):
    """Settings of LeJEPA.

    Attributes:
        name: ``lejepa``, by which a recipe chooses this method.
        hidden: Length of the projector's two hidden layers.
        output: Length of the projections, which are what has to agree and to look normal.
        weight: Weight of SIGReg, 0 to 1; the agreement of the views has one less this. The paper explores 0.01 to 0.1.
        slices: Number of random directions along which projections are compared with a normal distribution, drawn anew
            at each step.
        global_branches: How many branches of the views, from the first, are global; all others are local. Every view
            is to agree with the mean of the global ones. Null takes all branches.
    """

    name: Literal["lejepa"] = "lejepa"
    hidden: int = Field(default=2048, ge=1)
    output: int = Field(default=64, ge=1)
    weight: float = Field(default=0.05, ge=0, le=1)
    slices: int = Field(default=1024, ge=1)
    global_branches: int | None = Field(default=None, ge=1)

    citations = (_LEJEPA,)

    def build(self, encoder: Encoder, views: Sequence[int], seed: int) -> Lejepa:
        """LeJEPA around an encoder; see :meth:`MethodSpec.build`.

        Raises:
            ConfigError: There are fewer than two global views, or fewer branches than ``global_branches``.
        """
        counts = count_views("LeJEPA", views, self.global_branches or len(views))
        # A stream of its own: the encoder may have been drawn with the same seed.
        draws = torch_generator(Stream.HEAD_WEIGHTS, seed)
        return Lejepa(encoder, deep_mlp_head(encoder.features, self.hidden, self.output, draws), self, counts, seed)


class Lejepa(Method):
    """An encoder and a projector.

    Args:
        encoder: Gives the features that training is for.
        projector: Maps features ``(n, encoder.features)`` to projections ``(n, d)``.
        spec: Everything but the projector's sizes, which ``projector`` has.
        counts: How many views are global, which come first, and how many local.
        seed: The run's seed, which decides the directions of every step.

    Attributes:
        step_seed: What decides the directions of a step.
    """

    metric_names = ("invariance", "sigreg")
    mixes_samples = True
    draws_in_forward = "the directions of SIGReg"

    def __init__(self, encoder: Encoder, projector: nn.Module, spec: LejepaSpec, counts: MultiCrop, seed: int) -> None:
        super().__init__(encoder)
        self.projector = projector
        self.spec = spec
        self.global_views = counts.global_views
        self.view_count = sum(counts)
        split_batchnorm(self)
        self.step_seed = StepSeed(seed)

    @property
    def target_encoder(self) -> Encoder:
        """The encoder itself: there is no slower one."""
        return self.encoder

    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        """The loss of a batch (the paper's equation for LeJEPA, section 5).

        Args:
            views: The global views, then the local ones, ``(n, channels, height, width)`` each, normalised.
        """
        features = pass_views(self.encoder, views)
        projections = [one.float() for one in pass_views(self.projector, features)]
        directions = self._directions(projections[0])
        invariance = agreement(projections, self.global_views)
        spread = torch.stack([sigreg(one, directions) for one in projections]).mean()
        loss = (1 - self.spec.weight) * invariance + self.spec.weight * spread
        metrics = {"invariance": invariance.detach(), "sigreg": spread.detach()}
        return StepOutput(loss, metrics, features[0].detach().float())

    def after_step(self, progress: float) -> None:
        """Draw other directions from now on.

        Args:
            progress: Share of the run that is done, from 0 to 1; it does not matter.
        """
        self.step_seed.advance()

    def _directions(self, like: Tensor) -> Tensor:
        """Unit vectors ``(d, slices)``, the same in all micro-batches and processes of a step."""
        draws = generator(Stream.DIRECTIONS, *self.step_seed.words)
        drawn = draws.standard_normal((like.shape[1], self.spec.slices), dtype=np.float32)
        unit = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=0))
        return send(unit, like.device)


def agreement(projections: Sequence[Tensor], global_views: int) -> Tensor:
    """Mean squared distance of every view's projections to the mean of the global ones.

    Args:
        projections: One ``(n, d)`` a view, those of global views first.
        global_views: How many views are global, 1 or more.

    Returns:
        Scalar, the mean over views, samples and dimensions.
    """
    together = torch.stack(list(projections))
    return (together - together[:global_views].mean(dim=0)).square().mean()
