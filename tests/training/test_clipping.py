"""Gradients are shortened all together or each by itself, and frozen parameters are left alone."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from terrasieve.config import load_config
from terrasieve.errors import ConfigError
from terrasieve.training.clipping import clip_each, clip_gradients
from terrasieve.training.spec import TrainSpec


def parameters(*norms: float) -> list[nn.Parameter]:
    """Parameters of five numbers each, whose gradients have these norms."""
    made = [nn.Parameter(torch.zeros(5)) for _ in norms]
    for parameter, norm in zip(made, norms, strict=True):
        gradient = torch.randn(5)
        parameter.grad = gradient / gradient.norm() * norm
    return made


def test_each_gradient_is_clipped_as_torch_clips_it_alone() -> None:
    ours = parameters(0.0, 1.0, 2.999, 3.001, 50.0)
    theirs = [nn.Parameter(torch.zeros(5)) for _ in ours]
    for one, other in zip(ours, theirs, strict=True):
        other.grad = one.grad.clone()
        torch.nn.utils.clip_grad_norm_([other], 3)
    clip_each(ours, 3)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert float(ours[2].grad.norm()) == pytest.approx(2.999)


def test_what_has_no_gradient_is_passed_over() -> None:
    one, frozen = parameters(9.0, 9.0)
    frozen.grad = None
    clip_each([frozen, one], 3)
    assert frozen.grad is None
    assert float(one.grad.norm()) == pytest.approx(3)
    clip_each([frozen], 3)


@pytest.mark.parametrize(
    ("settings", "norms"),
    [
        ({}, (4.0, 3.0)),
        ({"clip_norm": 2.5}, (2.0, 1.5)),
        ({"clip_parameter_norm": 2.5}, (2.5, 2.5)),
        ({"clip_parameter_norm": 3.5}, (3.5, 3.0)),
    ],
)
def test_the_settings_choose(settings: dict[str, float], norms: tuple[float, float]) -> None:
    module = nn.ParameterList(parameters(4.0, 3.0))
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    fabric = Fabric(accelerator="cpu", devices=1)
    clip_gradients(fabric, optimiser, TrainSpec(**settings))
    assert [float(p.grad.norm()) for p in module] == pytest.approx(norms, rel=1e-5)


def test_both_at_once_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"clip_norm is 1 and clip_parameter_norm is 3; set train\.clip_norm=null"):
        load_config("dino-small", ["train.clip_norm=1"])


def test_a_gradient_that_is_no_number_waits_for_the_look_at_the_loss() -> None:
    for settings in ({"clip_norm": 3.0}, {"clip_parameter_norm": 3.0}):
        module = nn.ParameterList(parameters(1.0))
        module[0].grad[0] = torch.nan
        optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
        clip_gradients(Fabric(accelerator="cpu", devices=1), optimiser, TrainSpec(**settings))
        assert torch.isnan(module[0].grad).any()
