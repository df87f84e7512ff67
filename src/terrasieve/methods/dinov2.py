"""DINOv2: DINO, and patches that the student has to tell without seeing them (Oquab et al. 2024, arXiv 2304.07193)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from terrasieve.device import send
from terrasieve.methods.base import StepOutput
from terrasieve.methods.dino import Dino, DinoSpec, target_metrics
from terrasieve.methods.dino_loss import Centre, dino_loss
from terrasieve.methods.ibot_loss import ibot_loss
from terrasieve.methods.koleo import koleo_loss
from terrasieve.methods.multi_crop import count_views
from terrasieve.methods.pair_entropies import Sharpening
from terrasieve.methods.patch_masks import PatchMasks
from terrasieve.methods.sinkhorn import sinkhorn_targets
from terrasieve.models.backbone import Encoder
from terrasieve.models.heads import DinoHead, dino_head
from terrasieve.models.layers import pass_views
from terrasieve.models.teacher import Teacher
from terrasieve.models.tokens import Tokens, hidden_patches, patch_grid, require_vit, vit_tokens
from terrasieve.streams import Stream, torch_generator
from terrasieve.views.recipe import ShareRange

_OCEANSAR_2 = """@misc{tuel2026oceansar2,
  author = {Tuel, Alexandre and Kerdreux, Thomas and others},
  title  = {{OceanSAR-2}: A Universal Feature Extractor for {SAR} Ocean Observation},
  year   = {2026},
  note   = {arXiv:2601.07392},
}"""

_DINOV2 = """@article{oquab2024dinov2,
  author  = {Oquab, Maxime and Darcet, Timoth{\\'e}e and Moutakanni, Th{\\'e}o and others},
  title   = {{DINOv2}: Learning Robust Visual Features without Supervision},
  journal = {Transactions on Machine Learning Research},
  year    = {2024},
}"""

_IBOT = """@inproceedings{zhou2022ibot,
  author    = {Zhou, Jinghao and Wei, Chen and Wang, Huiyu and Shen, Wei and Xie, Cihang and Yuille, Alan and
               Kong, Tao},
  title     = {{iBOT}: Image {BERT} Pre-Training with Online Tokenizer},
  booktitle = {ICLR},
  year      = {2022},
}"""


class DinoV2Spec(DinoSpec):
    """Settings of DINOv2, which are those of DINO and the following; the defaults are those of its published code.

    Heads apart and Sinkhorn-Knopp are how the paper trains its large models (Oquab et al. 2024, section 4). Registers
    (Darcet et al. 2024, arXiv 2309.16588) belong to the network: ``model.registers``.

    Attributes:
        name: ``dinov2``, by which a recipe chooses this method.
        momentum: Share of itself that the teacher keeps at each step, 0 to 1, at the start of the run.
        koleo: Weight, 0 or more, of the KoLeo regulariser, which is taken over the student's features of each global
            view and added up (DINO averages); it compares the samples of a micro-batch on one device. 0 leaves it out.
        ibot: Weight, above 0, of the loss at hidden patches.
        separate_heads: Whether patches have a head of their own, of the same sizes, or share that of whole views.
        mask_share: Share of a sample's global views, above 0 and at most 1, in which patches are hidden from the
            student; rounded to a number of views, at least one. Of two global views each is masked for half of the
            samples by default.
        mask_ratio: Lowest and highest share, above 0 and at most 1, of such a view's patches that are hidden.
        centring: What keeps one prototype from taking everything: ``sinkhorn``, over the micro-batches of all
            processes together, or ``centre``, a moving average as in DINO.
        sinkhorn_iterations: How often Sinkhorn-Knopp scales prototypes and samples, 1 or more.
    """

    # A narrower type in place of another narrow one; pydantic takes each class by itself.
    name: Literal["dinov2"] = "dinov2"  # type: ignore[assignment]
    momentum: float = Field(default=0.992, ge=0, le=1)
    koleo: float = Field(default=0.1, ge=0)
    ibot: float = Field(default=1.0, gt=0)
    separate_heads: bool = True
    mask_share: float = Field(default=0.5, gt=0, le=1)
    mask_ratio: ShareRange = (0.1, 0.5)
    centring: Literal["sinkhorn", "centre"] = "sinkhorn"
    sinkhorn_iterations: int = Field(default=3, ge=1)

    citations = (_OCEANSAR_2, _DINOV2, _IBOT)

    def build(self, encoder: Encoder, views: Sequence[int], seed: int) -> DinoV2:
        """DINOv2 around an encoder; see :meth:`MethodSpec.build`.

        Raises:
            ConfigError: The encoder is no ViT, there are fewer than two global views, or fewer branches than
                ``global_branches``.
        """
        require_vit(encoder, "DINOv2 masks patches")
        counts = count_views("DINOv2", views, self.global_branches or 1)
        # A stream of its own: the encoder may have been drawn with the same seed.
        generator = torch_generator(Stream.HEAD_WEIGHTS, seed)
        heads = [
            dino_head(
                encoder.features, self.hidden, self.bottleneck, self.prototypes, generator, batch_norm=self.batch_norm
            )
            for _ in range(1 + self.separate_heads)
        ]
        return DinoV2(encoder, heads, self, PatchMasks(seed, self.mask_share, self.mask_ratio), *counts)


class DinoV2(Dino):
    """DINO whose student does not see some patches of the global views, and is taught what the teacher makes of them.

    Args:
        encoder: A ViT, which becomes the student's encoder; the teacher gets a copy.
        heads: Maps features ``(n, encoder.features)`` of whole views to outputs ``(n, prototypes)``, and, where there
            is a second head, those of patches; otherwise the first does both.
        spec: Everything but the heads' sizes, which ``heads`` have.
        masks: Draws the patches that are hidden.
        global_views: Number of views that are global, at least 2; they come first.
        local_views: Number of views that are local, 0 or more.

    Attributes:
        mask_token: What the student's network gets in place of a hidden patch, ``(encoder.features,)``; it learns.
        patch_centre: Moving average of the teacher's outputs of hidden patches, which moves in ``after_step`` only; it
            and ``centre`` stay 0 under Sinkhorn-Knopp.
    """

    metric_names = (*Dino.metric_names, "ibot", "patch_entropy")
    draws_in_forward = "masks, of which each step hides another number of patches"
    spec: DinoV2Spec

    def __init__(
        self,
        encoder: Encoder,
        heads: Sequence[DinoHead],
        spec: DinoV2Spec,
        masks: PatchMasks,
        global_views: int,
        local_views: int = 0,
    ) -> None:
        super().__init__(encoder, heads[0], spec, global_views, local_views)
        self.mixes_samples = spec.koleo > 0 or spec.centring == "sinkhorn"
        self.masks = masks
        self.mask_token = nn.Parameter(torch.zeros(encoder.features))
        self.patch_head = heads[1] if len(heads) > 1 else None
        self.patch_teacher = Teacher(heads[1]) if len(heads) > 1 else None
        self.patch_centre = Centre(len(heads[-1].prototypes), spec.centre_momentum)

    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        """The loss of a batch: DINO's, iBOT's at hidden patches, and KoLeo, each with its weight.

        Args:
            views: The global views, then the local ones, ``(n, channels, height, width)`` each, normalised; those of
                one kind may differ in size.
        """
        wide, local = views[: self.global_views], views[self.global_views :]
        masks = self.masks.draw(len(wide[0]), [patch_grid(self.encoder, view) for view in wide])
        # Looked up on the CPU, where the masks were drawn, so that an accelerator need not be waited for.
        places = [send(mask.flatten().nonzero().flatten(), wide[0].device) for mask in masks]

        seen = []
        for view, mask in zip(wide, masks, strict=True):
            with hidden_patches(self.encoder, send(mask, view.device), self.mask_token):
                seen.append(vit_tokens(self.encoder, view))
        features = [tokens.image for tokens in seen] + pass_views(self.encoder, local)
        outputs = pass_views(self.head, features)
        patch_outputs = (self.patch_head or self.head)(_at(seen, places))
        with torch.no_grad():
            taught = [vit_tokens(self.target_encoder, view) for view in wide]
            whole = self._centred(pass_views(self._teacher_head, [one.image for one in taught]), self.centre)
            (hidden,) = self._centred([self._teacher_patch_head(_at(taught, places))], self.patch_centre)

        temperature = self.spec.student_temperature
        dino = dino_loss(whole, outputs, temperature, self._sharpening(self.centre))
        counts = torch.cat([mask.sum(dim=1) for mask in masks])
        ibot = ibot_loss(hidden, patch_outputs, counts, temperature, self._sharpening(self.patch_centre))
        koleo = torch.stack([koleo_loss(feature) for feature in features[: self.global_views]])
        metrics = target_metrics(dino) | {"ibot": ibot.loss.detach(), "koleo": koleo.detach().mean()}
        metrics["patch_entropy"] = ibot.entropy
        if self.spec.centring == "centre":
            metrics["centre_norm"] = self.centre.value.norm()
        total = dino.loss + self.spec.ibot * ibot.loss + self.spec.koleo * koleo.sum()
        return StepOutput(total, metrics, self._whole(wide[0], masks[0], features[0]))

    def before_step(self, progress: float) -> None:
        """Take the gradient of all prototypes away as long as they are to stay; see :meth:`Dino.before_step`."""
        super().before_step(progress)
        if self.patch_head is not None and progress < self.spec.freeze_last_layer:
            self.patch_head.prototypes.grad = None

    def after_step(self, progress: float) -> None:
        """Move teachers and centres, and everything that follows the run's progress, and go on to other masks.

        Args:
            progress: Share of the run that is done, from 0 to 1.
        """
        super().after_step(progress)
        if self.patch_head is not None and self.patch_teacher is not None:
            self.patch_teacher.update(self.patch_head, self.spec.momentum_at(progress))
        self.patch_centre.step()
        self.masks.step()

    @property
    def _teacher_head(self) -> nn.Module:
        # nn.Module types the attributes of a copy as tensors and modules.
        head: nn.Module = self.teacher.model.head  # type: ignore[assignment]
        return head

    @property
    def _teacher_patch_head(self) -> nn.Module:
        return self._teacher_head if self.patch_teacher is None else self.patch_teacher

    def _centred(self, outputs: Sequence[Tensor], centre: Centre) -> Sequence[Tensor]:
        """The teacher's distributions by Sinkhorn-Knopp over all outputs together, or the outputs, which are noted."""
        rows = torch.cat(list(outputs))
        if self.spec.centring == "sinkhorn":
            rows = sinkhorn_targets(rows, self._teacher_temperature(), self.spec.sinkhorn_iterations)
        elif self.training:
            centre.note(rows)
        return rows.chunk(len(outputs))

    def _sharpening(self, centre: Centre) -> Sharpening | None:
        """What makes distributions of what :meth:`_centred` gives."""
        return None if self.spec.centring == "sinkhorn" else Sharpening(centre.value, self._teacher_temperature())

    @torch.no_grad()
    def _whole(self, view: Tensor, mask: Tensor, features: Tensor) -> Tensor:
        """The student's features of a whole view, where those of some samples are of a masked one.

        Masks differ between samples, and so would the features of an encoder that had collapsed.
        """
        embedding = features.detach().float().clone()
        masked = send(mask.any(dim=1).nonzero().flatten(), view.device)
        if len(masked):
            embedding[masked] = self.encoder(view[masked]).float()
        return embedding


def _at(views: Sequence[Tokens], places: Sequence[Tensor]) -> Tensor:
    """Patch tokens at places of each view, one below the other: ``(m, features)``."""
    return torch.cat([tokens.patches.flatten(0, 1)[place] for tokens, place in zip(views, places, strict=True)])
