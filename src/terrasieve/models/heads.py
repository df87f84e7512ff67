"""Heads: small networks between an encoder's features and a loss."""

from __future__ import annotations

import math

from torch import Generator, nn


def mlp_head(inputs: int, hidden: int, outputs: int, generator: Generator) -> nn.Sequential:
    """A perceptron of two layers: linear, batch normalisation, ReLU, linear.

    The projector and the predictor of BYOL (Grill et al. 2020, section 3.3); RS-BYOL takes 256 for ``hidden``
    and ``outputs`` (Jain et al. 2022, section IV-C).

    Args:
        inputs: Length of the vectors that come in.
        hidden: Length between the layers.
        outputs: Length of the vectors that go out.
        generator: Draws the initial weights, distributed as in :class:`torch.nn.Linear`.
    """
    return nn.Sequential(
        # The batch normalisation would take a bias away again.
        _linear(inputs, hidden, generator, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        _linear(hidden, outputs, generator, bias=True),
    )


def _linear(inputs: int, outputs: int, generator: Generator, bias: bool) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore[no-untyped-call]
    bound = 1 / math.sqrt(inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer
