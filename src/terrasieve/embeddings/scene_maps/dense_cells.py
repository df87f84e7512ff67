"""Where the vectors of a scene lie: cells of a regular grid, and the overlapping tiles that an encoder is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from terrasieve.device import Precision
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import Encoder
from terrasieve.models.dense import dense_encoder, dilation
from terrasieve.schema import Spec

_TILE = 256
"""About how many pixels a side a convolutional network is shown at a time."""


class DenseSettings(Spec):
    """How a scene passes through an encoder.

    Attributes:
        stride: Pixels from one vector to the next, down and to the right.
        tile: Height and width in pixels of what the encoder is shown at a time. When None, about 256 for a ResNet, for
            a ViT that of its training.
        batch_size: Tiles per forward pass.
        precision: As in :class:`terrasieve.embeddings.stream.EmbedSettings`.
    """

    stride: int = Field(default=8, ge=1, le=4096)
    tile: int | None = Field(default=None, ge=1, le=16_384)
    batch_size: int = Field(default=8, ge=1)
    precision: Precision = "auto"

    def fitted(self, encoder: Encoder, trained_size: int) -> DenseSettings:
        """These settings with the tile that they mean for an encoder.

        Args:
            encoder: A timm ResNet or ViT.
            trained_size: Height and width of the views that it was trained on, in pixels.

        Raises:
            ConfigError: The encoder gives no feature maps, or the tile cannot be cut into whole cells of them.
        """
        dense = dense_encoder(encoder, dilation(self.stride))
        lattice = math.lcm(self.stride, dense.stride)
        if self.tile is None:
            wanted = trained_size if dense.has_tokens else _TILE
            return self.model_copy(update={"tile": max(2, -(-wanted // lattice)) * lattice})
        if self.tile % lattice or self.tile < 2 * lattice:
            fitting = max(2, round(self.tile / lattice)) * lattice
            raise ConfigError(
                f"A tile of {self.tile} pixels cannot be halved and cut into whole cells: vectors every {self.stride} "
                f"pixels of a network with one every {dense.stride} ask for a multiple of {lattice}, twice that or "
                f"more. Set the tile to {fitting}."
            )
        return self

    def grid(self, height: int, width: int, native: int) -> MapGrid:
        """The cells and tiles of a scene.

        Args:
            height: Rows of the scene, in pixels.
            width: Columns of the scene, in pixels.
            native: Pixels from one cell of the network's own maps to the next.
        """
        assert self.tile is not None, "the caller has fitted the settings to the encoder"
        lattice = math.lcm(self.stride, native)
        # A smaller scene is one tile, little of which lies beyond it.
        tile = min(self.tile, -(-max(height, width) // lattice) * lattice)
        tops, lefts = (_starts(side, tile, lattice) for side in (height, width))
        return MapGrid(height, width, self.stride, tile, tops, lefts)


@dataclass(frozen=True)
class MapGrid:
    """The cells and tiles of a scene. The last row and column of cells may reach beyond it, and tiles may, too.

    Attributes:
        height: Rows of the scene, in pixels.
        width: Columns of the scene, in pixels.
        stride: Height and width of a cell, in pixels.
        tile: Height and width of a tile, in pixels; whole cells.
        tops: First row of each row of tiles, in pixels; all but the last half a tile apart. At the same place within a
            cell of the network's own maps, so that no tile is sampled in another way than its neighbour.
        lefts: Likewise of each column of tiles.
    """

    height: int
    width: int
    stride: int
    tile: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return -(-self.height // self.stride)

    @property
    def columns(self) -> int:
        """Columns of cells."""
        return -(-self.width // self.stride)

    @property
    def cells(self) -> int:
        """Rows, and columns, of cells of a tile."""
        return self.tile // self.stride

    @property
    def padded_width(self) -> int:
        """Columns of pixels that tiles cover, at least the scene's."""
        return self.lefts[-1] + self.tile

    def weights(self) -> NDArray[np.float32]:
        """How much each cell of a tile counts where tiles overlap, shape ``(cells, cells)``.

        A Hann window along either side: with half a tile of overlap they sum to 1, and at a tile's border, where the
        network sees little of what surrounds a cell, they are next to 0.
        """
        one = np.sin(np.pi * (np.arange(self.cells) + 0.5) / self.cells) ** 2
        return np.outer(one, one).astype(np.float32)

    def missing(self, pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The cells of which more than half the pixels are missing.

        Args:
            pixels: Whether each is missing, shape ``(rows * stride, columns * stride)``.

        Returns:
            Shape ``(rows, columns)``.
        """
        rows, columns = (side // self.stride for side in pixels.shape)
        shares = pixels.reshape(rows, self.stride, columns, self.stride).mean(axis=(1, 3))
        return np.asarray(shares > 0.5)


def _starts(length: int, tile: int, lattice: int) -> tuple[int, ...]:
    """First pixels of tiles along a side, multiples of ``lattice``; the last tile reaches its end."""
    step = max(1, tile // 2 // lattice) * lattice
    last = max(0, -(-(length - tile) // lattice) * lattice)
    return (*range(0, last, step), last)
