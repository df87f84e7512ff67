from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from terrasieve.models.heads import DinoHead, dino_head, mlp_head


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_equals_the_formula_in_float64() -> None:
    head = mlp_head(6, 5, 3, _generator(0))
    x = torch.randn(8, 6)
    first, norm, _, second = head
    assert isinstance(norm, nn.BatchNorm1d)
    hidden = x.double() @ first.weight.double().T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt()
    expected = hidden.clamp(min=0) @ second.weight.double().T + second.bias.double()
    torch.testing.assert_close(head(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_weights_depend_on_the_generator_alone() -> None:
    before = torch.get_rng_state()
    one, again, other = (mlp_head(6, 5, 3, _generator(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_weights_are_spread_as_in_torch() -> None:
    ours, torchs = mlp_head(400, 300, 200, _generator(0)), nn.Linear(400, 300)
    assert ours[0].weight.abs().max() <= 1 / 20
    torch.testing.assert_close(ours[0].weight.std(), torchs.weight.std(), rtol=0.02, atol=0)
    assert ours[3].bias.abs().max() > 0


def test_heads_from_one_generator_differ() -> None:
    generator = _generator(0)
    first, second = mlp_head(6, 5, 3, generator), mlp_head(6, 5, 3, generator)
    assert not torch.equal(first[0].weight, second[0].weight)


# -------------------------------------------------------------------------------- DINO


def _dino(seed: int = 0, **options: bool) -> DinoHead:
    return dino_head(6, 5, 4, 9, _generator(seed), **options)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_dino_head_equals_the_formula_in_float64(batch_norm: bool) -> None:
    head, x = _dino(batch_norm=batch_norm), torch.randn(8, 6)
    for parameter in head.parameters():
        parameter.data.normal_(std=0.5)
    hidden = x.double()
    layers = [layer for layer in head.perceptron if isinstance(layer, nn.Linear)]
    for layer in layers:
        hidden = hidden @ layer.weight.double().T + (layer.bias.double() if layer.bias is not None else 0)
        if layer is not layers[-1]:
            if batch_norm:
                norm = next(m for m in head.perceptron if isinstance(m, nn.BatchNorm1d) and m.num_batches_tracked == 0)
                norm.num_batches_tracked += 1  # the next layer has the next one
                hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt()
                hidden = hidden * norm.weight.double() + norm.bias.double()
            hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    hidden = hidden / hidden.norm(dim=1, keepdim=True)
    prototypes = head.prototypes.double()
    expected = hidden @ (prototypes / prototypes.norm(dim=1, keepdim=True)).T
    assert len(layers) == 3
    torch.testing.assert_close(head(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_dino_heads_last_layer_is_torchs_weight_norm_with_the_norm_held() -> None:
    head, last = _dino().double(), weight_norm(nn.Linear(4, 9, bias=False)).double()
    last.parametrizations.weight.original0.data.fill_(1)
    last.parametrizations.weight.original1.data.copy_(head.prototypes.detach())
    x = torch.randn(8, 6, dtype=torch.float64)
    expected = last(nn.functional.normalize(head.perceptron(x), dim=-1))
    torch.testing.assert_close(head(x), expected)
    head(x).square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(head.prototypes.grad, last.parametrizations.weight.original1.grad)


def test_dino_heads_outputs_are_cosines_whatever_the_lengths() -> None:
    head, x = _dino(), torch.randn(8, 6)
    before = head(x)
    assert before.abs().max() <= 1 + 1e-6
    head.prototypes.data.mul_(torch.rand(9, 1) * 100)
    head.perceptron[-1].weight.data.mul_(7)  # its bias is zero at first
    torch.testing.assert_close(head(x), before)


def test_dino_heads_weights_depend_on_the_generator_alone() -> None:
    before = torch.get_rng_state()
    one, again, other = (_dino(seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if name.endswith(("weight", "prototypes")))


def test_dino_heads_weights_are_spread_as_in_the_paper() -> None:
    head = dino_head(300, 400, 256, 1000, _generator(0))
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            std = 0.0361 if name == "prototypes" else 0.02
            assert float(parameter.detach().std()) == pytest.approx(std, rel=0.02)
            assert abs(float(parameter.detach().mean())) < 1e-3


def test_dino_heads_prototypes_start_as_torchs_linear_layer() -> None:
    ours, torchs = dino_head(6, 5, 64, 500, _generator(0)).prototypes, nn.Linear(64, 500, bias=False).weight
    assert ours.abs().max() <= 1 / 8
    torch.testing.assert_close(ours.std(), torchs.std(), rtol=0.02, atol=0)


def test_dino_heads_of_version_0_1_load() -> None:
    head, old = _dino(), {**_dino(seed=1).state_dict(), "learns": torch.tensor(False)}
    head.load_state_dict(old)
    assert torch.equal(head.prototypes, old["prototypes"])
    nn.ModuleDict({"head": _dino()}).load_state_dict({f"head.{name}": tensor for name, tensor in old.items()})


def test_dino_heads_directions_are_of_unit_length_under_autocast() -> None:
    head, x = dino_head(32, 32, 256, 64, _generator(0)), torch.randn(16, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = head(x)
    # One rounding of a product of exact unit vectors; a rounded length would add up over all prototypes.
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), head(x), rtol=0.05, atol=0.01)
