"""How much memory of an accelerator a run will need, told before its first step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from terrasieve.errors import ConfigError
from terrasieve.methods.base import Method
from terrasieve.training.spec import AdamW, TrainSpec


class MemoryNeed(NamedTuple):
    """Bytes that a step needs.

    Attributes:
        fixed: Weights and buffers of student and teacher, gradients, and what the optimiser remembers.
        per_sample: What the forward pass of one more sample keeps for the backward pass.
    """

    fixed: int
    per_sample: int

    def of(self, samples: int) -> int:
        """Bytes of a step whose micro-batches have so many samples."""
        return self.fixed + samples * self.per_sample


def memory_need(
    method: Method, sizes: Sequence[int], spec: TrainSpec, autocast: AbstractContextManager[object] | None = None
) -> MemoryNeed:
    """Measure what a step needs by two forward passes, of 2 and of 4 samples, of a copy of the method.

    What libraries need for themselves while they compute is not part of it, nor is the second computation of blocks
    under ``model.checkpoint``.

    Args:
        method: The method, on the device that it trains on; it stays as it is, and so do torch's generators.
        sizes: Height and width in pixels of each view, in their order.
        spec: Settings of the run, of which the optimiser counts here.
        autocast: The precision of the forward pass; None is float32.
    """
    held = {tensor.untyped_storage()._cdata: tensor for tensor in (*method.parameters(), *method.buffers())}
    trained = sum(_bytes(p) for p in method.parameters() if p.requires_grad)
    # A gradient, and one or two moments, for each trained weight.
    moments = 2 if isinstance(spec.optimiser, AdamW) else 1
    fixed = sum(_bytes(tensor) for tensor in held.values()) + (1 + moments) * trained
    device = next(method.parameters()).device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), autocast or nullcontext():
        few, more = (_kept(copy.deepcopy(method), sizes, samples, device) for samples in (2, 4))
    return MemoryNeed(fixed, max(0, more - few) // 2)


def check_memory(need: MemoryNeed, spec: TrainSpec, processes: int, available: int) -> None:
    """Refuse a run that the device has too little memory for.

    Args:
        need: What a step needs.
        spec: Settings of the run, whose batch is to fit.
        processes: Number of processes that share a batch, 1 or more.
        available: Bytes that the device has.

    Raises:
        ConfigError: It has less; the message names the ``train.accumulate`` that would fit.
    """
    share = spec.batch_size // processes
    wanted = need.of(share // spec.accumulate)
    if wanted <= available:
        return
    fitting = (
        parts
        for parts in range(spec.accumulate + 1, share // 2 + 1)
        if share % parts == 0 and need.of(share // parts) <= available
    )
    parts = next(fitting, None)
    advice = (
        f"Set train.accumulate={parts}, which needs {need.of(share // parts) / 2**30:.1f} GiB"
        if parts
        else "No train.accumulate makes it fit: choose a smaller model or smaller views"
    )
    raise ConfigError(
        f"A step needs about {wanted / 2**30:.1f} GiB ({need.fixed / 2**30:.1f} GiB for weights, gradients and "
        f"optimiser, {need.per_sample / 2**20:.1f} MiB a sample), but the device has {available / 2**30:.1f} GiB. "
        f"{advice}, or model.checkpoint=true for a ViT."
    )


def _kept(method: Method, sizes: Sequence[int], samples: int, device: torch.device) -> int:
    """Bytes that a forward pass keeps for its backward pass, beside the weights."""
    weights = {tensor.untyped_storage()._cdata for tensor in (*method.parameters(), *method.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Held, so that no memory is given to another tensor and counted as the same.
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    views = [torch.zeros(samples, method.encoder.channels, size, size, device=device) for size in sizes]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        method(views)
    return sum(_bytes(tensor) for key, tensor in kept.items() if key not in weights)


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()
