from __future__ import annotations

import torch
from torch import nn

from terrasieve.models.heads import mlp_head


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
