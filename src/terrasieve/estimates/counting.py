"""Counting what a network and a method compute and hold, from a few samples of zeros."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from terrasieve.embeddings.stream import device_of
from terrasieve.estimates.trial_results import NetworkSize
from terrasieve.training.job import TrainingJob
from terrasieve.training.memory import memory_need

_SOME = 2
"""Samples whose operations are counted."""


def network_size(
    job: TrainingJob, features: int, image_size: int, autocast: AbstractContextManager[object]
) -> NetworkSize:
    """What the network and the method of a run hold and compute; both stay as they are.

    Args:
        job: The run, whose method lies on the device that computes.
        features: Length of the vector of a sample, that of all inputs of a round together.
        image_size: Height and width in pixels at which samples are embedded.
        autocast: The precision of training, which decides what a step holds. Operations are counted in float32, which
            takes as many.
    """
    method, device = job.method, device_of(job.method)
    sizes = [view.size for view in job.planner.recipe.views]
    channels = method.encoder.channels

    def zeros(of_sizes: list[int]) -> list[Tensor]:
        return [torch.zeros(_SOME, channels, size, size, device=device) for size in of_sizes]

    need = memory_need(method, sizes, job.spec, autocast)
    trained = sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)
    encoder = copy.deepcopy(method.encoder).eval().requires_grad_(False)
    learning = copy.deepcopy(method)
    inputs = features // method.encoder.features
    return NetworkSize(
        features=features,
        trained=trained,
        # All that a step holds throughout, but for the gradients.
        state=need.fixed - 4 * trained,
        embed_flops=inputs * operations(lambda views: encoder(views[0]), zeros([image_size])),
        train_flops=operations(lambda views: learning(views).loss.backward(), zeros(sizes)),
        need=need,
    )


def operations(work: Callable[[list[Tensor]], object], views: list[Tensor]) -> float:
    """Floating-point operations of some work on views, for one of their samples."""
    # Only this kernel of attention is made of products that are counted on every device.
    with torch.random.fork_rng([]), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work(views)
    return float(counter.get_total_flops()) / len(views[0])
