"""Clipping of gradients, between the last backward pass of a step and the optimiser."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import nn

from terrasieve.training.spec import TrainSpec


def clip_gradients(fabric: Fabric, optimiser: torch.optim.Optimizer, spec: TrainSpec) -> None:
    """Shorten the gradients as the settings of the run ask for; no accelerator is waited for.

    Args:
        fabric: Where the run trains in 16 bits it holds the scale of the gradients, which is taken out first.
        optimiser: The optimiser of what is trained, as ``fabric.setup`` gave it.
        spec: Settings of the run, of which ``clip_norm`` and ``clip_parameter_norm`` count here.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is not None and (spec.clip_norm or spec.clip_parameter_norm):
        # Not by Fabric, which refuses fused optimisers here. Those take gradients that are unscaled already, and alone
        # leave out the step of an overflow without asking the device whether there was one.
        scaler.unscale_(getattr(optimiser, "optimizer", optimiser))
    # Values that are no numbers are found where the loss is looked at; looking here would wait for the device.
    if spec.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, spec.clip_norm, error_if_nonfinite=False)
    if spec.clip_parameter_norm is not None:
        clip_each(parameters, spec.clip_parameter_norm)


@torch.no_grad()
def clip_each(parameters: list[nn.Parameter], max_norm: float) -> None:
    """Shorten the gradient of each parameter by itself, where its Euclidean norm is above a limit.

    As the published code of DINO does (Caron et al. 2021), which does not take the norm over all parameters together.

    Args:
        parameters: Those without a gradient are passed over.
        max_norm: The limit, above 0.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        shares = [max_norm / (norm + 1e-6) for norm in torch._foreach_norm(gradients)]
        torch._foreach_mul_(gradients, [share.clamp(max=1) for share in shares])
