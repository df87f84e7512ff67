"""Grad-CAM: the last feature maps, weighed by how much a score rises with each.

Selvaraju et al. 2017, Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, section 3,
equations 1 and 2.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.embeddings.stream import inference_copy
from terrasieve.errors import ConfigError
from terrasieve.explain.attention import attention_layers
from terrasieve.explain.class_scores import as_array, class_scores, upsample


def grad_cam(network: nn.Module, pixels: Tensor, classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Grad-CAM at the last feature map that has more than one pixel.

    Args:
        network: Maps ``(n, channels, height, width)`` to scores ``(n, classes)``; stays as it is.
        pixels: ``(n, channels, height, width)``, in the type and on the device of the network.
        classes: Code of the class whose score to explain, one a sample, shape ``(n,)``.

    Returns:
        Shape ``(n, height, width)``, 0 or more, without unit; 0 everywhere where nothing speaks for the class.

    Raises:
        ConfigError: The network works by attention, or has no feature map of more than one pixel.
    """
    frozen = inference_copy(network, "32")
    if attention_layers(frozen):
        raise ConfigError("Grad-CAM needs feature maps of convolutions; explain a ViT by its attention maps.")
    with torch.enable_grad():
        scores, features = _last_map(frozen, pixels.detach().clone().requires_grad_())
        (gradient,) = torch.autograd.grad(class_scores(scores, classes).sum(), features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = functional.relu((weights * features.detach()).sum(dim=1))
    return as_array(upsample(maps, (pixels.shape[2], pixels.shape[3])))


def _last_map(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, and the last output of any layer that is a map of more than one pixel."""
    last: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            last[:] = [output]

    handles = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        scores = network(pixels)
    finally:
        for handle in handles:
            handle.remove()
    if not last:
        raise ConfigError(
            f"No layer gives a feature map of more than one pixel for images of {pixels.shape[2]}x{pixels.shape[3]}; "
            "Grad-CAM needs larger images."
        )
    return scores, last[0]
