"""DINO: tell from a crop what a slow copy of oneself makes of the whole (Caron et al. 2021, arXiv 2104.14294)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from terrasieve.methods.base import Method, StepOutput
from terrasieve.methods.collapse import CollapseSign
from terrasieve.methods.dino_loss import Centre, DinoLoss, dino_loss
from terrasieve.methods.koleo import koleo_loss
from terrasieve.methods.multi_crop import count_views
from terrasieve.methods.pair_entropies import Sharpening
from terrasieve.methods.taught import TaughtSpec
from terrasieve.models.backbone import Encoder
from terrasieve.models.heads import DinoHead, dino_head
from terrasieve.models.layers import pass_views, split_batchnorm
from terrasieve.models.teacher import Teacher
from terrasieve.streams import Stream, torch_generator

_OCEANSAR = """@inproceedings{kerdreux2025efficient,
  author    = {Kerdreux, Thomas and Tuel, Alexandre and Febvre, Quentin and Mouche, Alexis and Chapron, Bertrand},
  title     = {Efficient Self-Supervised Learning for {Earth} Observation via Dynamic Dataset Curation},
  booktitle = {CVPR Workshop MORSE},
  year      = {2025},
  note      = {arXiv:2504.06962},
}"""

_DINO = """@inproceedings{caron2021emerging,
  author    = {Caron, Mathilde and Touvron, Hugo and Misra, Ishan and J{\\'e}gou, Herv{\\'e} and Mairal, Julien and
               Bojanowski, Piotr and Joulin, Armand},
  title     = {Emerging Properties in Self-Supervised Vision Transformers},
  booktitle = {ICCV},
  year      = {2021},
}"""


class DinoSpec(TaughtSpec):
    """Settings of DINO; the defaults are those of Caron et al. 2021 (sections 3.1 and 3.2, appendix C).

    Shares of the run are the paper's epochs over the 100 of its shorter runs. ``freeze_last_layer`` stands in its
    published code only.

    Attributes:
        name: ``dino``, by which a recipe chooses this method.
        hidden: Length of the head's two hidden layers.
        bottleneck: Length of the unit vectors that are compared with prototypes.
        prototypes: Number of unit vectors with which a bottleneck is compared, which is the number of outputs.
        batch_norm: Whether the head's hidden layers are normalised by the batch.
        student_temperature: What the student's outputs are divided by before the softmax, above 0.
        teacher_temperature_start: What the teacher's outputs are divided by at the start of the run, above 0.
        teacher_temperature: What they are divided by after the warm-up, above 0.
        teacher_temperature_warmup: Share of the run, 0 to 1, over which the one goes to the other in a line.
        momentum_end: Share of itself that the teacher keeps at the end of the run, reached on a cosine.
        centre_momentum: Share of itself that the centre keeps at each step, 0 up to but not including 1.
        freeze_last_layer: Share of the run, 0 to 1, over which the prototypes stay where they are: they get no
            gradient and no weight decay, and the optimiser's state does not know of these steps.
        koleo: Weight, 0 or more, of the KoLeo regulariser, which is taken over the student's features of each global
            view and averaged; it compares the samples of a micro-batch on one device. 0 leaves it out.
        global_branches: How many branches of the views, from the first, are global; all others are local. Null takes
            the first alone.
    """

    name: Literal["dino"] = "dino"
    hidden: int = Field(default=2048, ge=1)
    bottleneck: int = Field(default=256, ge=1)
    prototypes: int = Field(default=65536, ge=2)
    batch_norm: bool = False
    student_temperature: float = Field(default=0.1, gt=0)
    teacher_temperature_start: float = Field(default=0.04, gt=0)
    teacher_temperature: float = Field(default=0.07, gt=0)
    teacher_temperature_warmup: float = Field(default=0.3, ge=0, le=1)
    momentum_end: float | None = Field(default=1.0, ge=0, le=1)
    centre_momentum: float = Field(default=0.9, ge=0, lt=1)
    freeze_last_layer: float = Field(default=0.01, ge=0, le=1)
    koleo: float = Field(default=0.0, ge=0)
    global_branches: int | None = Field(default=None, ge=1)

    citations: ClassVar[tuple[str, ...]] = (_OCEANSAR, _DINO)

    def build(self, encoder: Encoder, views: Sequence[int], seed: int) -> Dino:
        """DINO around an encoder; see :meth:`MethodSpec.build`.

        Raises:
            ConfigError: There are fewer than two global views, or fewer branches than ``global_branches``.
        """
        counts = count_views("DINO", views, self.global_branches or 1)
        # A stream of its own: the encoder may have been drawn with the same seed.
        generator = torch_generator(Stream.HEAD_WEIGHTS, seed)
        head = dino_head(
            encoder.features, self.hidden, self.bottleneck, self.prototypes, generator, batch_norm=self.batch_norm
        )
        return Dino(encoder, head, self, counts.global_views, counts.local_views)


class Dino(Method):
    """Student (encoder, head), teacher (slow copies of both) and the centre of the teacher's outputs.

    The student sees every view of a sample, the teacher the global ones only.

    Args:
        encoder: Becomes the student's encoder; the teacher gets a copy.
        head: Maps features ``(n, encoder.features)`` to outputs ``(n, prototypes)``.
        spec: Everything but the head's sizes, which ``head`` has.
        global_views: Number of views that are global, at least 2; they come first.
        local_views: Number of views that are local, 0 or more.

    Attributes:
        teacher: Slow copies of encoder and head, which move in ``after_step`` only.
        centre: Moving average of the teacher's outputs, which moves in ``after_step`` only.
        progress: Share of the run that is done, which schedules follow; a tensor and a part of the state, so that a
            resumed run goes on alike and an accelerator need not be waited for.
    """

    metric_names: tuple[str, ...] = ("teacher_entropy", "divergence", "centre_norm", "koleo")
    progress: Tensor

    def __init__(
        self, encoder: Encoder, head: DinoHead, spec: DinoSpec, global_views: int, local_views: int = 0
    ) -> None:
        super().__init__(encoder)
        self.head = head
        self.spec = spec
        self.global_views = global_views
        self.view_count = global_views + local_views
        self.mixes_samples = spec.koleo > 0
        split_batchnorm(self)
        self.teacher = Teacher(self._student())
        self.centre = Centre(len(head.prototypes), spec.centre_momentum)
        self.collapse_signs = _collapse_signs(len(head.prototypes))
        self.register_buffer("progress", torch.zeros(()))

    @property
    def target_encoder(self) -> Encoder:
        """The teacher's encoder."""
        # nn.Module types the attributes of a copy as tensors and modules.
        encoder: Encoder = self.teacher.model.encoder  # type: ignore[assignment]
        return encoder

    @property
    def exported(self) -> Encoder:
        """The teacher's encoder: Caron et al. evaluate it, since it is ahead of the student throughout."""
        return self.target_encoder

    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        """The loss of a batch (Caron et al. 2021, equation 3), with KoLeo where the settings ask for it.

        Args:
            views: The global views, then the local ones, ``(n, channels, height, width)`` each, normalised; those of
                one kind are of one size.
        """
        features = pass_views(self.encoder, views)
        outputs = pass_views(self.head, features)
        taught = pass_views(self.teacher, views[: self.global_views])
        if self.training:
            for output in taught:
                self.centre.note(output)
        sharpening = Sharpening(self.centre.value, self._teacher_temperature())
        found = dino_loss(taught, outputs, self.spec.student_temperature, sharpening)
        loss = found.loss
        metrics = {**target_metrics(found), "centre_norm": self.centre.value.norm()}
        if self.spec.koleo > 0:
            koleo = torch.stack([koleo_loss(feature) for feature in features[: self.global_views]]).mean()
            loss = loss + self.spec.koleo * koleo
            metrics["koleo"] = koleo.detach()
        return StepOutput(loss, metrics, features[0].detach().float())

    def before_step(self, progress: float) -> None:
        """Take the prototypes' gradient away as long as they are to stay.

        After the backward pass: data-parallel training waits for a gradient of every parameter.

        Args:
            progress: Share of the run that is done before this step, from 0 up to but not including 1.
        """
        if progress < self.spec.freeze_last_layer:
            self.head.prototypes.grad = None

    def after_step(self, progress: float) -> None:
        """Move teacher and centre, and everything that follows the run's progress.

        Args:
            progress: Share of the run that is done, from 0 to 1.
        """
        self.teacher.update(self._student(), self.spec.momentum_at(progress))
        self.centre.step()
        self.progress.fill_(progress)

    def _teacher_temperature(self) -> Tensor:
        spec = self.spec
        return warmed_up(
            self.progress, spec.teacher_temperature_start, spec.teacher_temperature, spec.teacher_temperature_warmup
        )

    def _student(self) -> nn.Sequential:
        return nn.Sequential(OrderedDict(encoder=self.encoder, head=self.head))


