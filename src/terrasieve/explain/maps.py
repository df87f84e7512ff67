"""Maps of where in an image a network's answer comes from: attention, FullGrad and Grad-CAM.

Attention is that of a ViT's class token (Caron et al. 2021, Emerging Properties in Self-Supervised Vision
Transformers), of the last block or rolled out over all.

FullGrad takes a score apart into what came through the input and what came through each bias (Srinivas and Fleuret
2019, Full-Gradient Representation for Neural Network Visualization, arXiv 1905.00780). A network of affine layers with
ReLU between them is affine around every input, so its output is the input times its gradient plus, over all layers, the
bias times the gradient of what it was added to. Batch normalisation in eval mode is such an affine layer; its bias is
implicit.

Grad-CAM serves where a network is not piecewise linear (Selvaraju et al. 2017, Visual Explanations from Deep Networks
via Gradient-based Localization, section 3, equations 1 and 2): the last feature maps, weighed by how much a score rises
with each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.blur_pool import BlurPool2d
from timm.layers.drop import DropPath
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from terrasieve.embeddings.stream import inference_copy
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import Encoder

# ------------------------------------------------------------------- attention


@dataclass(frozen=True)
class AttentionMaps:
    """The class token's attention to the patches of an image.

    Attributes:
        heads: Of each head of the last block, on the grid of patches, shape ``(n, heads, rows, columns)``; shares of
            the head's attention, 0 to 1.
        mean: Their mean, brought to the size of the image bilinearly, shape ``(n, height, width)``.
        rollout: Attention rolled out over all blocks, brought to the size of the image as ``mean`` is.
    """

    heads: NDArray[np.float64]
    mean: NDArray[np.float64]
    rollout: NDArray[np.float64]


def attention_maps(encoder: Encoder, pixels: Tensor) -> AttentionMaps:
    """The class token's attention in the last block (Caron et al. 2021, figure 1) and rolled out over all blocks.

    Args:
        encoder: A timm ViT with a class token; stays as it is.
        pixels: ``(n, channels, height, width)``, standardised, on the encoder's device.

    Raises:
        ConfigError: The encoder is no ViT with a class token, or does not cut the images into whole patches.
    """
    rows, columns, prefix = _grid(encoder.model, (pixels.shape[2], pixels.shape[3]))
    attentions = block_attentions(encoder, pixels)
    # Row 0 is what the class token attends to; the first columns are itself and registers, which lie nowhere.
    heads = attentions[-1][:, :, 0, prefix:].reshape(len(pixels), -1, rows, columns)
    rolled = rollout(attentions)[:, 0, prefix:].reshape(-1, rows, columns)
    size = (pixels.shape[2], pixels.shape[3])
    return AttentionMaps(as_array(heads), as_array(upsample(heads.mean(dim=1), size)), as_array(upsample(rolled, size)))


def block_attentions(encoder: Encoder, pixels: Tensor) -> list[Tensor]:
    """Softmax attention of each block, first to last, shape ``(n, heads, tokens, tokens)``; rows sum to 1.

    Args:
        encoder: A timm ViT; stays as it is.
        pixels: ``(n, channels, height, width)``, standardised, on the encoder's device.

    Raises:
        ConfigError: The encoder has no attention.
    """
    frozen = inference_copy(encoder, "32")
    layers = attention_layers(frozen)
    if not layers:
        raise ConfigError(
            "Attention maps need a ViT, and this encoder has no attention; explain a convolutional network by FullGrad "
            "or Grad-CAM."
        )
    attentions: list[Tensor] = []
    for layer in layers:
        # The fused kernel never holds the attention itself; dropout, off in eval mode, is where it can be seen.
        layer.fused_attn = False
        layer.attn_drop.register_forward_hook(lambda module, inputs, output: attentions.append(output))
    with torch.no_grad():
        frozen(pixels)
    return attentions


def rollout(attentions: Sequence[Tensor]) -> Tensor:
    """Attention rollout: how much of each input token reaches each output token.

    Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers, section 3: of each block the mean over heads,
    half of it given to the residual path, multiplied through the blocks.

    Args:
        attentions: Of each block, first to last, ``(n, heads, tokens, tokens)``, rows summing to 1.

    Returns:
        Shape ``(n, tokens, tokens)``, row per output token; rows sum to 1.
    """
    tokens = attentions[0].shape[-1]
    identity = torch.eye(tokens, dtype=attentions[0].dtype, device=attentions[0].device)
    rolled = identity.expand(len(attentions[0]), tokens, tokens)
    for attention in attentions:
        # Rows sum to 1 and so does the identity's: half of the sum keeps that.
        rolled = (attention.mean(dim=1) + identity) / 2 @ rolled
    return rolled


def attention_layers(network: nn.Module) -> list[Any]:
    """Timm's attention layers, in the order in which they stand."""
    return [module for module in network.modules() if hasattr(module, "fused_attn") and hasattr(module, "attn_drop")]


