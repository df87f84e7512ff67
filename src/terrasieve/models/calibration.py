"""Statistics of batch normalisation, measured on the pixels that a network is about to see.

The running statistics of a trained network are of its last training views, and those of an untrained one are of
nothing: mean 0 and variance 1 in every layer. A frozen network is worth what its weights are worth only where both are
of the pixels at hand (Li et al. 2016, "Revisiting batch normalization for practical domain adaptation").
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CALIBRATION_SAMPLES = 1000
"""At most so many samples are measured: even were all pixels of each alike, a mean is known to 3 % of a deviation."""
CALIBRATION_BATCH = 250
"""At most so many samples are passed together, whatever the batch size, on which a result must not depend."""

Network = TypeVar("Network", bound=nn.Module)


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The layers of a network that keep running statistics of batches, at any depth."""
    return [one for one in network.modules() if isinstance(one, _BatchNorm) and one.running_mean is not None]


def calibrated(network: Network, batches: Iterable[Tensor]) -> Network:
    """A copy in eval mode whose batch normalisation has the statistics of some pixels.

    Every layer is measured while those before it normalise by the batch, as in training. Its mean and variance are the
    plain means of those of the batches, each of which therefore counts the same.

    Args:
        network: The network, which stays as it is: mode, parameters and buffers. One without batch normalisation is
            given back itself.
        batches: At least one batch, each ``(n, channels, height, width)`` and of the same n, 2 or more, on the
            network's device.
    """
    return calibrated_each(network, ((batch,) for batch in batches), 1)[0]


@torch.no_grad()
def calibrated_each(network: Network, batches: Iterable[Sequence[Tensor]], count: int) -> tuple[Network, ...]:
    """Several copies, each with the statistics of pixels of its own, as :func:`calibrated` gives one.

    Args:
        network: The network, which stays as it is; one without batch normalisation is given back ``count`` times.
        batches: At least one; each holds a batch of pixels for each copy.
        count: Number of copies, 1 or more.
    """
    if not batch_norms(network):
        return (network,) * count
    copies = tuple(copy.deepcopy(network).eval() for _ in range(count))
    norms = [norm for one in copies for norm in batch_norms(one)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # The plain mean over all batches, instead of one that forgets. Only these layers are in training: others, which
        # drop paths, would draw random numbers.
        norm.momentum = None
        norm.train()
    for batch in batches:
        for one, pixels in zip(copies, batch, strict=True):
            one(pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return copies