def warmed_up(progress: Tensor, start: float, end: float, warmup: float) -> Tensor:
    """A line from ``start`` to ``end``, and ``end`` from then on.

    Args:
        progress: Share of the run that is done, a scalar from 0 to 1.
        start: Value where ``progress`` is 0.
        end: Value where ``progress`` is ``warmup`` or more.
        warmup: Share of the run, 0 to 1, at which the line ends; 0 gives ``end`` throughout.
    """
    share = (progress / warmup).clamp(max=1) if warmup > 0 else torch.ones_like(progress)
    return start + (end - start) * share


def _collapse_signs(prototypes: int) -> tuple[CollapseSign, CollapseSign]:
    """The two ways in which DINO collapses (Caron et al. 2021, section 5.3).

    The entropy alone does not tell: that of an untrained teacher may lie near the logarithm of the number of
    prototypes, but its student does not agree with it.
    """
    most, agreed = math.log(prototypes), (-math.inf, 0.01)
    return (
        CollapseSign(
            "the teacher gives all inputs the same prototype",
            {"teacher_entropy": (0, 0.01 * most), "divergence": agreed},
        ),
        CollapseSign(
            "the teacher gives all inputs every prototype alike",
            {"teacher_entropy": (0.99 * most, math.inf), "divergence": agreed},
        ),
    )


@torch.no_grad()
def target_metrics(found: DinoLoss) -> dict[str, Tensor]:
    """Entropy of the teacher in nats, and divergence of the student from it.

    An entropy that goes to 0 or to the logarithm of the number of prototypes is one of the two ways in which DINO
    collapses, and the divergence is then 0 (Caron et al. 2021, section 5.3).

    Args:
        found: The cross-entropy, and the teacher's entropy, by :func:`dino_loss`.
    """
    return {"teacher_entropy": found.entropy, "divergence": found.loss - found.entropy}