def _grid(model: nn.Module, size: tuple[int, int]) -> tuple[int, int, int]:
    """Rows and columns of patches, and how many tokens stand before them."""
    # nn.Module types its attributes as tensors and modules.
    vit: Any = model
    if getattr(vit, "cls_token", None) is None or not hasattr(vit, "patch_embed"):
        raise ConfigError(
            f"Attention maps are those of a ViT's class token, and {type(model).__name__} has none; explain a "
            "convolutional network by FullGrad or Grad-CAM."
        )
    patch = vit.patch_embed.patch_size
    if size[0] % patch[0] or size[1] % patch[1]:
        raise ConfigError(
            f"Images of {size[0]}x{size[1]} pixels are no whole number of patches of {patch[0]}x{patch[1]}; "
            "resize them."
        )
    return size[0] // patch[0], size[1] // patch[1], vit.num_prefix_tokens


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resampling of maps ``(n, height, width)`` to the height and width of an image."""
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def as_array(values: Tensor) -> NDArray[np.float64]:
    """Values of a tensor without gradient, in float64 on the CPU."""
    return np.asarray(values.detach().cpu().double().numpy())


# -------------------------------------------------------------------- FullGrad

AFFINE = (_ConvNd, nn.Linear, _BatchNorm)
"""Layers that may have a bias."""

HOMOGENEOUS = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Identity,
    nn.Flatten,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    BlurPool2d,
    DropPath,
)
"""Layers without a bias that, in eval mode, are their own gradient times their input."""

TOLERANCE = 1e-3
"""Largest part of the terms that may be missing in the score, beyond which the decomposition is refused."""

Captured = list[tuple[Tensor, Tensor]]
"""Bias and output of layers, in the order in which they ran; the bias has as many dimensions as the output."""


@dataclass(frozen=True)
class FullGradient:
    """One score a sample, taken apart.

    Attributes:
        input_term: Sum of input times gradient, shape ``(n,)``.
        bias_term: Sum over all layers of bias times gradient, shape ``(n,)``.
        score: What they sum to, shape ``(n,)``.
        completeness_error: How far they are from it, relative to it, shape ``(n,)``.
        saliency: Where in the image they come from, shape ``(n, height, width)``; 0 or more, without unit.
    """

    input_term: NDArray[np.float64]
    bias_term: NDArray[np.float64]
    score: NDArray[np.float64]
    completeness_error: NDArray[np.float64]
    saliency: NDArray[np.float64]


def full_gradient(network: nn.Module, pixels: Tensor, classes: NDArray[np.int64]) -> FullGradient:
    """The full-gradient decomposition of the score of one class a sample, and its FullGrad map.

    The map follows the paper's section on convolutional nets: magnitudes, rescaled to 0 to 1, brought to the size of
    the image bilinearly and summed. Each layer is rescaled as a whole, so that its channels keep their proportions.
    Layers whose output is a single pixel say nothing about where and are left out of the map, not of the sums.
    Convolutions with a stride may leave pixels without gradient; on maps of a few pixels that grid shows.

    Args:
        network: Maps ``(n, channels, height, width)`` to scores ``(n, classes)``; stays as it is.
        pixels: ``(n, channels, height, width)``, in the type and on the device of the network.
        classes: Code of the class whose score to explain, one a sample, shape ``(n,)``.

    Raises:
        ConfigError: A part of the network is not piecewise linear, so that the terms would not sum to the score.
    """
    frozen = inference_copy(network, "32")
    _check_piecewise_linear(frozen)
    pixels = pixels.detach().clone().requires_grad_()
    with _capture(frozen) as captured, torch.enable_grad():
        score = class_scores(frozen(pixels), classes)
        wanted = [pixels, *(output for _, output in captured)]
        # Samples do not meet in eval mode, so the gradient of the sum holds each sample's own.
        gradients = torch.autograd.grad(score.sum(), wanted, materialize_grads=True)
    terms = [pixels.detach() * gradients[0]]
    terms += [bias * gradient for (bias, _), gradient in zip(captured, gradients[1:], strict=True)]
    return _summarise(score.detach(), terms)


def _summarise(score: Tensor, terms: Sequence[Tensor]) -> FullGradient:
    # In float64 from here on: thousands of terms that cancel are added up.
    sums, score = torch.stack([term.flatten(1).sum(dim=1) for term in terms]).cpu().double(), score.cpu().double()
    missing = (sums.sum(dim=0) - score).abs()
    _check_complete(missing, sums.abs().sum(dim=0))
    error = missing / score.abs().clamp_min(torch.finfo(torch.float64).tiny)
    return FullGradient(*map(as_array, (sums[0], sums[1:].sum(dim=0), score, error, _saliency(terms))))


def _saliency(terms: Sequence[Tensor]) -> Tensor:
    size = (terms[0].shape[2], terms[0].shape[3])
    spatial = [term for term in terms if term.ndim == 4 and term.shape[2:].numel() > 1]
    maps = []
    for term in spatial:
        # From the least to the largest value of a sample, all channels together, to 0 to 1; 0 where all are equal.
        sizes = term.abs()
        low, high = sizes.amin(dim=(1, 2, 3), keepdim=True), sizes.amax(dim=(1, 2, 3), keepdim=True)
        rescaled = (sizes - low) / (high - low).clamp_min(torch.finfo(sizes.dtype).tiny)
        maps.append(upsample(rescaled.sum(dim=1), size))
    return torch.stack(maps).sum(dim=0) if maps else terms[0].new_zeros(len(terms[0]), *size)


@contextmanager
def _capture(network: nn.Module) -> Iterator[Captured]:
    captured: Captured = []
    handles = []
    for module in network.modules():
        if not isinstance(module, AFFINE) or (bias := _bias(module)) is None:
            continue
        # What BatchNormAct2d gives has passed its activation. Its dropout comes between the bias and that, and gives in
        # eval mode what it gets.
        place = module.drop if isinstance(module, BatchNormAct2d) else module
        handles.append(place.register_forward_hook(partial(_keep_output, captured, bias)))
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _keep_output(captured: Captured, bias: Tensor, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    per_channel = bias if isinstance(module, nn.Linear) else bias.view(-1, *[1] * (output.ndim - 2))
    captured.append((per_channel, output))
    # What comes later may overwrite its input, as activations and residual blocks do.
    return output.clone()


def _bias(module: nn.Module) -> Tensor | None:
    """What an affine layer adds to each channel, shape ``(channels,)``; of batch normalisation in eval mode."""
    if not isinstance(module, _BatchNorm):
        bias: Tensor | None = module.bias  # type: ignore[assignment]  # nn.Module types its attributes too widely
        return bias
    assert module.running_mean is not None
    assert module.running_var is not None
    shift = -module.running_mean * (module.running_var + module.eps).rsqrt()
    return shift if module.weight is None else module.bias + module.weight * shift


def _check_piecewise_linear(network: nn.Module) -> None:
    # Containers compute nothing of their own; a module with parameters beside its children may.
    layers = [one for one in network.modules() if not list(one.children()) or list(one.parameters(recurse=False))]
    foreign = {type(one).__name__ for one in layers if not isinstance(one, AFFINE + HOMOGENEOUS)}
    # Without running statistics it normalises by the batch in eval mode, too, and samples meet.
    norms = [one for one in layers if isinstance(one, _BatchNorm)]
    foreign |= {type(one).__name__ for one in norms if one.running_mean is None or one.running_var is None}
    if foreign:
        raise ConfigError(
            f"FullGrad needs layers that are piecewise linear, so that its terms sum to the score, and this network "
            f"has {', '.join(sorted(foreign))}. Explain a ViT by its attention maps and another convolutional network "
            "by Grad-CAM."
        )


def _check_complete(missing: Tensor, magnitude: Tensor) -> None:
    worst = float((missing / magnitude.clamp_min(torch.finfo(torch.float64).tiny)).max())
    if not worst <= TOLERANCE:
        raise ConfigError(
            f"The terms of FullGrad miss the score by {worst:.1%} of their magnitude: the network computes something "
            "between its layers that is not piecewise linear, such as a gate. Explain it by Grad-CAM."
        )


# -------------------------------------------------------------------- Grad-CAM


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
    # Only what speaks for the class is kept; what speaks for another one is negative.
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = functional.relu((weights * features.detach()).sum(dim=1))
    return as_array(upsample(maps, (pixels.shape[2], pixels.shape[3])))


def grad_cam_grid(network: nn.Module, pixels: Tensor) -> tuple[int, int]:
    """Height and width of the feature map that :func:`grad_cam` would look at.

    Args:
        network: Maps ``(n, channels, height, width)`` to scores ``(n, classes)``; stays as it is.
        pixels: ``(n, channels, height, width)``, on the device of the network.

    Raises:
        ConfigError: The network has no feature map of more than one pixel.
    """
    with torch.no_grad():
        features = _last_map(inference_copy(network, "32"), pixels)[1]
    return features.shape[2], features.shape[3]


def _last_map(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, and the last output of any layer that is a map of more than one pixel."""
    last: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            last[:] = [output]  # layers run in order, so that the last one stays

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


def class_scores(scores: Tensor, classes: NDArray[np.int64]) -> Tensor:
    """Of scores ``(n, classes)``, those of one class a sample: shape ``(n,)``."""
    return scores.gather(1, torch.from_numpy(classes).to(scores.device)[:, None])[:, 0]
