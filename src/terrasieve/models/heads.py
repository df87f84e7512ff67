"""Heads: small networks between an encoder's features and a loss."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional


def mlp_head(inputs: int, hidden: int, outputs: int, generator: Generator) -> nn.Sequential:
    """A perceptron of two layers: linear, batch normalisation, ReLU, linear.

    The projector and the predictor of BYOL (Grill et al. 2020, section 3.3); RS-BYOL takes 256 for ``hidden``
    and ``outputs`` (Jain et al. 2022, section IV-C).

    Args:
        inputs: Length of the vectors that come in.
        hidden: Length of the vectors between the layers.
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


def deep_mlp_head(inputs: int, hidden: int, outputs: int, generator: Generator) -> nn.Sequential:
    """A perceptron of three layers: twice linear, batch normalisation and ReLU, then linear.

    The projector of LeJEPA (Balestriero and LeCun 2025), which takes 2048 for ``hidden``.

    Args:
        inputs: Length of the vectors that come in.
        hidden: Length of the vectors between the layers.
        outputs: Length of the vectors that go out.
        generator: Draws the initial weights, distributed as in :class:`torch.nn.Linear`.
    """
    first = [_linear(inputs, hidden, generator, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, *mlp_head(hidden, hidden, outputs, generator))


class DinoHead(nn.Module):
    """From features to outputs: the cosine with each of many prototypes (Caron et al. 2021, appendix C).

    A perceptron ends in a bottleneck, which is scaled to unit length. The last layer has no bias, and its weights
    are normalised with the norm fixed to 1.

    Args:
        perceptron: Maps features ``(n, features)`` to the bottleneck ``(n, bottleneck)``.
        prototypes: Weights ``(prototypes, bottleneck)``, of which the directions count and the lengths do not.
    """

    def __init__(self, perceptron: nn.Module, prototypes: Tensor) -> None:
        super().__init__()
        self.perceptron = perceptron
        self.prototypes = nn.Parameter(prototypes)
        self.register_load_state_dict_pre_hook(_leave_out_learns)  # type: ignore[no-untyped-call]  # torch leaves it so

    def forward(self, features: Tensor) -> Tensor:
        """Cosines ``(n, prototypes)``, -1 to 1, of features ``(n, features)``."""
        # Of full precision under autocast too: in 16 bits the unit length would be rounded away again.
        directions = functional.normalize(self.perceptron(features).to(self.prototypes.dtype), dim=-1)
        return functional.linear(directions, functional.normalize(self.prototypes, dim=-1))


def _leave_out_learns(head: nn.Module, state: dict[str, Tensor], prefix: str, *others: object) -> None:
    # Checkpoints of version 0.1 hold it; whether prototypes learn follows from the step.
    state.pop(f"{prefix}learns", None)


def dino_head(
    inputs: int, hidden: int, bottleneck: int, prototypes: int, generator: Generator, *, batch_norm: bool = False
) -> DinoHead:
    """An untrained head of DINO, whose perceptron has three linear layers with GELU between them.

    Args:
        inputs: Length of the vectors that come in.
        hidden: Length of both hidden layers; 2048 in the paper.
        bottleneck: Length of what is compared with prototypes; 256 in the paper.
        prototypes: Length of the vectors that go out; 65,536 in the paper.
        generator: Draws the initial weights: of the perceptron normal with a standard deviation of 0.02, its biases
            zero; of the prototypes as in :class:`torch.nn.Linear`, with a standard deviation of
            ``1 / sqrt(3 * bottleneck)``, 0.036 for 256. Lengths do not count in a forward pass, but the longer a
            prototype, the less a step turns it.
        batch_norm: Normalise the hidden layers by the batch; the paper does without for a ViT.
    """
    perceptron = nn.Sequential(
        *_hidden_layer(inputs, hidden, generator, batch_norm),
        *_hidden_layer(hidden, hidden, generator, batch_norm),
        _normal_linear(hidden, bottleneck, generator, bias=True),
    )
    bound = 1 / math.sqrt(bottleneck)
    return DinoHead(perceptron, torch.empty(prototypes, bottleneck).uniform_(-bound, bound, generator=generator))


def _hidden_layer(inputs: int, outputs: int, generator: Generator, batch_norm: bool) -> list[nn.Module]:
    linear = _normal_linear(inputs, outputs, generator, bias=not batch_norm)
    return [linear, nn.BatchNorm1d(outputs), nn.GELU()] if batch_norm else [linear, nn.GELU()]


def _linear(inputs: int, outputs: int, generator: Generator, bias: bool) -> nn.Linear:
    # torch leaves skip_init without types.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore[no-untyped-call]
    bound = 1 / math.sqrt(inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def _normal_linear(inputs: int, outputs: int, generator: Generator, bias: bool) -> nn.Linear:
    # torch leaves skip_init without types.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore[no-untyped-call]
    weight = nn.init.trunc_normal_(torch.empty(outputs, inputs), std=0.02, generator=generator)
    layer.weight = nn.Parameter(weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
