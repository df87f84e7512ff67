"""Feature maps: what a frozen encoder says of every place of an image, instead of the image as a whole."""

from __future__ import annotations

import copy
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import timm
import torch
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.errors import BandError, ConfigError
from terrasieve.models.backbone import Encoder

OUTPUT_STRIDE = 8
"""Pixels of the image to one of the map, of a dilated ResNet (Chen et al. 2017, arXiv 1706.05587, section 4)."""

STRIDES = (8, 16, 32)
"""What a ResNet can be dilated to; 32 leaves it as it is."""


class DenseEncoder(nn.Module):
    """A frozen encoder that keeps the places apart; see :func:`dense_encoder`. It stays in eval mode.

    Args:
        model: A ResNet or ViT of timm; becomes part of this.
        channels: Number of bands that the network takes.
        features: Number of channels of the map.
        stride: Pixels of the image from one cell of the map to the next.
        first: Row and column, in pixels, of the centre of the first cell.
    """

    def __init__(self, model: nn.Module, channels: int, features: int, stride: int, first: float) -> None:
        super().__init__()
        self.model = model
        self.channels = channels
        self.features = features
        self.stride = stride
        self.first = first
        self.requires_grad_(False).eval()

    @property
    def has_tokens(self) -> bool:
        """Whether the maps are a ViT's tokens, whose positions are laid out for images of one size."""
        return isinstance(self.model, VisionTransformer)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Feature maps ``(n, features, rows, columns)`` of normalised pixels ``(n, channels, height, width)``.

        Raises:
            BandError: The pixels have another number of bands than the network.
            ConfigError: A ViT cannot cut the image into whole patches.
        """
        if pixels.shape[1] != self.channels:
            raise BandError(f"The encoder takes {self.channels} band(s), but was given {pixels.shape[1]}.")
        if isinstance(self.model, VisionTransformer):
            return self._tokens(self.model, pixels)
        maps: Tensor = self.model.forward_features(pixels)  # type: ignore[operator]  # nn.Module types it as a tensor
        return maps

    def train(self, mode: bool = True) -> DenseEncoder:
        """Does nothing, so that a head's training mode never reaches the encoder."""
        return super().train(False)

    def _tokens(self, model: nn.Module, pixels: Tensor) -> Tensor:
        rows, columns = (side // self.stride for side in pixels.shape[-2:])
        if (rows * self.stride, columns * self.stride) != tuple(pixels.shape[-2:]):
            raise ConfigError(
                f"Images of {pixels.shape[-2]}x{pixels.shape[-1]} pixels cannot be cut into patches of {self.stride}; "
                f"set a size that is a multiple of {self.stride}."
            )
        tokens: Tensor = model.forward_features(pixels)  # type: ignore[operator]  # nn.Module types it as a tensor
        patches = tokens[:, tokens.shape[1] - rows * columns :]
        return patches.transpose(1, 2).reshape(len(pixels), -1, rows, columns)


def dense_encoder(encoder: Encoder, stride: int = OUTPUT_STRIDE) -> DenseEncoder:
    """The feature maps of an encoder before it averages them, at a finer stride, on the encoder's device.

    A ResNet's last stages are dilated instead of strided: the same weights, more places (Chen et al. 2017, section
    3.1). A ViT gives its patch tokens, and the stride is its patch size, whatever is asked.

    Args:
        encoder: A timm ResNet or ViT; it is left as it is, and nothing is shared with it.
        stride: Pixels of the image from one cell of a ResNet's map to the next, one of :data:`STRIDES`.

    Raises:
        ConfigError: The encoder is another network, or the stride is none of a ResNet's.
    """
    if isinstance(encoder.model, VisionTransformer):
        patch = int(encoder.model.patch_embed.patch_size[0])
        return DenseEncoder(copy.deepcopy(encoder.model), encoder.channels, encoder.features, patch, (patch - 1) / 2)
    if not isinstance(encoder.model, ResNet):
        raise ConfigError(
            f"{type(encoder.model).__name__} gives no feature maps that can be dilated; choose a ResNet or ViT of timm."
        )
    if stride not in STRIDES:
        raise ConfigError(f"A ResNet cannot be dilated to a stride of {stride}; choose one of {STRIDES}.")
    # Every kernel of a ResNet is odd and padded evenly, so the first cell is centred on the first pixel.
    return DenseEncoder(_dilated(encoder, stride), encoder.channels, encoder.features, stride, first=0.0)


class CellVectors(nn.Module):
    """Vectors of the cells of a regular grid over square images: feature maps, bilinear at the cells' centres.

    Args:
        encoder: A timm ResNet or ViT; it is left as it is.
        stride: Height and width of a cell, in pixels of the image. Maps of a ResNet are dilated to the coarsest of
            :data:`STRIDES` that is no coarser, those of a ViT are its tokens.
        size: Height and width of an image in pixels, a multiple of ``stride``.
        copies: How often a single band is shown side by side, for an encoder of as many channels.

    Raises:
        ConfigError: The encoder gives no feature maps.
    """

    places: Tensor

    def __init__(self, encoder: Encoder, stride: int, size: int, copies: int = 1) -> None:
        super().__init__()
        self.dense = dense_encoder(encoder, dilation(stride))
        self.copies = copies
        self.register_buffer("places", cell_places((size // stride,) * 2, (size, size)), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Vectors ``(n, features, rows, columns)`` of normalised images ``(n, channels, size, size)``.

        Raises:
            BandError: The images have another number of bands than the network.
        """
        maps = self.dense(pixels.repeat(1, self.copies, 1, 1))
        return sample_maps(maps.float(), self.places, self.dense.stride, self.dense.first)


def dilation(stride: int) -> int:
    """The coarsest of :data:`STRIDES` that is no coarser than cells of so many pixels; the finest below that."""
    return max((one for one in STRIDES if one <= stride), default=STRIDES[0])


def cell_places(cells: tuple[int, int], image: tuple[int, int]) -> Tensor:
    """Centres of equal cells that cover an image, in pixels of it, shape ``(1, rows, columns, 2)``.

    Args:
        cells: Rows and columns of cells.
        image: Height and width of the image.
    """
    sides = [(torch.arange(count) + 0.5) * (size / count) - 0.5 for count, size in zip(cells, image, strict=True)]
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)[None]


def sample_maps(maps: Tensor, places: Tensor, stride: int, first: float) -> Tensor:
    """Bilinear values of feature maps at places of the image; beyond the outermost centres, the nearest cell's.

    Args:
        maps: Feature maps, ``(n, features, rows, columns)``.
        places: Rows and columns in pixels of the image, shape ``(n or 1, a, b, 2)``.
        stride: Pixels of the image from one cell to the next.
        first: Row and column, in pixels, of the centre of the first cell.

    Returns:
        Shape ``(n, features, a, b)``.
    """
    cells = torch.tensor(maps.shape[-2:], device=maps.device)
    last = (cells - 1).clamp(min=1)
    relative = 2 * (places.to(maps.device) - first) / stride / last - 1
    grid = relative.flip(-1).expand(len(maps), -1, -1, -1).to(maps.dtype)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _dilated(encoder: Encoder, stride: int) -> nn.Module:
    name: Any = encoder.model.pretrained_cfg["architecture"]  # type: ignore[index]  # nn.Module types it as a tensor
    # The initial weights are thrown away; the global generator must not notice that they were drawn.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        model: nn.Module = timm.create_model(name, in_chans=encoder.channels, num_classes=0, output_stride=stride)
    weights = encoder.model.state_dict()
    model.load_state_dict(weights)
    return model.to(next(iter(weights.values())).device)
