"""Whole steps of DINO beside its algorithm written down anew: loss, clipping, frozen prototypes, teacher and centre.

The oracle takes lightly's loss, which moves its centre itself, torch's weight normalisation for the last layer, torch's
clipping of one parameter at a time, and the moving average of Caron et al. 2021, algorithm 1.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: lightly imports torchvision)

import pytest
import torch
from lightly.loss import DINOLoss
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from terrasieve.methods.dino import DinoSpec
from terrasieve.models.backbone import Encoder
from terrasieve.training.clipping import clip_each

STEPS, FROZEN = 8, 3
CLIP = 0.05
SPEC = DinoSpec(
    hidden=12,
    bottleneck=6,
    prototypes=10,
    momentum=0.9,
    momentum_end=1.0,
    freeze_last_layer=FROZEN / STEPS,
    teacher_temperature_warmup=0.5,
)


def backbone() -> nn.Module:
    torch.manual_seed(3)
    layers = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*layers).double()


def views(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(8, 1, side, side, generator=generator, dtype=torch.float64) + side / 16 for side in (16, 16, 8)]


class Oracle:
    """Student and teacher as networks of torch's own layers, started from the weights of a head of ours."""

    def __init__(self, perceptron: nn.Module, prototypes: Tensor) -> None:
        last = weight_norm(nn.Linear(6, 10, bias=False).double())
        last.parametrizations.weight.original0.data.fill_(1)
        last.parametrizations.weight.original0.requires_grad_(False)
        last.parametrizations.weight.original1.data.copy_(prototypes)
        self.backbone, self.perceptron, self.last = backbone(), copy.deepcopy(perceptron), last
        self.student = [self.backbone, self.perceptron, self.last]
        self.teacher = [backbone(), copy.deepcopy(perceptron), copy.deepcopy(last)]
        self.loss = DINOLoss(output_dim=10, student_temp=0.1, center_momentum=0.9).double()

    @property
    def prototypes(self) -> nn.Parameter:
        return self.last.parametrizations.weight.original1

    @property
    def trained(self) -> list[nn.Parameter]:
        return [p for part in self.student for p in part.parameters() if p.requires_grad]

    def outputs(self, parts: list[nn.Module], view: Tensor) -> Tensor:
        network, perceptron, last = parts
        return last(nn.functional.normalize(perceptron(network(view)), dim=-1))

    def step(self, step: int, optimiser: torch.optim.Optimizer) -> float:
        shown = views(step)
        with torch.no_grad():
            taught = [self.outputs(self.teacher, view) for view in shown[:2]]
        temperature = 0.04 + 0.03 * min(1, step / STEPS / 0.5)
        loss = self.loss(taught, [self.outputs(self.student, view) for view in shown], teacher_temp=temperature)
        optimiser.zero_grad()
        loss.backward()
        for parameter in self.trained:
            torch.nn.utils.clip_grad_norm_([parameter], CLIP)
        if step < FROZEN:
            self.prototypes.grad = None
        optimiser.step()
        momentum = 1 - 0.1 * (math.cos(math.pi * (step + 1) / STEPS) + 1) / 2
        with torch.no_grad():
            for ours, theirs in zip(self.teacher, self.student, strict=True):
                for slow, fast in zip(ours.parameters(), theirs.parameters(), strict=True):
                    slow.mul_(momentum).add_((1 - momentum) * fast)
        return float(loss.detach())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(torch.optim.SGD, {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.01}), (torch.optim.AdamW, {"lr": 0.01})],
)
def test_steps_are_those_of_the_published_algorithm(
    kind: type[torch.optim.Optimizer], settings: dict[str, Any]
) -> None:
    ours = SPEC.build(Encoder(backbone(), channels=1, features=24), (2, 1), seed=0).double()
    ours.centre.float()  # which it is in every precision
    oracle = Oracle(ours.head.perceptron, ours.head.prototypes.detach())
    trained = [p for p in ours.parameters() if p.requires_grad]
    optimisers = kind(trained, **settings), kind(oracle.trained, **settings)
    before, clipped = ours.head.prototypes.detach().clone(), 0
    for step in range(STEPS):
        loss = ours(views(step)).loss
        loss.backward()
        clipped += sum(float(p.grad.norm()) > CLIP for p in trained)
        ours.before_step(step / STEPS)
        clip_each(trained, CLIP)
        optimisers[0].step()
        optimisers[0].zero_grad()
        ours.after_step((step + 1) / STEPS)
        assert float(loss.detach()) == pytest.approx(oracle.step(step, optimisers[1]), rel=1e-4)
        assert torch.equal(ours.head.prototypes, before) == (step < FROZEN)
        assert_same(ours.encoder.model, oracle.backbone)
        assert_same(ours.head.perceptron, oracle.perceptron)
        torch.testing.assert_close(ours.head.prototypes.detach(), oracle.prototypes.detach(), rtol=1e-3, atol=1e-5)
        assert_same(ours.target_encoder.model, oracle.teacher[0])
        assert_same(ours.teacher.model.head.perceptron, oracle.teacher[1])
        torch.testing.assert_close(ours.centre.value.double(), oracle.loss.center.view(-1), rtol=1e-3, atol=1e-5)
    assert 0 < clipped < STEPS * len(trained), "some gradients were long, and some were not"


def assert_same(one: nn.Module, other: nn.Module) -> None:
    """Parameters, and the statistics of batch normalisation."""
    torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), rtol=1e-3, atol=1e-5)
