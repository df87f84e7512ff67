"""Views passed together come out as if each had been passed alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import pytest
import timm
import torch
from torch import Tensor, nn

from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.layers import pass_views, split_batchnorm


def encoder(name: str = "test_resnet") -> Encoder:
    built = build_encoder(BackboneSpec(name=name), seed=0).double()
    split_batchnorm(built)
    return built


def views(count: int, size: int = 32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    # Views of different brightness: statistics over all of them would give another result.
    return [3 * view + torch.randn(4, 1, size, size, generator=generator, dtype=torch.float64) for view in range(count)]


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_outputs_gradients_and_buffers_are_those_of_separate_passes(count: int) -> None:
    together, alone = encoder(), build_encoder(BackboneSpec(name="test_resnet"), seed=0).double()
    outputs, expected = pass_views(together, views(count)), [alone(view) for view in views(count)]
    torch.testing.assert_close(outputs, expected)
    sum(output.square().mean() for output in outputs).backward()
    sum(output.square().mean() for output in expected).backward()
    torch.testing.assert_close(gradients(together), gradients(alone))
    torch.testing.assert_close(dict(together.state_dict()), dict(alone.state_dict()))


def test_it_is_one_pass() -> None:
    model, batches = encoder(), []
    model.model.conv1.register_forward_hook(lambda module, inputs, output: batches.append(len(inputs[0])))
    pass_views(model, views(2))
    assert batches == [8]


def crops(order: Sequence[int]) -> list[Tensor]:
    """A view of each of these sizes, each of a brightness of its own."""
    generator = torch.Generator().manual_seed(2)
    return [2 * i + torch.randn(4, 1, n, n, generator=generator, dtype=torch.float64) for i, n in enumerate(order)]


@pytest.mark.slow
@pytest.mark.parametrize("order", [(32, 16), (32, 32, 16, 16, 16), (16, 32, 16, 24, 32)])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_views_of_several_sizes_come_out_as_if_passed_alone(name: str, order: Sequence[int]) -> None:
    if name == "test_vit":
        order = [32 * (size // 16) for size in order]
    together, alone = encoder(name), encoder(name)
    outputs, passed = pass_views(together, crops(order)), {}
    # Running statistics are averages of the last batches: sizes take their turns in the order of their first view.
    for i in sorted(range(len(order)), key=lambda i: list(order).index(order[i])):
        passed[i] = alone(crops(order)[i])
    expected = [passed[i] for i in range(len(order))]
    torch.testing.assert_close(outputs, expected)
    sum(output.square().mean() for output in outputs).backward()
    sum(output.square().mean() for output in expected).backward()
    torch.testing.assert_close(gradients(together), gradients(alone))
    torch.testing.assert_close(dict(together.state_dict()), dict(alone.state_dict()))


def test_it_is_one_pass_for_each_size() -> None:
    model, batches = encoder(), []
    model.model.conv1.register_forward_hook(lambda module, inputs, output: batches.append(tuple(inputs[0].shape)))
    pass_views(model, crops([32, 32, 16, 16, 16, 24]))
    assert batches == [(8, 1, 32, 32), (12, 1, 16, 16), (4, 1, 24, 24)]


def test_a_kind_of_batch_normalisation_that_cannot_be_taken_apart_is_not_mixed() -> None:
    class Own(nn.BatchNorm2d):
        pass

    model = nn.Sequential(nn.Conv2d(1, 3, 3), Own(3), nn.Flatten()).double()
    alone = copy.deepcopy(model)
    split_batchnorm(model)
    torch.testing.assert_close(pass_views(model, views(2)), [alone(view) for view in views(2)])


def test_a_later_batch_is_whole_again() -> None:
    model, alone = encoder(), build_encoder(BackboneSpec(name="test_resnet"), seed=0).double()
    pass_views(model, views(2))
    (batch,) = views(1)
    torch.testing.assert_close(model(batch), alone(batch))


def test_in_eval_mode_running_statistics_are_used() -> None:
    model = encoder().eval()
    torch.testing.assert_close(pass_views(model, views(2)), [model(view) for view in views(2)])


def test_the_weights_still_load_in_plain_timm() -> None:
    plain = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    plain.load_state_dict(encoder().model.state_dict())
